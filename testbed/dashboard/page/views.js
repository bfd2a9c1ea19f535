"use strict";
/* History, offloads, queues, team members, start-up times. */

/** A view of one class: pickers above, then what `show` makes of its detail file. */
async function viewOf(title, lead, part, kind, nothing, show) {
  const kinds = [...new Set(classesWith(part, kind).map((each) => each.kind))].sort();
  const one = kinds.includes(state.kind) ? state.kind : kinds[0];
  const classes = classesWith(part, one);
  const head = [element("h1", {}, title), element("p", { class: "lead" }, lead)];
  if (!classes.length) return [...head, nothing];
  const chosen = chosenOf(classes);
  const detail = await detailOf(chosen);
  const { filters, body } = show(chosen, detail);
  const picked = pickers(classes, chosen, (each) => go({ class: each.id }));
  if (kinds.length > 1) picked.unshift(choice("kind", kinds.map((each) => [each, each]), one, (value) => go({ kind: value, class: "", metric: "" })));
  return [...head, element("div", { class: "filters", role: "group", "aria-label": "Filters" }, picked, filters), ...body];
}

// ---- history ----------------------------------------------------------------------------------

function historyView() {
  return viewOf("History", "Each point is a run: its median, and as a band its 95 % interval.", "history", "",
    empty("No runs yet", "Measure something: ", code("testbed bench NAME --save"), "."), historyOf);
}

function historyOf(chosen, detail) {
  const series = detail.series.filter((each) => each.metric !== "start_phase");
  const metrics = [...new Set(series.map((each) => each.metric))];
  const metric = metrics.includes(state.metric) ? state.metric : metrics.includes("throughput") ? "throughput" : metrics[0];
  const filters = [
    choice("metric", metrics.map((name) => [name, word(name)]), metric, (value) => go({ metric: value })),
    choice("runs", [["30", "last 30"], ["100", "last 100"], ["300", "last 300"], ["all", "all"]], state.last, (value) => go({ last: value })),
    choice("axis", [["commit", "commits"], ["time", "time"]], state.axis, (value) => go({ axis: value })),
  ];
  const mine = oursFirst(series.filter((each) => each.metric === metric));
  const runs = [...new Set(mine.flatMap((each) => each.points.map((point) => point[0])))].sort((one, other) => one - other);
  const shown = state.last === "all" ? runs : runs.slice(-Number(state.last));
  const place = new Map(shown.map((run, at) => [run, at]));
  const ratios = mine.filter((each) => each.baseline);
  const values = mine.filter((each) => !each.baseline);
  const body = [];
  if (ratios.length) body.push(lines(chosen, metric, ratios, shown, place, true));
  body.push(lines(chosen, metric, values, shown, place, false));
  return { filters, body };
}

const oursFirst = (series) => [...series].sort((one, other) => (other.path === OURS) - (one.path === OURS));

function lines(chosen, metric, series, shown, place, ratio) {
  const named = series.map((each) => ({ name: ratio ? `${each.path} / ${each.baseline}` : each.path || word(metric), points: each.points, of: ratio && series.length > 1 ? each.baseline : each.path || OURS }));
  const rows = runRows(named, place);
  const goals = ratio ? DATA.goals.filter((goal) => DATA.classes[goal.of] === chosen && goal.metric === metric) : [];
  const goal = goals.length ? { value: goals[0].goal, text: `goal ${goals[0].most ? "≤" : "≥"} ${goals[0].goal}` } : null;
  const commits = shown.map((run) => commitName(DATA.runs.commit[run]));
  const better = DATA.metrics[metric].better;
  const title = ratio ? `${word(metric)}: ratio to the baseline` : metricName(metric);
  return figure({
    title, note: `${className(chosen)}${better === "neither" ? "" : `; ${better} is better`}`, file: `history-${metric}${ratio ? "-ratio" : ""}`,
    alt: `${title} over ${plural(shown.length, "run")} of ${className(chosen)}`, points: rows.length, columns: RUN_COLUMNS, rows: runCells(rows),
    spec: () => historySpec(rows, named.map((each) => each.name), named.map((each) => pathColour(each.of)), state.axis, ratio ? "ratio" : DATA.metrics[metric].unit, goal, commits),
  });
}

// ---- offload matrix ---------------------------------------------------------------------------

const COST = "switch_cpu_per_gigabit";
const OFFLOADED = (nvgre) => (nvgre === null ? "not told" : nvgre ? "with NVGRE offload" : "without NVGRE offload");

function offloadsView() {
  const head = [element("h1", {}, "Offloads"), element("p", { class: "lead" }, "What NVGRE offload in the NICs is worth: the newest run of each NIC profile on each kind of wire.")];
  const classes = classesWith("history", "bench").filter((each) => each.settings.nic !== undefined);
  if (!classes.length) return [...head, empty("No run tells its NIC profile", "Measure some: ", code("testbed bench NAME --nic r2 --wire frames --save"), ", then with ", code("--nic r2-nvgre"), " and ", code("--nic modern"), ".")];
  const chosen = chosenOf(classes);
  const free = new Set(["nic", "wire", "offloads"]);
  const others = varying(classes).filter((name) => !free.has(name));
  const filters = pickers(classes, chosen, (each) => go({ class: each.id })).filter((_, at) => !free.has(varying(classes)[at]));
  const alike = classes.filter((each) => others.every((name) => settingOf(each, name) === settingOf(chosen, name)));
  const newest = new Map();
  for (const each of alike) {
    const key = `${each.settings.nic}\n${said(each.settings.wire)}`;
    if (!newest.has(key) || newest.get(key).last < each.last) newest.set(key, each);
  }
  const cells = [...newest.values()];
  const wires = [...new Set(cells.map((each) => said(each.settings.wire)))].sort();
  const body = [element("h2", {}, "Matrix"), matrix(cells, wires), element("h2", {}, "Pictures")];
  for (const wire of wires) {
    const mine = cells.filter((each) => said(each.settings.wire) === wire);
    body.push(element("div", { class: "pair" }, offloadBars(mine, wire, "throughput"), offloadBars(mine, wire, COST)));
  }
  return [...head, filters.length ? element("div", { class: "filters", role: "group", "aria-label": "Filters" }, filters) : null, ...body];
}

const latestOf = (each, metric, path = OURS) => DATA.latest.find((one) => DATA.classes[one.of] === each && one.metric === metric && one.path === path && !one.baseline)?.point;

/** Profiles: those without NVGRE offload first, then by throughput. */
function profiles(cells) {
  const best = (nic) => Math.max(...cells.filter((each) => each.settings.nic === nic).map((each) => latestOf(each, "throughput")?.[1] ?? 0));
  const offloaded = (nic) => cells.some((each) => each.settings.nic === nic && each.nvgre);
  return [...new Set(cells.map((each) => each.settings.nic))].sort((one, other) => offloaded(one) - offloaded(other) || best(one) - best(other));
}

function matrix(cells, wires) {
  const most = Math.max(...cells.map((each) => latestOf(each, "throughput")?.[1] ?? 0));
  const rows = profiles(cells).map((nic) => {
    const mine = cells.filter((each) => each.settings.nic === nic);
    return [element("td", {}, nic, element("small", {}, OFFLOADED(mine[0].nvgre))), ...wires.flatMap((wire) => {
      const each = mine.find((one) => said(one.settings.wire) === wire);
      const rate = each && latestOf(each, "throughput");
      const cost = each && latestOf(each, COST);
      const wash = rate ? `background: color-mix(in srgb, var(--with) ${Math.round((32 * rate[1]) / most)}%, transparent)` : null;
      return [
        element("td", { class: "number", style: wash }, rate ? figure4(rate[1]) : "–", rate ? element("small", {}, `${figure4(rate[2])} to ${figure4(rate[3])}`) : null),
        element("td", { class: "number" }, cost ? figure4(cost[1]) : "–", cost ? element("small", {}, `${figure4(cost[2])} to ${figure4(cost[3])}`) : null),
      ];
    })];
  });
  return table([["NIC profile"], ...wires.flatMap((wire) => [[`${wire}: Gbit/s`, true], [`${wire}: CPU s/Gbit`, true]])], rows, "Offload matrix", "stack cells");
}

function offloadBars(cells, wire, metric) {
  const paths = metric === COST ? [] : DATA.baselines; // no switch process carries a baseline's packets
  const base = paths.find((path) => cells.some((each) => latestOf(each, metric, path)));
  const rows = cells.filter((each) => latestOf(each, metric)).map((each) => {
    const [run, middle, low, high, count] = latestOf(each, metric);
    const about = runOf(run);
    return { nic: each.settings.nic, offload: OFFLOADED(each.nvgre), middle, low, high, value: figure4(middle), spread: `${figure4(low)} to ${figure4(high)}`,
      base: (base && latestOf(each, metric, base)?.[1]) ?? null, count, commit: about.commit, when: clock(about.at), run: about.id, label: about.label || "–" };
  });
  const order = profiles(cells);
  const title = metric === "throughput" ? `Throughput, wire ${wire}` : `CPU of the switches, wire ${wire}`;
  const unit = DATA.metrics[metric]?.unit || "";
  const paints = { [OFFLOADED(false)]: colour("without"), [OFFLOADED(true)]: colour("with"), [OFFLOADED(null)]: colour("c6") };
  const names = Object.keys(paints).filter((name) => rows.some((row) => row.offload === name));
  return figure({
    title, file: `offloads-${wire}-${metric}`, height: 44 * order.length + 20, columns: [["NIC profile"], ["NVGRE offload"], [unit, true], [SPREAD, true], ["commit"]],
    note: `${unit}, ${metric === "throughput" ? "more" : "less"} is better; the line is its 95 % interval${base ? `, the tick ${base} in the same run` : ""}`,
    rows: rows.map((row) => [row.nic, row.offload, row.value, row.spread, row.commit]),
    spec: () => ({
      data: { values: rows },
      encoding: { y: { field: "nic", type: "nominal", sort: [...order].reverse(), title: null, axis: { labelFontSize: 13, labelPadding: 6, domain: false, ticks: false } } },
      layer: [
        { mark: { type: "bar", height: 22, cornerRadiusEnd: 3 }, encoding: { x: { field: "middle", type: "quantitative", title: unit, axis: { tickCount: 5 } },
          color: { field: "offload", type: "nominal", title: null, scale: { domain: names, range: names.map((name) => paints[name]) } },
          tooltip: [{ field: "nic", title: "NIC profile" }, ...RUN_TOOLTIP] } },
        { mark: { type: "rule", strokeWidth: 2, color: colour("text"), aria: false }, encoding: { x: { field: "low", type: "quantitative" }, x2: { field: "high" } } },
        ...(base ? [{ transform: [{ filter: "datum.base !== null" }], mark: { type: "tick", thickness: 3, size: 32, color: pathColour(base), aria: false }, encoding: { x: { field: "base", type: "quantitative" } } }] : []),
      ],
    }),
  });
}

// ---- queues and team members ------------------------------------------------------------------

function queuesView() {
  return viewOf("Queues", "How the packets of the newest run were spread over the receive queues of each NIC.", "queues", "",
    empty("No run counted packets per queue", "They are counted where NICs have several queues: give hosts ", code("processors: {count: 4}"), " or NICs ", code("queues: 4"), ", then ", code("testbed bench NAME --save"), "; see docs/results.md."), (chosen, detail) => {
      const about = runOf(detail.queues_run);
      const [turn, filters] = turnOf(detail.queues);
      const mine = detail.queues.filter((each) => each.turn === turn);
      const nics = [...groupBy(mine, nicOf)].map(([nic, queues]) => ({ nic, queues, packets: queues.reduce((total, each) => total + each.value, 0) }));
      const all = nics.reduce((total, each) => total + each.packets, 0);
      const idle = nics.filter((each) => each.packets < all * IDLE || !each.packets);
      const busy = nics.filter((each) => !idle.includes(each));
      const most = Math.max(...busy.flatMap((each) => each.queues.map((queue) => queue.value / each.packets)));
      const note = `${className(chosen)}; turn ${turn + 1} of run ${about.id}, ${about.commit}, ${clock(about.at)}`;
      return { filters, body: [element("p", { class: "note" }, note),
        element("div", { class: "pair" }, busy.map((each) => queueBars(each, most))),
        idle.length ? element("p", { class: "note" }, `Next to nothing came to ${idle.map((each) => each.nic).join(", ")}.`) : null] };
    });
}

const IDLE = 0.001; // of all packets: a NIC with less has only a few of the host's own, such as neighbor discovery

/** The turn that is chosen among these objects', and the filter that chooses it. */
function turnOf(objects) {
  const turns = [...new Set(objects.map((each) => each.turn))].sort((one, other) => one - other);
  const turn = state.turn !== "" && turns.includes(Number(state.turn)) ? Number(state.turn) : turns[0];
  return [turn, turns.length > 1 ? [choice("turn", turns.map((each) => [each, String(each + 1)]), turn, (value) => go({ turn: value }))] : []];
}

const nicOf = (share) => share.object.split("/").slice(0, -1).join("/") || share.object;

function groupBy(values, key) {
  const found = new Map();
  for (const value of values) found.set(key(value), [...(found.get(key(value)) || []), value]);
  return found;
}

/** most: the highest share of any NIC, so that all have the same axis. */
function queueBars({ nic, queues, packets }, most) {
  const even = 1 / queues.length;
  const rows = queues.map((each) => ({ queue: each.object.slice(nic.length + 1) || each.object, packets: each.value, share: each.value / packets }));
  const busiest = Math.max(...rows.map((row) => row.share));
  return figure({
    title: nic, note: `${plural(Math.round(packets), "packet")}, ${(100 * busiest).toFixed(0)}\u00a0% of them in the busiest queue; the line is an even share, ${(100 * even).toFixed(0)}\u00a0%`,
    file: `queues-${nic.replaceAll("/", "-")}`, height: 34 * rows.length + 20, columns: [["queue"], ["packets", true], ["share", true]],
    rows: rows.map((row) => [row.queue, figure4(row.packets), `${(100 * row.share).toFixed(1)} %`]),
    spec: () => ({
      data: { values: rows },
      layer: [
        { mark: { type: "bar", height: 20, cornerRadiusEnd: 3, color: colour("c1") }, encoding: { y: { field: "queue", type: "nominal", title: null, axis: { domain: false, ticks: false, labelPadding: 6 }, sort: null },
          x: { field: "share", type: "quantitative", title: "share of the packets", axis: { format: ".0%", tickCount: 5 }, scale: { domain: [0, Math.max(most, even)], nice: true } },
          tooltip: [{ field: "queue" }, { field: "packets", format: ",.0f" }, { field: "share", format: ".1%" }] } },
        { data: { values: [{ even }] }, mark: { type: "rule", strokeDash: [5, 4], strokeWidth: 1.5 }, encoding: { x: { field: "even", type: "quantitative" } } },
      ],
    }),
  });
}

/** A class with its team's mode, be it another one in other classes or not. */
function teamName(each) {
  const name = className(each);
  return name.includes("team ") || !each.settings.team ? name : `team ${each.settings.team}; ${name}`;
}

function membersView() {
  return viewOf("Teams", "What each member of the sender's NIC team sent during a turn of the newest run.", "members", "",
    empty("No run followed team members", "They are followed where the sender's host has several NICs: ", code("testbed up topologies/team.yaml"), ", then ", code("testbed bench NAME --save"), "; see docs/results.md."), (chosen, detail) => {
      const about = runOf(detail.members_run);
      const [turn, filters] = turnOf(detail.members);
      const tracks = detail.members.filter((each) => each.turn === turn);
      const rows = tracks.flatMap((each) => each.times.map((at, place) => ({ member: each.object, at, value: each.values[place] })));
      const names = tracks.map((each) => each.object);
      const body = [figure({
        title: "Team members (Gbit/s sent)", note: `${teamName(chosen)}; turn ${turn + 1} of run ${about.id}, ${about.commit}, ${clock(about.at)}`, file: "team-members", points: rows.length,
        columns: [["member"], ["seconds", true], ["Gbit/s", true]], rows: rows.map((row) => [row.member, figure4(row.at), figure4(row.value)]),
        spec: () => ({
          data: { values: rows },
          encoding: { x: { field: "at", type: "quantitative", title: "seconds since the turn began", scale: { domainMin: 0, nice: false }, axis: { tickCount: innerWidth < 700 ? 5 : 10, grid: false } },
              y: { field: "value", type: "quantitative", title: "Gbit/s", scale: { domainMin: 0 } },
            color: { field: "member", type: "nominal", title: null, legend: { symbolType: "stroke" }, scale: { domain: names, range: names.map((_, at) => colour(`c${1 + (at % 8)}`)) } } },
          layer: [
            { mark: { type: "line", strokeWidth: 2 }, encoding: { strokeDash: { field: "member", type: "nominal", title: null, legend: { symbolType: "stroke" }, scale: { domain: names, range: names.map((_, at) => [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2]][at % 4]) } } } },
            { params: [{ name: "near", select: { type: "point", nearest: true, on: "pointerover", clear: "pointerout" } }], mark: { type: "point", filled: true },
              encoding: { opacity: { condition: { param: "near", empty: false, value: 1 }, value: 0 }, tooltip: [{ field: "member" }, { field: "at", title: "seconds" }, { field: "value", title: "Gbit/s" }] } },
          ],
        }),
      })];
      return { filters, body };
    });
}

// ---- start-up ---------------------------------------------------------------------------------

const BARS = 40;

function startsView() {
  return viewOf("Start-up", "How long labs took until they were ready, and in which phase.", "phases", "start",
    empty("No start of a lab is recorded", "Record that of a running one: ", code("testbed results record-start NAME"), "."), (chosen, detail) => {
      const totals = detail.series.filter((each) => each.metric === "start_total");
      const runs = totals.flatMap((each) => each.points.map((point) => point[0])).slice(-300);
      const body = totals.length ? [lines(chosen, "start_total", totals, runs, new Map(runs.map((run, at) => [run, at])), false)] : [];
      return { filters: [], body: [...body, phaseBars(chosen, detail)] };
    });
}

function phaseBars(chosen, detail) {
  const last = detail.phases.slice(-BARS);
  const rows = last.flatMap(([run, values], n) => values.map((value, at) => {
    const about = runOf(run);
    return { n, phase: detail.phase_names[at], order: at, value, commit: about.commit, when: clock(about.at), run: about.id };
  }));
  const commits = last.map(([run]) => commitName(DATA.runs.commit[run]));
  return figure({
    title: "Phases of the start (s)", note: `${className(chosen)}; ${last.length < detail.phases.length ? "the last " : ""}${plural(last.length, "start")}`, file: "start-phases",
    columns: [["phase"], ["seconds", true], ["commit"], ["when"], ["run"]], rows: [...rows].reverse().map((row) => [row.phase, figure4(row.value), row.commit, row.when, row.run]),
    spec: () => ({
      data: { values: rows }, mark: { type: "bar", ...(last.length < 8 ? { width: 60 } : {}) },
      encoding: {
        x: { field: "n", type: "ordinal", title: "commit of the run", axis: { labelAngle: -40, labelOverlap: true, labelExpr: `${JSON.stringify(commits)}[datum.value] || ''` } },
        y: { field: "value", type: "quantitative", title: "s", stack: true },
        color: { field: "phase", type: "nominal", title: null, sort: detail.phase_names, scale: { domain: detail.phase_names, range: detail.phase_names.map((_, at) => colour(`c${1 + (at % 8)}`)) } },
        order: { field: "order" },
        tooltip: [{ field: "phase" }, { field: "value", title: "seconds" }, { field: "commit" }, { field: "when" }, { field: "run" }],
      },
    }),
  });
}
