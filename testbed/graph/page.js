"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { things } = JSON.parse($("data").textContent);
  const view = $("view");
  const svg = view.querySelector("svg");
  const XLINK = "http://www.w3.org/1999/xlink";
  const SMALLEST_READABLE = 0.8; // pixels of the screen to a unit of the drawing, on a phone

  // ---- the drawing: what each part of it stands for ---------------------------------------

  const links = new Map(); // id -> <a>
  for (const link of svg.querySelectorAll("a")) {
    const id = (link.getAttributeNS(XLINK, "href") || link.getAttribute("xlink:href") || "").slice(1);
    const thing = things[id];
    if (!thing) continue;
    links.set(id, link);
    link.setAttribute("role", "button");
    link.setAttribute("aria-label", label(thing));
    link.removeAttributeNS(XLINK, "title");
    link.dataset.id = id;
  }
  for (const title of svg.querySelectorAll("title")) {
    const thing = things[title.parentNode.id];
    if (thing) title.textContent = [`${thing.kind} ${thing.name}`, ...thing.notes].join("\n");
    else title.remove();
  }
  for (const line of svg.querySelectorAll(".edge a > path")) { // a cable is thin; a finger is not
    const hit = line.cloneNode();
    for (const name of ["fill", "stroke", "stroke-width", "stroke-dasharray"]) hit.removeAttribute(name);
    hit.setAttribute("class", "hit");
    line.after(hit);
  }

  function label(thing) {
    return [`${thing.kind} ${thing.name}`, ...thing.notes].join(", ");
  }

  // ---- moving and zooming -----------------------------------------------------------------

  const whole = svg.viewBox.baseVal;
  const full = { x: whole.x, y: whole.y, width: whole.width, height: whole.height };
  let scale = 1; // pixels to a unit
  let left = 0; // units at the left upper corner
  let top = 0;
  svg.removeAttribute("width");
  svg.removeAttribute("height");

  function show() {
    const { width, height } = view.getBoundingClientRect();
    svg.setAttribute("viewBox", `${left} ${top} ${width / scale || 1} ${height / scale || 1}`);
  }

  function fitting() {
    const { width, height } = view.getBoundingClientRect();
    return Math.min(width / full.width, height / full.height) || 1;
  }

  function fit(least = 0) {
    const { width, height } = view.getBoundingClientRect();
    scale = Math.max(Math.min(fitting(), 1.8), least);
    left = full.x + Math.min(0, (full.width - width / scale) / 2); // what is wider begins at its left
    top = full.y + Math.min(0, (full.height - height / scale) / 3);
    show();
  }

  function zoom(factor, x, y) {
    const box = view.getBoundingClientRect();
    const at = { x: x === undefined ? box.width / 2 : x - box.left, y: y === undefined ? box.height / 2 : y - box.top };
    const next = Math.min(Math.max(scale * factor, Math.min(fitting(), 1) / 2), 8);
    left += at.x / scale - at.x / next;
    top += at.y / scale - at.y / next;
    scale = next;
    show();
  }

  function pan(x, y) {
    left = Math.min(Math.max(left - x / scale, full.x - full.width / 2), full.x + full.width);
    top = Math.min(Math.max(top - y / scale, full.y - full.height / 2), full.y + full.height);
    show();
  }

  function bringIn(id) { // move only if it is not in sight
    const link = links.get(id);
    if (!link) return;
    const { left: start, top: upper, right, bottom } = view.getBoundingClientRect();
    const over = panel.getBoundingClientRect(); // beside it, or below on a phone
    const end = over.width && over.left > start + 1 ? over.left : right;
    const lower = over.width && end === right ? over.top : bottom;
    const part = link.getBoundingClientRect();
    if (part.left >= start && part.right <= end && part.top >= upper && part.bottom <= lower) return;
    pan((start + end - part.left - part.right) / 2, (upper + lower - part.top - part.bottom) / 2);
  }

  const fingers = new Map();
  let moved = 0;
  view.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    if (!fingers.size) moved = 0;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  window.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...fingers].find(([id]) => id !== event.pointerId);
    if (other) {
      const end = other[1];
      const distance = (point) => Math.hypot(point.x - end.x, point.y - end.y) || 1;
      zoom(distance(now) / distance(before), (now.x + end.x) / 2, (now.y + end.y) / 2);
      pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    } else {
      pan(now.x - before.x, now.y - before.y);
    }
    moved += Math.abs(now.x - before.x) + Math.abs(now.y - before.y);
    view.classList.toggle("moving", moved > 5);
    fingers.set(event.pointerId, now);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    window.addEventListener(name, (event) => {
      fingers.delete(event.pointerId);
      view.classList.remove("moving");
    });
  }
  view.addEventListener("dragstart", (event) => event.preventDefault());
  view.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.clientX, event.clientY);
  }, { passive: false });
  $("in").addEventListener("click", () => zoom(1.4));
  $("out").addEventListener("click", () => zoom(1 / 1.4));
  $("fit").addEventListener("click", () => fit());
  new ResizeObserver(() => show()).observe(view);

  // ---- details ----------------------------------------------------------------------------

  const panel = $("details");

  function element(name, text = "", className = "") {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function button(id, text) {
    const made = element("button", text);
    made.type = "button";
    made.addEventListener("click", () => select(id));
    return made;
  }

  function named(id) {
    const made = button(id, things[id].name);
    made.prepend(element("small", `${things[id].kind} `));
    return made;
  }

  function select(id) {
    const thing = things[id];
    for (const part of svg.querySelectorAll(".selected, .near")) part.classList.remove("selected", "near");
    panel.hidden = !thing;
    if (!thing) return;
    links.get(id)?.classList.add("selected");
    $(id)?.classList.add("selected");
    for (const other of thing.related) if (things[other].kind === "cable") $(other)?.classList.add("near");
    panel.replaceChildren(...described(id, thing));
    panel.scrollTop = 0;
    bringIn(id);
  }

  function described(id, thing) {
    const heading = element("h2", thing.name);
    heading.prepend(element("span", thing.kind, "kind"));
    const close = element("button", "\u00d7");
    close.id = "close";
    close.type = "button";
    close.setAttribute("aria-label", "Close the details");
    close.addEventListener("click", () => { const link = links.get(id); select(""); link?.focus(); });
    const badges = thing.notes.map((note) => element("span", note, `badge ${thing.state}`));
    if (!badges.length && thing.state === "good") badges.push(element("span", thing.kind === "cable" ? "up" : "running", "badge good"));
    const list = element("dl");
    for (const [name, value] of thing.details) list.append(element("dt", name), element("dd", value));
    const parts = [close, heading, ...badges, list];
    if (thing.related.length) {
      const related = element("div", "", "related");
      for (const other of thing.related) related.append(named(other));
      parts.push(element("h3", "Related"), related);
    }
    return parts;
  }

  view.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (link) event.preventDefault();
    if (moved > 5) return;
    select(link?.dataset.id || "");
  });
  view.addEventListener("focusin", (event) => {
    const id = event.target.closest("a")?.dataset.id;
    if (id && event.target.matches(":focus-visible")) bringIn(id);
  });

  // ---- search and highlight ---------------------------------------------------------------

  const search = $("search");
  const results = $("results");
  const texts = new Map(Object.entries(things).map(([id, thing]) => [
    id,
    [thing.kind, thing.name, ...thing.notes, ...thing.details.flat()].join("\n").toLowerCase(),
  ]));
  let vsid = null;

  function matching() { // ids, or null where nothing is asked for
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return null;
    return [...texts].filter(([, text]) => words.every((word) => text.includes(word))).map(([id]) => id);
  }

  function filter() {
    const found = matching();
    const kept = new Set(Object.keys(things).filter((id) =>
      (!found || found.includes(id)) && (vsid === null || things[id].vsids.includes(vsid))));
    const hosts = new Set([...kept].map((id) => things[id].host || id));
    const dims = found !== null || vsid !== null;
    for (const [id, link] of links) {
      const thing = things[id];
      const whole = thing.host ? null : $(id); // a host's card, a switch, a cable
      if (whole) whole.classList.toggle("dim", dims && !hosts.has(id));
      if (thing.host) link.classList.toggle("dim", dims && hosts.has(thing.host) && !kept.has(id));
    }
    $("count").textContent = found ? `${found.length} found` : "";
    list(found);
  }

  function list(found) {
    results.hidden = !found;
    results.replaceChildren(...(found || []).slice(0, 50).map((id) => {
      const entry = named(id);
      entry.addEventListener("click", () => { results.hidden = true; });
      const item = element("li");
      item.append(entry);
      return item;
    }));
  }

  search.addEventListener("input", filter);
  search.addEventListener("focus", () => { results.hidden = !matching(); });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") results.querySelector("button")?.click();
    if (event.key === "ArrowDown") { results.querySelector("button")?.focus(); event.preventDefault(); }
  });
  results.addEventListener("keydown", (event) => {
    const item = event.target.closest("li");
    const next = event.key === "ArrowDown" ? item.nextSibling : event.key === "ArrowUp" ? item.previousSibling || search : null;
    if (!next) return;
    event.preventDefault();
    (next === search ? search : next.firstChild).focus();
  });
  view.addEventListener("pointerdown", () => { results.hidden = true; });

  const chips = [...document.querySelectorAll(".chip")];
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      const own = Number(chip.dataset.vsid);
      vsid = vsid === own ? null : own;
      for (const each of chips) each.setAttribute("aria-pressed", String(Number(each.dataset.vsid) === vsid));
      filter();
      results.hidden = true;
    });
  }

  // ---- keys -------------------------------------------------------------------------------

  const keys = {
    "+": () => zoom(1.2), "=": () => zoom(1.2), "-": () => zoom(1 / 1.2), 0: () => fit(),
    ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
  };
  view.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const link = event.target.closest("a");
    if (link && (event.key === "Enter" || event.key === " ")) {
      moved = 0;
      select(link.dataset.id);
    } else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== search) {
      event.preventDefault();
      search.focus();
    }
    if (event.key !== "Escape") return;
    if (search.value) { search.value = ""; filter(); } else select("");
  });

  fit(window.innerWidth <= 700 ? SMALLEST_READABLE : 0);
  select(location.hash.slice(1));
})();
