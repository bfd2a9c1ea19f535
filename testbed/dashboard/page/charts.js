"use strict";
/* One figure: a picture drawn by Vega, its numbers as a table, and both to take away. */

const MANY = 1200; // points from which on a canvas is drawn: so many SVG elements would be slow
let figures = [];
let vega = null;

/** The plotting library: loaded when it is first needed, so that the overview need not wait for it. */
function loadVega() {
  vega ||= new Promise((resolve, reject) => {
    document.head.append(element("script", { src: "vega.js", onload: resolve, onerror: () => reject(new Error("vega.js is missing")) }));
  });
  return vega;
}

function config() {
  const text = { labelColor: colour("soft"), titleColor: colour("soft"), labelFontSize: 12, titleFontSize: 12,
    titleFontWeight: "normal", labelFont: "system-ui, sans-serif", titleFont: "system-ui, sans-serif" };
  return {
    background: colour("card"), font: "system-ui, sans-serif", view: { stroke: null },
    axis: { ...text, gridColor: colour("line"), domainColor: colour("line"), tickColor: colour("line"), labelLimit: 220 },
    legend: { ...text, orient: "top", symbolType: "circle", symbolOpacity: 1, labelLimit: 260, columns: innerWidth < 700 ? 1 : 0 },
    text: { color: colour("text"), fontSize: 12 },
    rule: { color: colour("soft") },
  };
}

/**
 * A figure. what: {title, note, alt, file, spec: () => Vega-Lite, points, columns, rows}; spec is asked again when
 * colours change. Returns the element; it is drawn when it comes into sight.
 */
function figure(what) {
  const place = element("div", { class: "drawing" });
  const made = { what, place, view: null };
  const tools = element("div", { class: "tools" },
    ["SVG", "PNG"].map((form) => element("button", { type: "button", onclick: () => save(made, form.toLowerCase()),
      "aria-label": `Save as ${form}: ${what.title}` }, form)));
  const root = element("figure", { "aria-label": what.title },
    element("figcaption", {}, element("h3", {}, what.title), tools, what.note ? element("p", {}, what.note) : null),
    place,
    element("details", {}, element("summary", {}, "The numbers as a table"),
      table(what.columns, what.rows, `Numbers: ${what.title}`)));
  place.style.minHeight = `${what.height || 260}px`;
  figures.push(made);
  sight.observe(place);
  return root;
}

/** Vega-Lite 6.4 asks the cells of "nearest" for the fields of their points: these are one step further in. */
function withTooltips(spec) {
  for (const mark of spec.marks) {
    const tooltip = mark.name?.endsWith("_voronoi") && mark.encode.update.tooltip;
    if (tooltip?.signal && !tooltip.signal.includes("datum.datum")) tooltip.signal = tooltip.signal.replaceAll("datum[", "datum.datum[");
  }
  return spec;
}

const sight = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((each) => each.isIntersecting)) {
    sight.unobserve(entry.target);
    const found = figures.find((each) => each.place === entry.target);
    if (found) draw(found);
  }
}, { rootMargin: "200px" });

async function draw(made) {
  try {
    await loadVega();
    const spec = {
      $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", height: made.what.height || 260,
      description: made.what.alt || made.what.title, autosize: { type: "fit-x", contains: "padding" }, ...made.what.spec(),
    };
    const renderer = (made.what.points || 0) > MANY ? "canvas" : "svg";
    made.view?.finalize();
    const done = await vegaEmbed(made.place, spec, { actions: false, renderer, config: config(), patch: withTooltips, tooltip: { disableDefaultStyle: true } });
    made.view = done.view;
    made.place.dataset.drawn = renderer;
  } catch (problem) {
    made.place.replaceChildren(element("p", { class: "note" }, `This could not be drawn: ${problem.message}`));
    console.error(problem);
  }
}

async function save(made, form) {
  if (!made.view) await draw(made);
  const address = await made.view.toImageURL(form, form === "png" ? 2 : 1);
  element("a", { href: address, download: `${made.what.file}.${form}` }).click();
  say(`${made.what.file}.${form} is saved`);
}

function say(text) {
  document.getElementById("said").textContent = text;
}

/** Before another view is shown. */
function forgetFigures() {
  for (const each of figures) {
    sight.unobserve(each.place);
    each.view?.finalize();
  }
  figures = [];
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const each of figures) if (each.view) draw(each);
});

// ---- pictures of the history ------------------------------------------------------------------

const SPREAD = "95 % interval";

/** Tooltip rows that all pictures of runs share. */
const RUN_TOOLTIP = [
  { field: "value", title: "median" }, { field: "spread", title: SPREAD }, { field: "count", title: "values" },
  { field: "commit", title: "commit" }, { field: "when", title: "when" }, { field: "run", title: "run" },
  { field: "label", title: "label" },
];

/** Points of some series as rows. series: [{name, points}]; place: run number -> number of the column. */
function runRows(series, place) {
  return series.flatMap(({ name, points }) => points.filter((point) => place.has(point[0])).map(([run, middle, low, high, count]) => {
    const about = runOf(run);
    return { name, at: about.at * 1000, n: place.get(run), middle, low, high, count, value: figure4(middle),
      spread: `${figure4(low)} to ${figure4(high)}`, commit: about.commit, when: clock(about.at), run: about.id, label: about.label || "–" };
  }));
}

/** Lines with bands. names and colours of the series run in parallel; goal: {value, text} or null. */
function historySpec(rows, names, colours, axis, yTitle, goal, commits) {
  const x = axis === "time"
    ? { field: "at", type: "temporal", title: null }
    : { field: "n", type: "quantitative", title: "commit of the run", scale: { nice: false },
      axis: { tickMinStep: 1, tickCount: 10, ...(commits.length < 11 ? { values: [...commits.keys()] } : {}), grid: false, labelAngle: -40, labelExpr: `${JSON.stringify(commits)}[datum.value] || ''` } };
  const flat = new Set(rows.flatMap((row) => [row.low, row.high])).size < 2; // no range of values that an axis could show
  const y = { field: "middle", type: "quantitative", title: yTitle, scale: { zero: flat } };
  const paint = { field: "name", type: "nominal", title: null, scale: { domain: names, range: colours },
    legend: names.length > 1 ? {} : null };
  const rule = goal ? [
    { data: { values: [{ goal: goal.value }] }, mark: { type: "rule", strokeDash: [6, 4], color: colour("good"), strokeWidth: 1.5 },
      encoding: { y: { field: "goal", type: "quantitative" } } },
    { data: { values: [{ goal: goal.value, text: goal.text }] }, mark: { type: "text", align: "left", dx: 4, dy: -7, color: colour("good"), fontSize: 11 },
      encoding: { y: { field: "goal", type: "quantitative" }, x: { value: 0 }, text: { field: "text" } } },
  ] : [];
  return {
    data: { values: rows },
    layer: [
      { mark: { type: "area", opacity: 0.18, aria: false }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color: paint } },
      { mark: { type: "line", strokeWidth: 1.5, aria: false }, encoding: { x, y, color: paint } },
      ...(commits.length < 2 ? [{ mark: { type: "rule", strokeWidth: 2, opacity: 0.5, aria: false }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color: paint } }] : []),
      ...rule,
      { params: [{ name: "near", select: { type: "point", nearest: true, on: "pointerover", clear: "pointerout" } }],
        mark: { type: "point", filled: true },
        encoding: { x, y, color: paint, tooltip: [...(names.length > 1 ? [{ field: "name", title: "path" }] : []), ...RUN_TOOLTIP],
          size: { condition: { param: "near", empty: false, value: 110 }, value: rows.length > 300 ? 12 : 26 } } },
    ],
  };
}

const RUN_COLUMNS = [["path"], ["median", true], [SPREAD, true], ["values", true], ["commit"], ["when"], ["run"]];
const runCells = (rows) => [...rows].reverse().slice(0, 500)
  .map((row) => [row.name, row.value, row.spread, String(row.count), row.commit, row.when, row.run]);
