"use strict";
/* What data.js holds, and questions to it. No drawing here. */

const DATA = window.DASHBOARD;
const OURS = "wnv";
const details = new Map();
const waiting = new Map();

window.DASHBOARD_DETAIL = (name, detail) => {
  details.set(name, detail);
  waiting.get(name)?.(detail);
};

/** The detail file of a class: a script, since a page from a file may not fetch. */
function detailOf(each) {
  if (details.has(each.id)) return Promise.resolve(details.get(each.id));
  return new Promise((resolve, reject) => {
    waiting.set(each.id, resolve);
    const script = element("script", { src: `classes/${each.id}.js`, onerror: () => reject(new Error(`classes/${each.id}.js is missing`)) });
    document.head.append(script);
  });
}

/** What is chosen; it is kept in the address, so that a link shows the same. */
const state = { view: "overview", environment: "", kind: "", class: "", metric: "", last: "100", axis: "commit", turn: "", base: "", new: "", changes: "" };

const commitOf = (number) => DATA.commits[number];

function commitName(number) {
  const commit = commitOf(number);
  return (commit.name.slice(0, 8) || "no commit") + (commit.modified ? "+" : "");
}

/** A run as text for tooltips and tables. */
function runOf(number) {
  const { runs } = DATA;
  const batch = DATA.batches[runs.batch[number]];
  return { id: runs.id[number], at: runs.at[number], commit: commitName(runs.commit[number]), label: batch.label };
}

const inEnvironment = (each) => each.environment === Number(state.environment);

/** Classes of a kind in the chosen environment that have something. */
function classesWith(part, kind) {
  return DATA.classes.filter((each) => inEnvironment(each) && each.has.includes(part) && (!kind || each.kind === kind));
}

function said(value) {
  if (value === true) return "on";
  if (value === false) return "off";
  return value === undefined || value === null ? "–" : String(value);
}

/** Settings in which classes differ; not "offloads" where the NIC profile tells them. */
function varying(classes) {
  const names = [...new Set(classes.flatMap((each) => Object.keys(each.settings)))];
  const found = names.filter((name) => new Set(classes.map((each) => said(each.settings[name]))).size > 1);
  const told = new Set(classes.map((each) => `${each.settings.nic}\n${each.settings.offloads}`)).size
    === new Set(classes.map((each) => said(each.settings.nic))).size;
  const many = new Set(classes.map((each) => each.topology)).size > 1;
  return [...(many ? ["topology"] : []), ...found.filter((name) => name !== "offloads" || !told)];
}

const settingOf = (each, name) => said(name === "topology" ? each.topology : each.settings[name]);

/** A class as people say it: what tells it from the others of its kind. */
function className(each) {
  const alike = DATA.classes.filter((other) => other.kind === each.kind && other.environment === each.environment);
  const names = varying(alike);
  return names.map((name) => `${word(name)} ${settingOf(each, name)}`).join(", ") || each.topology || each.kind;
}

const WORDS = { nic: "NIC", guest_lso: "guest LSO", ip: "IP", mtu: "MTU", vms: "VMs", message_size: "message size",
  congestion_control: "congestion control", warm_up: "warm-up" };
const word = (name) => WORDS[name] || name.replaceAll("_", " ").replace(/\b(cpu|rtt)\b/, (short) => short.toUpperCase());

/** "throughput (Gbit/s)" */
function metricName(name, ratio) {
  const unit = DATA.metrics[name]?.unit;
  return word(name) + (ratio || !unit || unit === "1" ? "" : ` (${unit})`);
}

/** The class that is chosen among these: that of the state, else one that a goal is about, else the newest. */
function chosenOf(classes) {
  const wanted = DATA.goals.map((goal) => DATA.classes[goal.of]);
  return classes.find((each) => each.id === state.class) || wanted.find((each) => classes.includes(each)) || classes.reduce((best, each) => (each.last > best.last ? each : best));
}

/** Where one setting is another: the class with it that is otherwise nearest. */
function nearest(classes, from, name, value) {
  const names = varying(classes);
  const score = (each) => names.filter((other) => settingOf(each, other) === settingOf(from, other)).length;
  return classes.filter((each) => settingOf(each, name) === value)
    .reduce((best, each) => (!best || score(each) > score(best) ? each : best), null);
}

/** Selects for all settings that vary; they always lead to a class that was measured. */
function pickers(classes, chosen, changed) {
  return varying(classes).map((name) => {
    const values = [...new Set(classes.map((each) => settingOf(each, name)))]
      .sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
    return choice(word(name), values.map((value) => [value, value]), settingOf(chosen, name),
      (value) => changed(nearest(classes, chosen, name, value)));
  });
}

function pathColour(path) {
  const known = ["wnv", "vxlan", "bare", "ovs"];
  return colour(known.includes(path) ? `path-${path}` : "c3");
}
