// The pictures of one sample, as functions from data and a width in pixels to an element.
const charts = (() => {
  "use strict";
  const COLOURS = { estimate: "var(--estimate)", truth: "var(--truth)", nearest: "var(--nearest)" };
  const WORDS = { estimate: "reconstruction", truth: "truth", nearest: "nearest evidence" };
  const words = (data) => ({ ...WORDS, ...data.words });

  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const ramp = () => (isDark() ? ["#5aa2ff", "#191d24", "#ff9f4a"] : ["#1f5fbf", "#fafafa", "#b84a00"]);

  // A bundle of packed arrays as plain lists, row by row; null where there is no number.
  const unpack = (bundle) => {
    const { low, high, levels, series } = bundle;
    const wide = levels > 255;
    const out = {};
    for (const [name, text] of Object.entries(series)) {
      const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const view = new DataView(bytes.buffer);
      const count = wide ? bytes.length / 2 : bytes.length;
      out[name] = Array.from({ length: count }, (_, index) => {
        const level = wide ? view.getUint16(2 * index, true) : bytes[index];
        return level === levels ? null : low + ((high - low) * level) / (levels - 1);
      });
    }
    return out;
  };

  const short = (number) =>
    number === null || number === undefined ? "–" : d3.format(".3~g")(number).replace("-", "−");

  const base = (width, height, label) => ({
    width,
    height,
    marginBottom: 40,
    ariaLabel: label,
    style: { background: "transparent", color: "inherit", fontSize: "12px", fontFamily: "inherit", overflow: "visible" },
  });

  const element = (tag, text, parent) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };

  const fitted = (text, letters) => (text.length > letters ? `${text.slice(0, letters - 1)}…` : text);

  const candidates = (rows, width) => {
    const parts = rows
      .filter((row) => row[1] !== null)
      .flatMap(([number, logProbability, cost, chosen]) => [
        { number, part: "−log p", loss: -logProbability, chosen },
        { number, part: "weighted C_sem", loss: cost ?? 0, chosen },
      ]);
    return Plot.plot({
      ...base(width, 50 + 26 * rows.length, "Loss of each candidate plan, in nats"),
      marginLeft: 36,
      marginTop: 6,
      x: { label: "loss (nats)", grid: true },
      y: { label: null, tickSize: 0, tickFormat: (number) => `#${number}` },
      color: { domain: ["−log p", "weighted C_sem"], range: [COLOURS.estimate, COLOURS.truth], legend: true },
      marks: [
        Plot.barX(parts, { x: "loss", y: "number", fill: "part", fillOpacity: (part) => (part.chosen ? 1 : 0.6), insetTop: 2, insetBottom: 2 }),
        Plot.ruleX([0], { stroke: "var(--ink)" }),
      ],
    });
  };

  const path = ({ states, clean, shares }, step, width) => {
    const named = [
      { at: states[0], text: "start" },
      { at: states.at(-1), text: "z_0" },
    ];
    const share = (index) => `direction ${index + 1} (${Math.round(100 * (shares[index] ?? 0))} % of the variance)`;
    const now = [
      { at: states[step], colour: COLOURS.estimate },
      { at: clean[step - 1], colour: COLOURS.truth },
    ];
    return Plot.plot({
      ...base(width, Math.min(320, Math.max(240, width * 0.7)), `The latent's way in two principal directions, at step ${step}`),
      x: { label: share(0), nice: true, grid: true, labelAnchor: "center" },
      y: { label: share(1), nice: true, grid: true },
      color: { domain: ["latent z_t", "clean estimate z_0|t"], range: [COLOURS.estimate, COLOURS.truth], legend: true },
      marks: [
        Plot.line(clean, { x: "0", y: "1", stroke: COLOURS.truth, strokeDasharray: "4 3", strokeWidth: 1.5 }),
        Plot.line(states, { x: "0", y: "1", stroke: COLOURS.estimate, strokeWidth: 1.5 }),
        Plot.dot(clean, { x: "0", y: "1", fill: COLOURS.truth, r: 2.5 }),
        Plot.dot(states, { x: "0", y: "1", fill: COLOURS.estimate, r: 2.5 }),
        Plot.text(named, { x: (each) => each.at[0], y: (each) => each.at[1], text: "text", dy: -12, fill: "var(--ink)", stroke: "var(--page)", strokeWidth: 4, fontWeight: 600 }),
        Plot.dot(now, { x: (each) => each.at[0], y: (each) => each.at[1], r: 7, fill: "colour", stroke: "var(--page)", strokeWidth: 2 }),
      ],
    });
  };

  const norms = (data, step, width) => {
    const kinds = { "|z_t|": data.state, "|z_0|t|": data.clean, change: data.change };
    const rows = Object.entries(kinds).flatMap(([kind, values]) => values.map((value, index) => ({ kind, value, step: index + 1 })));
    const range = [COLOURS.estimate, COLOURS.truth, COLOURS.nearest];
    return Plot.plot({
      ...base(width, Math.min(320, Math.max(240, width * 0.7)), `Norms at each denoising step; step ${step} is marked`),
      x: { label: "step", tickFormat: "d", labelAnchor: "center", ticks: Math.min(10, data.state.length) },
      y: { label: "root mean square", grid: true, zero: true },
      color: { domain: Object.keys(kinds), range, legend: true },
      marks: [
        Plot.ruleX([step], { stroke: "var(--grid)", strokeWidth: 2 }),
        Plot.line(rows, { x: "step", y: "value", stroke: "kind", strokeWidth: 2 }),
        Plot.dot(rows, { x: "step", y: "value", fill: "kind", r: (row) => (row.step === step ? 5 : 2.5), stroke: "var(--page)", strokeWidth: 0.5 }),
        Plot.ruleY([0], { stroke: "var(--grid)" }),
      ],
    });
  };

  const unit = (data) => (data.standard ? "deviations from the training mean" : "input's units");

  // Features as bars, with intervals, the truth and the nearest evidence marked.
  const bars = (data, values, width, label) => {
    const { names, units, series, mean, deviation } = data.bars;
    const shown = values ?? series.estimate;
    const rows = names.map((name, index) => ({
      index,
      estimate: shown[index],
      low: series.low?.[index],
      high: series.high?.[index],
      truth: series.truth?.[index],
      nearest: series.nearest?.[index],
      label: mean ? `${name}: ${short(shown[index] * deviation[index] + mean[index])} ${units[index]}` : `${name}: ${short(shown[index])}`,
    }));
    const letters = width < 480 ? 16 : 30;
    const longest = d3.max(names, (name) => fitted(name, letters).length);
    const whole = !values;
    return Plot.plot({
      ...base(width, 46 + 20 * rows.length, label),
      marginLeft: 14 + 6.6 * longest,
      marginRight: 14,
      x: { label: unit(data), grid: true, nice: true, labelAnchor: "center", domain: extent(data, rows) },
      y: { label: null, tickSize: 0, tickFormat: (index) => fitted(names[index], letters) },
      marks: [
        Plot.barX(rows, { x: "estimate", y: "index", fill: COLOURS.estimate, insetTop: 3, insetBottom: 3, title: "label" }),
        whole && series.low ? Plot.ruleY(rows, { y: "index", x1: "low", x2: "high", stroke: "var(--ink)", strokeWidth: 1.5 }) : null,
        series.nearest && whole ? Plot.dot(rows, { x: "nearest", y: "index", stroke: COLOURS.nearest, fill: "var(--page)", r: 3.5, strokeWidth: 2 }) : null,
        series.truth ? Plot.tickX(rows, { x: "truth", y: "index", stroke: COLOURS.truth, strokeWidth: 3 }) : null,
        Plot.ruleX([0], { stroke: "var(--ink)" }),
      ],
    });
  };

  const extent = (data, rows) => {
    const { series } = data.bars;
    const steps = data.steps && data.steps.whole ? [data.steps.low, data.steps.high] : [];
    const all = [...Object.values(series).flat(), ...rows.map((row) => row.estimate), ...steps, 0];
    return d3.extent(all.filter((value) => value !== null && value !== undefined));
  };

  // Many features without names: curves over their numbers.
  const curve = (data, values, width, label) => {
    const all = values ? { estimate: values } : data.unpacked;
    const block = values ? 1 : data.blocks[0];
    const count = all.estimate.length;
    const truth = data.unpacked.truth;
    const line = (list, options) => (list ? Plot.line(list.map((value, index) => [1 + index * block, value]), { x: "0", y: "1", ...options }) : null);
    const band = all.low ? all.low.map((low, index) => ({ x: 1 + index * block, low, high: all.high[index] })) : null;
    return Plot.plot({
      ...base(width, 260, label),
      x: { label: "feature", labelAnchor: "center", domain: [1, Math.max(2, count * block)] },
      y: { label: unit(data), grid: true, nice: true, domain: [data.all.low, data.all.high] },
      marks: [
        band ? Plot.areaY(band, { x: "x", y1: "low", y2: "high", fill: COLOURS.estimate, fillOpacity: 0.2 }) : null,
        line(all.nearest, { stroke: COLOURS.nearest, strokeWidth: 1, strokeDasharray: "2 2" }),
        line(truth && truth.length === count ? truth : null, { stroke: COLOURS.truth, strokeWidth: 1.25 }),
        line(all.estimate, { stroke: COLOURS.estimate, strokeWidth: 1.5 }),
        Plot.ruleY([0], { stroke: "var(--grid)" }),
      ],
    });
  };

  // Frames from left to right, features from top to bottom.
  const heat = (data, list, shape, width, label, colour) => {
    const [frames, features] = shape;
    const turned = Array.from({ length: frames * features }, (_, index) => list[(index % frames) * features + Math.floor(index / frames)]);
    const { names } = data;
    const few = features <= 24 && data.blocks[1] === 1;
    const rowName = (place) => (names ? fitted(names[Math.floor(place)], 16) : short(Math.ceil(place)));
    return Plot.plot({
      ...base(width, few ? 60 + 15 * features : Math.max(130, Math.min(280, 60 + 4 * features)), label),
      marginLeft: few && names ? 10 + 6 * d3.max(names, (name) => fitted(name, 16).length) : 36,
      x: { label: "frame", labelAnchor: "center", domain: [0, frames], ticks: Math.min(6, frames), tickFormat: (frame) => short(frame * data.blocks[0]) },
      y: few
        ? { label: names ? null : "feature", domain: [features, 0], ticks: d3.range(features).map((index) => index + 0.5), tickSize: 0, tickFormat: rowName }
        : { label: "feature", domain: [features, 0], ticks: 5, tickFormat: (place) => short(place * data.blocks[1]) },
      color: colour,
      marks: [Plot.raster(turned, { width: frames, height: features, imageRendering: "pixelated" })],
    });
  };

  const diverging = (limit) => ({ type: "linear", domain: [-limit, 0, limit], range: ramp(), interpolate: "rgb", clamp: true });

  // Black and white of an image: what draws do beyond it doesn't count.
  const tones = (data) => d3.extent(["estimate", "truth", "nearest"].flatMap((key) => data.unpacked[key] ?? []));

  const image = (list, shape, width, label, domain) => {
    const [rows, columns] = shape.slice(-2);
    const size = rows * columns;
    const plain = shape.length === 2;
    const level = (value) => Math.round((255 * ((value ?? domain[0]) - domain[0])) / (domain[1] - domain[0] || 1));
    const pixels = Array.from({ length: size }, (_, index) => {
      const [r, g, b] = plain ? [list[index], list[index], list[index]] : [list[index], list[size + index], list[2 * size + index]];
      return d3.rgb(level(r), level(g), level(b)).clamp().formatHex();
    });
    return Plot.plot({
      ...base(width, Math.round((width * rows) / columns), label),
      margin: 0,
      marginBottom: 0,
      axis: null,
      x: { domain: [0, columns] },
      y: { domain: [rows, 0] },
      color: { type: "identity" },
      marks: [Plot.raster(pixels, { width: columns, height: rows, imageRendering: "pixelated" }), Plot.frame({ stroke: "var(--grid)" })],
    });
  };

  const panels = (parts, parent, images) => {
    const grid = element("div", undefined, parent);
    grid.className = images ? "panels images" : "panels";
    for (const { title } of parts) element("h3", title, element("div", undefined, grid));
    parts.forEach(({ draw }, index) => {
      const cell = grid.children[index];
      cell.append(draw(Math.max(110, cell.clientWidth)));
    });
    return grid;
  };

  // The reconstruction beside what there is to compare it with.
  const values = (data, width, holder) => {
    const name = `Reconstruction of ${data.name}`;
    if (data.kind === "bars") return void holder.append(bars(data, null, width, name));
    if (data.kind === "curve") return void holder.append(curve(data, null, width, name));
    const { shape } = data.all;
    const list = data.unpacked;
    const names = words(data);
    const shown = ["estimate", "truth", "nearest"].filter((key) => list[key]);
    const difference = list.truth ? list.estimate.map((value, index) => value - list.truth[index]) : null;
    const spread = list.low ? list.high.map((value, index) => value - list.low[index]) : null;
    if (data.kind === "heat") {
      const colour = diverging(data.limit);
      const wide = { ...colour, domain: [0, d3.max(spread ?? [1]) || 1], range: ramp().slice(1) };
      const parts = shown.map((key) => ({ title: names[key], draw: (room) => heat(data, list[key], shape, room, `${name}: ${names[key]}`, colour) }));
      if (difference) parts.push({ title: `${names.estimate} − ${names.truth}`, draw: (room) => heat(data, difference, shape, room, `${name}: difference`, colour) });
      if (spread) parts.push({ title: `width of the interval (up to ${short(wide.domain[1])})`, draw: (room) => heat(data, spread, shape, room, `${name}: interval width`, wide) });
      panels(parts, holder);
      const legend = Plot.legend({ color: colour, label: unit(data), width: Math.min(280, width), ticks: 5 });
      legend.setAttribute("aria-label", `Colours, in ${unit(data)}`);
      holder.append(legend);
      return undefined;
    }
    const domain = tones(data);
    const parts = shown.map((key) => ({ title: names[key], draw: (room) => image(list[key], shape, room, `${name}: ${names[key]}`, domain) }));
    if (difference) {
      const reach = d3.max(difference, Math.abs) || 1;
      parts.push({ title: `|difference| (up to ${short(reach)})`, draw: (room) => image(difference.map(Math.abs), shape, room, `${name}: difference`, [0, reach]) });
    }
    if (spread) {
      const reach = d3.max(spread) || 1;
      parts.push({ title: `width of the interval (up to ${short(reach)})`, draw: (room) => image(spread, shape, room, `${name}: interval width`, [0, reach]) });
    }
    panels(parts, holder, true);
    return undefined;
  };

  // The clean estimate at one step, drawn like the reconstruction.
  const step = (data, place, width, holder) => {
    const { shape } = data.steps;
    const one = shape.slice(1);
    const size = one.reduce((product, length) => product * length, 1);
    const list = data.unpackedSteps.slice(place * size, (place + 1) * size);
    const label = `Clean estimate of ${data.name} at step ${data.steps.of[place]}`;
    if (data.kind === "bars" && data.steps.whole) holder.append(bars(data, data.bars.index.map((index) => list[index]), width, label));
    else if (data.kind === "bars" || data.kind === "curve") holder.append(curve(data, list, width, label));
    else if (data.kind === "heat") panels([{ title: "clean estimate", draw: (room) => heat(data, list, one, room, label, diverging(data.limit)) }], holder);
    else panels([{ title: "clean estimate", draw: (room) => image(list, one, room, label, tones(data)) }], holder, true);
  };

  const labels = (rows, width) => {
    const letters = width < 480 ? 18 : 30;
    const longest = d3.max(rows, (row) => fitted(row[0], letters).length);
    const numbered = rows.map(([, share, without], index) => ({ index, share, without }));
    return Plot.plot({
      ...base(width, 46 + 22 * rows.length, "Probability of each label, with and without the reconstruction"),
      marginLeft: 14 + 6.6 * longest,
      x: { label: "probability", domain: [0, 1], grid: true, labelAnchor: "center" },
      y: { label: null, tickSize: 0, tickFormat: (index) => fitted(rows[index][0], letters) },
      marks: [
        Plot.barX(numbered, { x: "share", y: "index", fill: COLOURS.estimate, insetTop: 3, insetBottom: 3 }),
        Plot.tickX(numbered.filter((row) => row.without !== null), { x: "without", y: "index", stroke: COLOURS.truth, strokeWidth: 3 }),
        Plot.ruleX([0], { stroke: "var(--ink)" }),
      ],
    });
  };

  return { unpack, tones, element, short, candidates, path, norms, values, step, labels, COLOURS, words, unit };
})();
