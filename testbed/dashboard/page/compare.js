"use strict";
/* Two batches beside each other. Intervals and verdicts are always testbed.results.compare's; never computed here. */

const MOST_BATCHES = 1000;

async function compareView() {
  const head = [element("h1", {}, "Compare"), element("p", { class: "lead" }, "Two batches (the runs of one plan, or a single run), like with like: ratios to the baselines of the same run where there are any.")];
  const batches = DATA.batches.slice(-MOST_BATCHES);
  if (batches.length < 2) return [...head, empty("There are no two batches to compare", "Measure again: ", code("testbed bench NAME --save"), ".")];
  const partner = partners(batches);
  const fresh = batches.find((each) => each.id === state.new) || batches.findLast(partner);
  const base = batches.find((each) => each.id === state.base) || (fresh && (partner(fresh) || batches.find((each) => each !== fresh)));
  if (!fresh) return [...head, empty("No two batches are alike", "Each is of another machine, topology or other settings. Measure the same again: ", code("testbed bench NAME --save"), ".")];
  const options = [...batches].reverse().map((each) => [each.id, batchName(each)]);
  const filters = [
    choice("base", options, base.id, (value) => go({ base: value, new: fresh.id })),
    choice("new", options, fresh.id, (value) => go({ base: base.id, new: value })),
  ];
  const found = await comparisonOf(base, fresh);
  return [...head, element("div", { class: "filters", role: "group", "aria-label": "Batches" }, filters), ...(found.error ? [empty("Nothing can be compared", found.error)] : shownComparison(found, base, fresh))];
}

const batchName = (each) => `${commitName(each.commit)}  ${clock(each.at)}  ${each.label || each.kind}  (${plural(each.runs, "run")})`;

/** What tells of a batch the last one before it that has a class in common. */
function partners(batches) {
  const classes = new Map(DATA.batches.map((batch) => [batch, new Set()]));
  DATA.runs.of.forEach((of, at) => classes.get(DATA.batches[DATA.runs.batch[at]]).add(of));
  return (fresh) => batches.slice(0, batches.indexOf(fresh)).findLast((each) => [...classes.get(each)].some((one) => classes.get(fresh).has(one)));
}

async function comparisonOf(base, fresh) {
  if (base === fresh) return { error: "Base and new are the same batch: choose another one." };
  if (DATA.served) {
    const answer = await fetch(`compare?base=${encodeURIComponent(base.id)}&new=${encodeURIComponent(fresh.id)}`);
    return answer.json();
  }
  if (DATA.compared && DATA.compared_batches[0] === base.id && DATA.compared_batches[1] === fresh.id) return DATA.compared;
  return plainRatios(base, fresh);
}

/** Of a page without a server: medians and their ratio only. */
async function plainRatios(base, fresh) {
  const runsOf = (batch) => new Map(DATA.runs.of.map((of, at) => [at, of]).filter(([at]) => DATA.batches[DATA.runs.batch[at]] === batch));
  const [old, now] = [runsOf(base), runsOf(fresh)];
  const common = [...new Set([...old.values()])].filter((of) => [...now.values()].includes(of));
  if (!common.length) return { error: "The two have no class in common: another machine, topology or other settings." };
  const rows = [];
  for (const of of common) {
    const detail = await detailOf(DATA.classes[of]);
    for (const series of detail.series) {
      if (series.path !== OURS && series.path !== "") continue;
      if (!series.baseline && detail.series.some((other) => other.metric === series.metric && other.baseline)) continue;
      const points = [old, now].map((runs) => series.points.findLast((point) => runs.has(point[0])));
      if (!points[0] || !points[1]) continue;
      const metric = DATA.metrics[series.metric];
      const change = points[0][1] > 0 ? 100 * (points[1][1] / points[0][1] - 1) : null;
      rows.push({ kind: DATA.classes[of].kind, settings: className(DATA.classes[of]), metric: series.metric, unit: series.baseline ? "" : metric.unit, better: metric.better,
        path: series.path, baseline: series.baseline, base: points[0][1], new: points[1][1], change, low: null, high: null, verdict: "not judged" });
    }
  }
  return { rows, left_out: [], plain: true, threshold: DATA.threshold };
}

function shownComparison(found, base, fresh) {
  const all = found.rows.map((row) => (row.class_id ? { ...row, settings: className(DATA.classes.find((each) => each.id.startsWith(row.class_id) && each.kind === row.kind)) } : row));
  const metrics = [...new Set(all.map((row) => row.metric))];
  const metric = metrics.includes(state.metric) ? state.metric : "";
  const onlyChanged = state.changes === "1";
  const rows = all.filter((row) => (!metric || row.metric === metric) && (!onlyChanged || ["regression", "worse", "better"].includes(row.verdict)))
    .sort((one, other) => ORDER.indexOf(one.verdict) - ORDER.indexOf(other.verdict) || Math.abs(other.change ?? 0) - Math.abs(one.change ?? 0));
  const worse = all.filter((row) => row.verdict === "regression").length;
  const told = found.plain
    ? element("p", { class: "note" }, "Medians only: this page was exported with the intervals of the newest two. For those of this pair: ", code(`testbed results compare batch=${base.id.slice(0, 8)} batch=${fresh.id.slice(0, 8)}`), ", or the served page.")
    : element("p", {}, element("strong", { class: worse ? "regression" : "better" }, worse ? `✗ ${plural(worse, "regression")}` : "✓ No regression"), ` beyond ${found.threshold} % in ${plural(all.length, "comparison")}, corrected for their number`);
  const box = element("input", { type: "checkbox", checked: onlyChanged, onchange: () => go({ changes: box.checked ? "1" : "" }) });
  return [
    element("div", { class: "filters", role: "group", "aria-label": "Rows" }, choice("metric", [["", "all metrics"], ...metrics.map((name) => [name, word(name)])], metric, (value) => go({ metric: value })),
      found.plain ? null : element("label", { class: "tick" }, box, "only what changed")),
    told,
    rows.length ? changeTable(rows, "Comparison") : element("p", {}, "No such row."),
    found.left_out?.length ? element("details", {}, element("summary", {}, `${plural(found.left_out.length, "thing")} not compared`), element("ul", {}, found.left_out.map((line) => element("li", {}, line)))) : null,
    rows.some((row) => row.low !== null) ? element("div", { class: "forest" }, forest(rows.filter((row) => row.low !== null).slice(0, 40), found.threshold)) : null,
  ];
}

const FAR = 200; // percent from which on an axis with equal steps would leave no room for the others
const FAR_TICKS = [-90, -50, -20, 0, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];

/** Changes with their intervals, one below the other. */
function forest(rows, threshold) {
  const values = rows.map((row, at) => ({ ...row, at, name: `${word(row.metric)}${row.baseline ? ` / ${row.baseline}` : ""}: ${row.settings}`, text: percent(row.change), spread: `${percent(row.low)} to ${percent(row.high)}` }));
  const paints = { regression: "bad", worse: "close", same: "soft", better: "good", "not judged": "c6" };
  const names = Object.keys(paints).filter((name) => rows.some((row) => row.verdict === name));
  const widest = Math.max(...rows.flatMap((row) => [row.high, -row.low]));
  const x = widest > FAR ? { scale: { type: "symlog", constant: 20 }, axis: { values: FAR_TICKS.filter((each) => Math.abs(each) <= widest), grid: true } }
    : { axis: { tickCount: innerWidth < 700 ? 4 : 9 } };
  return figure({
    title: "Change from base to new (%)", note: `with its ${SPREAD}; dashed: the threshold of ±${threshold} %`, file: "comparison", height: 22 * rows.length + 30,
    columns: [["measured"], ["change", true], [SPREAD, true], ["verdict"]], rows: values.map((row) => [row.name, row.text, row.spread, row.verdict]),
    spec: () => ({
      data: { values },
      encoding: { y: { field: "at", type: "ordinal", title: null, axis: { labelExpr: `${JSON.stringify(values.map((row) => row.name))}[datum.value]`, labelLimit: innerWidth < 700 ? 130 : 470, domain: false, ticks: false } },
        color: { field: "verdict", type: "nominal", title: null, scale: { domain: names, range: names.map((name) => colour(paints[name])) } } },
      layer: [
        { data: { values: [{ edge: -threshold }, { edge: threshold }] }, mark: { type: "rule", strokeDash: [4, 4], opacity: 0.6, aria: false }, encoding: { x: { field: "edge", type: "quantitative" }, y: null, color: null } },
        { data: { values: [{ edge: 0 }] }, mark: { type: "rule", aria: false }, encoding: { x: { field: "edge", type: "quantitative" }, y: null, color: null } },
        { mark: { type: "rule", strokeWidth: 3, aria: false }, encoding: { x: { field: "low", type: "quantitative", title: "%", ...x }, x2: { field: "high" } } },
        { mark: { type: "point", filled: true, size: 70 }, encoding: { x: { field: "change", type: "quantitative" },
          tooltip: [{ field: "name", title: "measured" }, { field: "text", title: "change" }, { field: "spread", title: SPREAD }, { field: "verdict" }] } },
      ],
    }),
  });
}
