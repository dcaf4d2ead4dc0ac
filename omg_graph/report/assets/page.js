// Which sample is open, the list's filters and order, the sliders and the theme.
(() => {
  "use strict";
  const { element, short } = charts;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const articles = all("main > article");
  const list = document.getElementById("list");
  let open = null;

  const dataOf = (article) => {
    if (!article.told) {
      article.told = JSON.parse(document.getElementById(article.id.replace("sample", "data")).textContent);
      article.told.modalities.forEach((data) => {
        if (data.all) data.unpacked = charts.unpack(data.all);
        if (data.steps) data.unpackedSteps = charts.unpack(data.steps).estimate;
      });
    }
    return article.told;
  };

  const roomOf = (holder) => Math.max(240, Math.min(992, holder.parentElement.clientWidth));

  const fill = (holder, draw) => {
    if (!holder) return;
    const room = roomOf(holder);
    holder.replaceChildren();
    const made = draw(room, holder);
    if (made) holder.append(made);
    for (const picture of all("svg[aria-label]", holder)) picture.setAttribute("role", "img");
  };

  const modalitiesOf = (article, data, selector) =>
    all(selector, article).map((holder) => [holder, data.modalities[Number(holder.dataset.modality)]]);

  const drawStep = (holder, data) => {
    const input = holder.querySelector("input[type=range]");
    const step = Number(input.value);
    const { norms } = data;
    const told = `${step} of ${input.max}, t = ${norms.timestep[step - 1]}: |z_t| ${short(norms.state[step - 1])}, |z_0|t| ${short(norms.clean[step - 1])}, change ${short(norms.change[step - 1])}`;
    holder.querySelector("output").textContent = told;
    input.setAttribute("aria-valuetext", told);
    if (data.path) fill(holder.querySelector("[data-draw=path]"), (room) => charts.path(data.path, step, room));
    fill(holder.querySelector("[data-draw=norms]"), (room) => charts.norms(norms, step, room));
    if (!data.steps) return;
    const { of } = data.steps;
    const place = of.reduce((best, kept, index) => (Math.abs(kept - step) < Math.abs(of[best] - step) ? index : best), 0);
    fill(holder.querySelector("[data-draw=step]"), (room, into) => charts.step(data, place, room, into));
    const near = of[place] === step ? "" : ` (the nearest to step ${step} that was kept)`;
    const truth = data.unpacked?.truth && ["bars", "curve"].includes(data.kind) ? "; the truth is marked" : "";
    holder.querySelector("[data-caption=step]").textContent = `What the clean estimate of draw 0 says at step ${of[place]}${near}, in ${charts.unit(data)}${truth}.`;
  };

  const drawKey = (holder, data) => {
    holder.replaceChildren();
    if (!["bars", "curve"].includes(data.kind)) return;
    for (const key of ["estimate", "truth", "nearest"].filter((name) => data.unpacked[name])) {
      const item = element("li", undefined, holder);
      const swatch = d3.create("svg").attr("width", 14).attr("height", 12).attr("aria-hidden", "true");
      if (key === "nearest" && data.kind === "bars") swatch.append("circle").attr("cx", 7).attr("cy", 6).attr("r", 4).attr("fill", "none").attr("stroke", charts.COLOURS[key]).attr("stroke-width", 2);
      else if (key === "truth" && data.kind === "bars") swatch.append("rect").attr("x", 5).attr("width", 4).attr("height", 12).attr("fill", charts.COLOURS[key]);
      else swatch.append("rect").attr("y", data.kind === "bars" ? 1 : 4).attr("width", 14).attr("height", data.kind === "bars" ? 10 : 4).attr("fill", charts.COLOURS[key]);
      item.append(swatch.node(), charts.WORDS[key]);
    }
    if (data.unpacked.low) element("li", "line or band: the interval of the draws", holder);
  };

  const captionOf = (data) => {
    const blocks = data.blocks.some((size) => size > 1) ? ` Each cell is the mean of ${data.blocks.join(" × ")} neighbours.` : "";
    if (data.kind === "bars") {
      const count = data.size[0];
      const chosen = data.bars.index.length < count ? `The ${data.bars.index.length} of ${count} features furthest from the training mean` : `All ${count} features`;
      return `${chosen}, in ${charts.unit(data)}.`;
    }
    if (data.kind === "curve") return `All ${data.size[0]} features, in ${charts.unit(data)}.${blocks}`;
    if (data.kind === "heat") return `${data.size[0]} frames of ${data.size[1]} features.${blocks}`;
    return `${data.size.slice(-2).join(" × ")} pixels, from ${short(charts.tones(data)[0])} (black) to ${short(charts.tones(data)[1])} (white).${blocks}`;
  };

  // The chart once more in numbers, made when somebody asks for them.
  const numbers = (details, data) => {
    if (details.querySelector("table")) return;
    const scroll = element("div", undefined, details);
    scroll.className = "scroll";
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", `Numbers of ${data.name}`);
    const table = element("table", undefined, scroll);
    const keys = ["estimate", "truth", "nearest", "low", "high"].filter((key) => data.unpacked[key]);
    const words = { ...charts.WORDS, low: "smallest draw", high: "largest draw" };
    const { rows, head, note } = tableOf(data, keys);
    element("caption", note, table);
    const top = element("tr", undefined, element("thead", undefined, table));
    for (const title of [head, ...keys.map((key) => words[key])]) element("th", title, top).scope = "col";
    const body = element("tbody", undefined, table);
    for (const [name, ...cells] of rows) {
      const row = element("tr", undefined, body);
      const first = element("th", undefined, row);
      first.scope = "row";
      element("bdi", name, first);
      for (const value of cells) element("td", short(value), row).className = "number";
    }
  };

  const tableOf = (data, keys) => {
    const { unpacked, blocks, size } = data;
    if (data.kind === "bars") {
      const { names, units, mean, deviation, series } = data.bars;
      const real = (key, index) => (mean && series[key][index] !== null ? series[key][index] * deviation[index] + mean[index] : series[key][index]);
      return {
        head: "feature",
        note: "In the input's units.",
        rows: names.map((name, index) => [units[index] ? `${name} (${units[index]})` : name, ...keys.map((key) => real(key, index))]),
      };
    }
    const span = (index, block, end) => (block > 1 ? `${index * block + 1}–${Math.min(end, (index + 1) * block)}` : `${index + 1}`);
    if (data.kind === "curve") {
      return { head: "feature", note: `In ${charts.unit(data)}.`, rows: unpacked.estimate.map((_, index) => [span(index, blocks[0], size[0]), ...keys.map((key) => unpacked[key][index])]) };
    }
    const [across, along] = data.all.shape.slice(-2);
    const heat = data.kind === "heat";
    const count = heat ? along : across;
    const mean = (values, index) => d3.mean(d3.range(heat ? across : along), (other) => (heat ? values[other * along + index] : values[index * along + other]));
    return {
      head: heat ? "feature" : "row",
      note: heat ? `Means over frames, in ${charts.unit(data)}.` : "Means over the pixels of a row.",
      rows: d3.range(count).map((index) => [span(index, blocks.at(heat ? -1 : -2), size.at(heat ? -1 : -2)), ...keys.map((key) => mean(unpacked[key], index))]),
    };
  };

  const draw = (article) => {
    const data = dataOf(article);
    fill(article.querySelector("[data-draw=candidates]"), (room) => charts.candidates(data.candidates, room));
    fill(article.querySelector("[data-draw=labels]"), (room) => charts.labels(data.labels, room));
    for (const [holder, modality] of modalitiesOf(article, data, ".denoising")) drawStep(holder, modality);
    for (const [holder, modality] of modalitiesOf(article, data, "[data-modality]:not(.denoising)")) {
      drawKey(holder.querySelector("[data-draw=key]"), modality);
      fill(holder.querySelector("[data-draw=values]"), (room, into) => charts.values(modality, room, into));
      holder.querySelector("[data-caption=values]").textContent = captionOf(modality);
    }
  };

  // On a phone the rows of wide tables are cards: each cell has its heading beside it. Roles keep them a table.
  const cards = (root) => {
    for (const table of all("table[data-cards]", root)) {
      const heads = all("thead th", table).map((head) => head.textContent.trim());
      table.classList.add("cards");
      table.setAttribute("role", "table");
      for (const part of all("thead, tbody", table)) part.setAttribute("role", "rowgroup");
      for (const head of all("thead th", table)) head.setAttribute("role", "columnheader");
      for (const row of all("tr", table)) row.setAttribute("role", "row");
      for (const row of all("tbody tr", table)) {
        [...row.children].forEach((cell, column) => {
          cell.setAttribute("role", "cell");
          cell.dataset.head = heads[column];
        });
      }
    }
  };

  const listen = (article) => {
    cards(article);
    const data = dataOf(article);
    for (const [holder, modality] of modalitiesOf(article, data, ".denoising")) holder.querySelector("input[type=range]").addEventListener("input", () => drawStep(holder, modality));
    for (const [holder, modality] of modalitiesOf(article, data, "[data-modality]:not(.denoising)")) {
      const details = holder.querySelector("[data-draw=numbers]");
      details.addEventListener("toggle", () => details.open && numbers(details, modality));
    }
  };

  const show = (focus) => {
    const asked = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const chosen = articles.includes(asked) ? asked : list ? null : articles[0];
    if (list) list.hidden = chosen !== null;
    for (const article of articles) article.hidden = article !== chosen;
    open = chosen;
    if (chosen) {
      if (!chosen.told) listen(chosen);
      draw(chosen);
    }
    const heading = (chosen ?? list).querySelector("h1");
    document.title = `${heading.textContent} · omg trace`;
    if (focus) {
      heading.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
  };

  const filter = () => {
    const words = document.getElementById("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const missing = document.getElementById("missing").value;
    const label = document.getElementById("label")?.value ?? "";
    const rows = all("#samples tbody tr");
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(
        words.every((word) => text.includes(word)) &&
        (missing === "" || row.dataset.missing.split(" ").includes(missing)) &&
        (label === "" || row.dataset.label === label)
      );
    }
    document.getElementById("count").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };

  const sort = (head) => {
    const column = [...head.parentElement.children].indexOf(head);
    const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of head.parentElement.children) other.setAttribute("aria-sort", other === head ? direction : "none");
    const key = (row) => row.children[column].dataset.sort ?? row.children[column].textContent.trim();
    const rows = all("#samples tbody tr").map((row) => [row, key(row)]);
    const numeric = rows.every(([, value]) => value === "" || Number.isFinite(Number(value)));
    const compare = (a, b) => (numeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true }));
    // what has no value stays last either way
    rows.sort(([, a], [, b]) => (a === "" ? 1 : 0) - (b === "" ? 1 : 0) || (direction === "ascending" ? compare(a, b) : compare(b, a)));
    document.querySelector("#samples tbody").append(...rows.map(([row]) => row));
  };

  const themes = ["", "light", "dark"];
  const button = document.getElementById("theme");
  const paint = (theme) => {
    document.documentElement.dataset.theme = theme;
    document.documentElement.style.colorScheme = theme || "light dark";
    button.textContent = `Theme: ${theme || "as the system"}`;
    if (open) draw(open);
  };
  button.addEventListener("click", () => paint(themes[(themes.indexOf(document.documentElement.dataset.theme ?? "") + 1) % themes.length]));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => open && draw(open));

  if (list) {
    cards(list);
    for (const id of ["find", "missing", "label"]) document.getElementById(id)?.addEventListener("input", filter);
    for (const head of all("#samples th")) head.querySelector("button").addEventListener("click", () => sort(head));
  }
  addEventListener("hashchange", () => show(true));
  let width = document.documentElement.clientWidth;
  let waiting = 0;
  addEventListener("resize", () => {
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => open && draw(open), 100);
  });
  show(false);
})();
