"use strict";
/* Which view is shown: the address says it. */

const VIEWS = {
  overview: ["Overview", overview], history: ["History", historyView], offloads: ["Offloads", offloadsView], queues: ["Queues", queuesView],
  teams: ["Teams", membersView], starts: ["Start-up", startsView], compare: ["Compare", compareView],
};
const USUAL = { ...state };
let turnOfShow = 0;

/** The address of a choice. */
function link(chosen) {
  const whole = { ...state, ...chosen };
  const told = Object.entries(whole).filter(([key, value]) => key !== "view" && String(value) !== String(USUAL[key]));
  return `#${whole.view}${told.length ? `?${new URLSearchParams(told)}` : ""}`;
}

/** Choose something, and keep the keyboard's place: the same control is there again. */
function go(chosen) {
  const control = document.activeElement?.dataset?.choice;
  Object.assign(state, chosen);
  history.replaceState(null, "", link({}));
  return show().then(() => control && document.querySelector(`[data-choice="${CSS.escape(control)}"]`)?.focus());
}

function read() {
  const [view, query] = location.hash.slice(1).split("?");
  const told = Object.fromEntries(new URLSearchParams(query || ""));
  Object.assign(state, USUAL);
  for (const key of Object.keys(USUAL)) if (key in told) state[key] = told[key];
  state.view = view in VIEWS ? view : "overview";
  if (!DATA.environments[state.environment]) state.environment = USUAL.environment;
}

async function show() {
  const turn = ++turnOfShow;
  const main = document.getElementById("main");
  main.setAttribute("aria-busy", "true");
  navigation();
  let children;
  const before = figures;
  figures = [];
  try {
    children = await VIEWS[state.view][1]();
  } catch (problem) {
    children = [empty("This could not be shown", problem.message)];
    console.error(problem);
  }
  const mine = figures;
  figures = before;
  if (turn !== turnOfShow) return; // another choice was made meanwhile
  forgetFigures();
  figures = mine;
  main.replaceChildren(...children.filter(Boolean));
  main.setAttribute("aria-busy", "false");
  main.dataset.view = state.view;
  performance.mark("shown");
  document.title = `testbed: ${VIEWS[state.view][0]}`;
}

function navigation() {
  document.querySelector("nav").replaceChildren(...Object.entries(VIEWS).map(([view, [title]]) =>
    element("a", { href: link({ view }), "aria-current": view === state.view ? "page" : null }, title)));
}

function begin() {
  const { runs } = DATA;
  const newest = runs.of.length ? DATA.classes[runs.of.at(-1)].environment : 0;
  USUAL.environment = String(newest);
  read();
  const select = document.getElementById("environment");
  select.append(...DATA.environments.map((each, at) => element("option", { value: at, selected: String(at) === state.environment }, each.name)));
  select.addEventListener("change", () => go({ environment: select.value, class: "" }));
  if (!DATA.environments.length) select.closest("label").hidden = true;
  document.getElementById("source").textContent = `${DATA.source}, ${plural(runs.id.length, "run")}, read ${clock(DATA.made)}`;
  addEventListener("hashchange", () => {
    read();
    select.value = state.environment;
    show().then(() => { scrollTo(0, 0); document.getElementById("main").focus({ preventScroll: true }); });
  });
  show().then(() => (window.requestIdleCallback || setTimeout)(() => loadVega().catch(() => {})));
}

begin();
