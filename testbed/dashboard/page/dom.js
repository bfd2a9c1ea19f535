"use strict";
/* Elements, and numbers as text. */

/** element("p", {class: "note"}, "text", otherElement): an element; children that are null are left out. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  set(made, attributes);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** The same for SVG. */
function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  set(made, attributes);
  made.append(...children);
  return made;
}

function set(made, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
}

/** A choice with a label. options: [value, text] pairs. */
function choice(label, options, chosen, changed) {
  const select = element("select", { onchange: () => changed(select.value), "data-choice": label },
    options.map(([value, text]) => element("option", { value, selected: String(value) === String(chosen) }, text)));
  return element("label", {}, label, select);
}

/** A table in a frame of its own that scrolls. columns: [name, isNumber]; rows: of text or elements; kind: "stack" on a phone. */
function table(columns, rows, label, kind = "") {
  const head = columns.map(([name, number]) => element("th", { scope: "col", class: number ? "number" : null }, name));
  const body = rows.map((row) => element("tr", {}, row.map((cell, at) => {
    const made = cell instanceof Element && cell.tagName === "TD" ? cell : element("td", { class: columns[at][1] ? "number" : null }, cell);
    made.dataset.name = columns[at][0];
    return made;
  })));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    element("table", { class: kind }, element("thead", {}, element("tr", {}, head)), element("tbody", {}, body)));
}

/** What stands where nothing can be shown: what it would be, and what to run. */
function empty(title, ...told) {
  return element("div", { class: "card empty" }, element("h2", {}, title), element("p", {}, told));
}

const code = (text) => element("code", {}, text);

function figure4(value) {
  if (value === null || value === undefined) return "";
  return Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });
}

const percent = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)} %`;
const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC";
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

/** A colour of the page as it is now, light or dark. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
