// One modality's arrays in their place on a page: key, picture, caption, and the numbers as a table.
const pictures = (() => {
  "use strict";
  const { element, short } = charts;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  const unpack = (data) => {
    if (data.all) data.unpacked = charts.unpack(data.all);
    if (data.steps) data.unpackedSteps = charts.unpack(data.steps).estimate;
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

  const drawKey = (holder, data) => {
    holder.replaceChildren();
    if (!["bars", "curve"].includes(data.kind)) return;
    for (const key of ["estimate", "truth", "nearest"].filter((name) => data.unpacked[name])) {
      const item = element("li", undefined, holder);
      const swatch = d3.create("svg").attr("width", 14).attr("height", 12).attr("aria-hidden", "true");
      if (key === "nearest" && data.kind === "bars") swatch.append("circle").attr("cx", 7).attr("cy", 6).attr("r", 4).attr("fill", "none").attr("stroke", charts.COLOURS[key]).attr("stroke-width", 2);
      else if (key === "truth" && data.kind === "bars") swatch.append("rect").attr("x", 5).attr("width", 4).attr("height", 12).attr("fill", charts.COLOURS[key]);
      else swatch.append("rect").attr("y", data.kind === "bars" ? 1 : 4).attr("width", 14).attr("height", data.kind === "bars" ? 10 : 4).attr("fill", charts.COLOURS[key]);
      item.append(swatch.node(), charts.words(data)[key]);
    }
    if (data.unpacked.low) element("li", "line or band: the interval of the draws", holder);
  };

  const captionOf = (data) => {
    const blocks = data.blocks.some((size) => size > 1) ? ` Each cell is the mean of ${data.blocks.join(" × ")} neighbours.` : "";
    if (data.kind === "bars") {
      const count = data.size[0];
      const chosen = data.bars.index.length < count ? `The ${data.bars.index.length} of ${count} features ${data.bars.order}` : `All ${count} features`;
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
    const words = { ...charts.words(data), low: "smallest draw", high: "largest draw" };
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

  const draw = (holder, data) => {
    drawKey(holder.querySelector("[data-draw=key]"), data);
    fill(holder.querySelector("[data-draw=values]"), (room, into) => charts.values(data, room, into));
    holder.querySelector("[data-caption=values]").textContent = captionOf(data);
  };

  const listen = (holder, data) => {
    const details = holder.querySelector("[data-draw=numbers]");
    details.addEventListener("toggle", () => details.open && numbers(details, data));
  };

  return { all, fill, unpack, draw, listen };
})();
