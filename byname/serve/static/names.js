// The list of class names: edited in place, scored beside each name.

import { $, count, el, length, mark, percent, write } from "./dom.js";

const rows = new Map(); // key of a class -> its elements
let classes = []; // {key, id, name, parent}, in the user's order
let found = new Map(); // key -> [class of each run], what the last answer said
let changed = () => {};
let showClass = () => {};
let nextKey = 1;
let active = null; // key of the class that the Tab key reaches: the list is one stop

export function start(given) {
  changed = given.changed;
  showClass = given.showClass;
  $("add-name").addEventListener("submit", (event) => {
    event.preventDefault();
    add(parse($("new-name").value));
    $("new-name").value = "";
  });
  $("new-name").addEventListener("paste", pasted);
  $("find-name").addEventListener("input", filter);
  $("sort-names").addEventListener("change", arrange);
  startPaste();
}

/** Names from pasted text: lines, or one line with commas; blank ones fall away. */
export function parse(text) {
  const lines = text.split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
  const parts = lines.length === 1 ? lines[0].split(/[,;\t]/) : lines;
  return parts.map((part) => part.trim().replace(/^"(.*)"$/, "$1")).filter(Boolean);
}

export const all = () => classes;
export const named = () => classes.filter((one) => one.name.trim());

/** What /api/score is sent: ids where there are any, parents where there were. */
export function wire() {
  return named().map(({ id, name, parent }) => ({
    ...(id ? { id } : {}), name: name.trim(), ...(parent ? { parent } : {}),
  }));
}

export function set(list) {
  classes = list.map((one) => ({
    key: nextKey++, id: one.id, name: one.name, parent: one.parent ?? one.path?.at(-2) ?? null,
  }));
  found = new Map();
  build();
}

export function add(names) {
  if (!names.length) return;
  for (const name of names) classes.push({ key: nextKey++, id: null, name, parent: null });
  build();
  $("names").lastElementChild?.scrollIntoView({ block: "nearest" });
  changed();
}

function remove(one) {
  const at = classes.indexOf(one);
  classes.splice(at, 1);
  const row = rows.get(one.key);
  const beside = row.li.nextElementSibling || row.li.previousElementSibling;
  row.li.remove();
  rows.delete(one.key);
  (beside?.querySelector("input") || $("new-name")).focus();
  tidy();
  changed();
}

function pasted(event) {
  const text = event.clipboardData?.getData("text") || "";
  const names = parse(text);
  if (names.length < 2 || !/[\r\n]/.test(text)) return;
  event.preventDefault();
  add(names);
}

/** The same control of the class above or below; after the last one, the field for a new class. */
function step(node, way) {
  const kind = ["count", "gone"].find((name) => node.classList.contains(name));
  const lines = [...$("names").querySelectorAll("li:not([hidden])")];
  const other = lines[lines.indexOf(node.closest("li")) + way];
  const to = other?.querySelector(kind ? `.${kind}:not(:disabled):not([hidden])` : "input") || other?.querySelector("input");
  (to || (way > 0 ? $("new-name") : null))?.focus();
}

function activate(key) {
  if (active === key) return;
  for (const one of [active, key]) {
    const row = rows.get(one);
    if (row) for (const node of [row.input, row.n, row.gone]) node.tabIndex = one === key ? 0 : -1;
  }
  active = key;
}

/** The stop is a class that is there and in sight. */
function keepStop() {
  if (active !== null && rows.has(active) && !rows.get(active).li.hidden) return;
  activate(classes.find((one) => !rows.get(one.key)?.li.hidden)?.key ?? null);
}

function onKey(event, one) {
  if (event.isComposing) return;
  const button = event.target.tagName === "BUTTON";
  if (event.key === "ArrowDown" || (event.key === "Enter" && !button)) {
    event.preventDefault();
    step(event.target, 1);
  } else if (event.key === "ArrowUp") {
    event.preventDefault();
    step(event.target, -1);
  } else if (/^(Backspace|Delete)$/.test(event.key) && (button ? event.key === "Delete" : !event.target.value)) {
    event.preventDefault();
    remove(one);
  }
}

function make(one) {
  const input = el("input", {
    value: one.name, autocomplete: "off", spellcheck: "false", dir: "auto",
    oninput: () => {
      one.name = input.value;
      tidy();
      changed();
    },
    tabIndex: -1, onpaste: pasted,
  });
  const bars = el("span", { class: "bars", "aria-hidden": "true" });
  const expected = el("span", { class: "expected", title: "expected to be right" });
  const flag = el("span", { class: "flag", hidden: true });
  const n = el("button", { type: "button", class: "count", tabIndex: -1, onclick: () => showClass(one) });
  const gone = el("button", { type: "button", class: "gone", tabIndex: -1, onclick: () => remove(one), text: "×" });
  const li = el("li", { onkeydown: (event) => onKey(event, one), onfocusin: () => activate(one.key) }, el("div", { class: "nameline" }, input, gone),
    el("div", { class: "scoreline" }, bars, expected, flag, n));
  return { li, input, bars, expected, flag, n, gone };
}

function build() {
  for (const [key, row] of rows) {
    if (!classes.some((one) => one.key === key)) {
      row.li.remove();
      rows.delete(key);
    }
  }
  const list = $("names");
  for (const one of classes) {
    if (rows.has(one.key)) continue;
    const row = make(one);
    rows.set(one.key, row);
    list.append(row.li);
  }
  arrange();
  tidy();
}

/** Labels, warnings and filters that depend on the names alone. */
function tidy() {
  const seen = new Map();
  for (const one of classes) {
    const name = one.name.trim().toLowerCase();
    if (name) seen.set(name, (seen.get(name) || 0) + 1);
  }
  classes.forEach((one, at) => {
    const row = rows.get(one.key);
    const name = one.name.trim();
    one.twice = (seen.get(name.toLowerCase()) || 0) > 1;
    mark(row.input, "aria-label", `Name of class ${at + 1}`);
    mark(row.gone, "aria-label", `Remove class ${name || at + 1}`);
    mark(row.gone, "title", "Remove this class");
  });
  for (const one of classes) paint(one);
  filter();
  $("no-names").hidden = classes.length > 0;
  write($("names-title"), classes.length ? count(classes.length, "class", "classes") : "Classes");
}

function filter() {
  const sought = $("find-name").value.trim().toLowerCase();
  const many = classes.length > 8;
  document.querySelector(".namestools").hidden = !many && !sought;
  for (const one of classes) {
    const row = rows.get(one.key);
    // The name under the cursor stays, whatever it turns into.
    const hide = sought && !one.name.toLowerCase().includes(sought) && row.input !== document.activeElement;
    if (row.li.hidden !== Boolean(hide)) row.li.hidden = Boolean(hide);
  }
  keepStop();
}

/** Put the rows in order; only when asked, so that nothing moves under the user's hands. */
function arrange() {
  const how = $("sort-names").value;
  const first = (one) => found.get(one.key)?.[0];
  const key = {
    given: () => 0,
    weak: (one) => first(one)?.expected_accuracy ?? 2,
    many: (one) => -(first(one)?.n ?? 0),
  }[how];
  const sorted = classes.map((one, at) => [key(one), at, one]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const list = $("names");
  sorted.forEach(([, , one], at) => {
    const { li } = rows.get(one.key);
    if (list.children[at] !== li) list.insertBefore(li, list.children[at] || null);
  });
}

function level(share) {
  if (share === null || share === undefined) return "none";
  return share < 0.5 ? "low" : share < 0.75 ? "mid" : "high";
}

/** One row's numbers; nothing is touched that did not change. */
function paint(one) {
  const row = rows.get(one.key);
  const runs = found.get(one.key) || [];
  while (row.bars.children.length > runs.length) row.bars.lastElementChild.remove();
  while (row.bars.children.length < runs.length) row.bars.append(el("i"));
  runs.forEach((run, at) => {
    length(row.bars.children[at], "--w", run?.expected_accuracy);
    mark(row.bars.children[at], "data-level", level(run?.expected_accuracy));
  });
  const known = runs.some((run) => run && run.expected_accuracy !== null && run.expected_accuracy !== undefined);
  write(row.expected, known ? runs.map((run) => percent(run?.expected_accuracy)).join(" · ") : "");
  const flag = one.twice ? "same name twice" : runs.find((run) => run?.flag)?.flag || "";
  write(row.flag, flag);
  mark(row.flag, "title", flag || null);
  row.flag.hidden = !flag;
  const n = runs[0]?.n ?? null;
  write(row.n, n === null ? "" : n ? count(n, "photo") : "none");
  row.n.hidden = n === null;
  row.n.disabled = !n;
  mark(row.n, "aria-label", n === null ? null : `Show ${count(n, "photo")} answered ${one.name.trim() || "so"}`);
}

/** Take over an answer: `sent` are the classes that were named when it was asked. */
export function scored(sent, runs) {
  found = new Map();
  const ids = new Map();
  const heads = runs.find((run) => run.classes?.length)?.classes || [];
  sent.forEach((one, at) => {
    const head = heads[at];
    if (!head) return;
    ids.set(head.id, one);
    // A new class keeps the id that the server made, once its name is finished.
    const busy = rows.get(one.key)?.input === document.activeElement;
    if (!one.id && !busy) one.id = head.id;
    found.set(one.key, runs.map((run) => run.classes?.[at] || null));
  });
  for (const one of classes) paint(one);
  return ids;
}

function startPaste() {
  const dialog = $("paste");
  const text = $("paste-text");
  $("paste-names").addEventListener("click", () => {
    text.value = named().map((one) => one.name).join("\n");
    tell();
    dialog.showModal();
    text.focus();
    text.select();
  });
  const tell = () => write($("paste-count"), count(parse(text.value).length, "name"));
  text.addEventListener("input", tell);
  $("paste-form").addEventListener("submit", (event) => {
    const names = parse(text.value);
    if (!names.length) return;
    if (event.submitter?.value === "add") add(names);
    else replace(names);
  });
}

/** A new list; names that were there before keep their ids, and so their corrections. */
function replace(names) {
  const before = new Map(classes.map((one) => [one.name.trim(), one]).reverse());
  classes = names.map((name) => {
    const old = before.get(name);
    before.delete(name);
    return old || { key: nextKey++, id: null, name, parent: null };
  });
  build();
  changed();
}
