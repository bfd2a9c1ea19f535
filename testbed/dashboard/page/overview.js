"use strict";
/* Is it as fast as it should be? Is it getting slower? Drawn without the plotting library. */

const MARKS = { reached: "✓ reached", close: "≈ within the noise", missed: "✗ missed" };

function overview() {
  if (!DATA.runs.id.length) {
    return [element("h1", {}, "Overview"), empty("No runs yet", "Measure something: ", code("testbed bench NAME --baseline vxlan --save"), ", and load this page again.")];
  }
  const goals = DATA.goals.filter((goal) => inEnvironment(DATA.classes[goal.of]));
  const trends = DATA.trends.filter((trend) => inEnvironment(DATA.classes[trend.of]));
  const rows = trends.flatMap((trend) => trend.rows.map((row) => ({ ...row, trend })));
  return [
    element("h1", { class: "unseen" }, "Overview"),
    element("div", { class: "verdicts" }, fastVerdict(goals), slowerVerdict(rows), newestCard()),
    element("h2", {}, "Ratios against their goals"),
    element("p", { class: "lead" }, "Newest run of each goal: the median of the ratio to a baseline that was measured in turns with it, with its 95 % interval."),
    goals.length ? element("div", { class: "grid" }, goals.map(goalCard)) : noGoals(),
    element("h2", {}, "Newest commit against the runs before"),
    trends.length ? changes(rows) : element("p", { class: "note" }, "There is no second commit of the same class yet: measure the same on another commit with ", code("testbed bench NAME --save"), "."),
  ];
}

function verdict(kind, question, answer, told) {
  return element("section", { class: `card verdict ${kind}` }, element("p", {}, question), element("div", { class: "answer" }, answer), element("p", {}, told));
}

function fastVerdict(goals) {
  const question = "As fast as it should be?";
  if (!goals.length) return verdict("", question, "Not known", "no run here is one that a goal is about");
  const count = (status) => goals.filter((goal) => goal.status === status).length;
  const told = `${count("reached")} of ${plural(goals.length, "goal")} reached`;
  if (count("missed")) return verdict("bad", question, `✗ No, ${count("missed")} missed`, told);
  if (count("close")) return verdict("close", question, "≈ Nearly", `${told}, ${count("close")} missed by less than the noise`);
  return verdict("good", question, "✓ Yes", told);
}

function slowerVerdict(rows) {
  const question = "Getting slower?";
  const judged = rows.filter((row) => !["not judged", "too few", "undecided"].includes(row.verdict));
  if (!judged.length) return verdict("", question, "Not known", "nothing to compare the newest commit with, or too few values");
  const worse = rows.filter((row) => row.verdict === "regression").length;
  const told = `beyond ${DATA.threshold} % and outside the noise of ${plural(judged.length, "comparison")}`;
  if (worse) return verdict("bad", question, `✗ Yes, ${plural(worse, "regression")}`, told);
  return verdict("good", question, "✓ No", `nothing is worse ${told}`);
}

function newestCard() {
  const { runs } = DATA;
  const mine = runs.of.map((of, at) => (inEnvironment(DATA.classes[of]) ? at : -1)).filter((at) => at >= 0);
  const last = mine.at(-1);
  const commits = new Set(mine.map((at) => commitOf(runs.commit[at]).name)).size;
  return verdict("", "Newest run", commitName(runs.commit[last]), `${clock(runs.at[last])}; ${plural(mine.length, "run")} on ${plural(commits, "commit")} here`);
}

function noGoals() {
  return empty("No goal is about these runs", "A goal names settings and a baseline. Measure ours with ",
    code("testbed bench NAME --nic modern --wire frames --baseline vxlan --save"), ", or write your own: ", code("--goals FILE"), ".");
}

function goalCard(goal) {
  const [run, middle, low, high, count] = goal.point;
  const about = runOf(run);
  const each = DATA.classes[goal.of];
  const text = `${middle.toFixed(2)} times ${goal.baseline}, 95 % interval ${figure4(low)} to ${figure4(high)}, goal ${goal.most ? "at most" : "at least"} ${goal.goal}`;
  return element("section", { class: "card goal" },
    element("div", { class: "head" }, element("h3", {}, goal.title), element("span", { class: `badge ${goal.status}` }, MARKS[goal.status])),
    element("div", { class: "numbers" },
      element("div", {}, element("div", { class: "big" }, `${middle.toFixed(2)} ×`),
        element("div", { class: "of" }, `${word(goal.metric)} of ${goal.baseline}`)),
      goal.recent.length > 1 ? spark(goal) : null),
    bullet(goal, text),
    element("div", { class: "of" }, `goal ${goal.most ? "≤" : "≥"} ${goal.goal}; ${figure4(low)} to ${figure4(high)} in ${plural(count, "pair")}; ${about.commit}, ${clock(about.at)}`),
    element("a", { href: link({ view: "history", class: each.id, metric: goal.metric, kind: each.kind }), "aria-label": `History: ${goal.title}` }, "History"));
}

/** Where the ratio is on a line from 0: its interval, its median and the goal. */
function bullet(goal, text) {
  const [, middle, low, high] = goal.point;
  const end = Math.max(high, goal.goal, 1) * 1.1;
  const at = (value) => `${(100 * value) / end}%`;
  const paint = colour({ reached: "good", close: "close", missed: "bad" }[goal.status]);
  return drawn("svg", { role: "img", "aria-label": text, height: 26 },
    drawn("rect", { x: 0, y: 9, width: "100%", height: 8, rx: 4, fill: "var(--wash)" }),
    drawn("rect", { x: 0, y: 9, width: at(middle), height: 8, rx: 4, fill: paint, opacity: 0.75 }),
    drawn("rect", { x: at(low), y: 11, width: at(high - low), height: 4, fill: "var(--text)", opacity: 0.45 }),
    drawn("rect", { x: at(goal.goal), y: 2, width: 3, height: 22, fill: "var(--text)" }));
}

function spark(goal) {
  const values = goal.recent;
  const least = Math.min(...values, goal.goal);
  const most = Math.max(...values, goal.goal);
  const y = (value) => 36 - (32 * (value - least)) / (most - least || 1);
  const x = (at) => 4 + (92 * at) / (values.length - 1);
  const path = values.map((value, at) => `${at ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  return drawn("svg", { class: "spark", viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img",
    "aria-label": `The last ${values.length} runs: from ${figure4(values[0])} to ${figure4(values.at(-1))}` },
    drawn("line", { x1: 0, x2: 100, y1: y(goal.goal), y2: y(goal.goal), stroke: "var(--soft)", "stroke-dasharray": "3 3", "vector-effect": "non-scaling-stroke" }),
    drawn("path", { d: path, fill: "none", stroke: "var(--accent)", "stroke-width": 1.5, "vector-effect": "non-scaling-stroke" }));
}

const ORDER = ["regression", "worse", "better", "same", "too few", "undecided", "not judged"];
const VERDICTS = { regression: "✗ regression", better: "✓ better", same: "no change" };

function verdictOf(row) {
  if (row.verdict !== "worse") return VERDICTS[row.verdict] || row.verdict;
  return Math.abs(row.change) > DATA.threshold ? "worse, but may be chance among so many" : "worse, below the threshold";
}

function changes(rows) {
  const sorted = [...rows].sort((one, other) => ORDER.indexOf(one.verdict) - ORDER.indexOf(other.verdict) || Math.abs(other.change ?? 0) - Math.abs(one.change ?? 0));
  const moved = sorted.filter((row) => ["regression", "worse", "better"].includes(row.verdict));
  const rest = sorted.filter((row) => !moved.includes(row));
  return element("div", {},
    element("p", { class: "lead" }, "Of each class the newest commit and the last runs before it, compared as ", code("testbed results compare"), " does it."),
    moved.length ? changeTable(moved, "What changed") : element("p", {}, "Nothing changed beyond the noise."),
    rest.length ? element("details", {}, element("summary", {}, `${plural(rest.length, "comparison")} without a change, or without enough values`), changeTable(rest, "What did not change")) : null);
}

/** Comparisons with the picture of their interval. Rows of the overview have a trend, others the words of compare. */
function changeTable(rows, label) {
  const widest = Math.max(10, ...rows.flatMap((row) => (row.low === null ? [] : [Math.abs(row.low), Math.abs(row.high)])));
  return table([["measured"], ["metric"], ["before", true], ["now", true], ["change", true], ["95 % interval"], ["verdict"]], rows.map((row) => {
    const unit = row.unit && row.unit !== "1" ? ` ${row.unit}` : "";
    return [
      row.trend ? element("a", { href: link({ view: "history", class: DATA.classes[row.trend.of].id, metric: row.metric, kind: row.kind }) }, className(DATA.classes[row.trend.of])) : row.settings || row.kind,
      element("td", {}, word(row.metric), row.baseline ? element("small", {}, `${row.path} / ${row.baseline}`) : element("small", {}, row.path)),
      figure4(row.base) + unit, figure4(row.new) + unit,
      row.change === null ? "" : percent(row.change),
      element("td", { class: "bar" }, row.low === null ? "" : intervalBar(row, Math.min(widest, 60))),
      element("span", { class: row.verdict.split(" ").at(-1) }, verdictOf(row)),
    ];
  }), label, "stack");
}

function intervalBar(row, widest) {
  const at = (value) => 50 + (48 * Math.max(-widest, Math.min(widest, value))) / widest;
  const paint = { regression: "var(--bad)", worse: "var(--close)", better: "var(--good)" }[row.verdict] || "var(--soft)";
  return drawn("svg", { role: "img", "aria-label": `${percent(row.change)}, from ${percent(row.low)} to ${percent(row.high)}` },
    drawn("line", { x1: "50%", x2: "50%", y1: 0, y2: "100%", stroke: "var(--line)" }),
    drawn("line", { x1: `${at(row.low)}%`, x2: `${at(row.high)}%`, y1: "50%", y2: "50%", stroke: paint, "stroke-width": 3 }),
    drawn("circle", { cx: `${at(row.change)}%`, cy: "50%", r: 5, fill: paint }));
}
