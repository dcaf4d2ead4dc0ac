// Which sample is open, the list's filters and order, the sliders and the theme.
(() => {
  "use strict";
  const { short } = charts;
  const { all, fill } = pictures;
  const articles = all("main > article");
  const list = document.getElementById("list");
  let open = null;

  const dataOf = (article) => {
    if (!article.drawn) {
      article.drawn = JSON.parse(document.getElementById(article.id.replace("sample", "data")).textContent);
      article.drawn.modalities.forEach(pictures.unpack);
    }
    return article.drawn;
  };

  const modalitiesOf = (article, data, selector) =>
    all(selector, article).map((holder) => [holder, data.modalities[Number(holder.dataset.modality)]]);

  const drawStep = (holder, data) => {
    const input = holder.querySelector("input[type=range]");
    const step = Number(input.value);
    const { norms } = data;
    const label = `${step} of ${input.max}, t = ${norms.timestep[step - 1]}: |z_t| ${short(norms.state[step - 1])}, |z_0|t| ${short(norms.clean[step - 1])}, change ${short(norms.change[step - 1])}`;
    holder.querySelector("output").textContent = label;
    input.setAttribute("aria-valuetext", label);
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

  const draw = (article) => {
    const data = dataOf(article);
    fill(article.querySelector("[data-draw=candidates]"), (room) => charts.candidates(data.candidates, room));
    fill(article.querySelector("[data-draw=labels]"), (room) => charts.labels(data.labels, room));
    for (const [holder, modality] of modalitiesOf(article, data, ".denoising")) drawStep(holder, modality);
    for (const [holder, modality] of modalitiesOf(article, data, "[data-modality]:not(.denoising)")) pictures.draw(holder, modality);
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
    for (const [holder, modality] of modalitiesOf(article, data, "[data-modality]:not(.denoising)")) pictures.listen(holder, modality);
  };

  const show = (focus) => {
    const asked = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const chosen = articles.includes(asked) ? asked : list ? null : articles[0];
    if (list) list.hidden = chosen !== null;
    for (const article of articles) article.hidden = article !== chosen;
    open = chosen;
    if (chosen) {
      if (!chosen.drawn) listen(chosen);
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
