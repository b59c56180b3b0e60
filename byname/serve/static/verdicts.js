// The tiles of the recipes: which are chosen, what each is expected to reach, how to read that.

import { $, count, el, length, mark, percent, write } from "./dom.js";

const PLACES = [0, 1, 2];
const GROUPS = [["main", "To begin with"], ["recipe", "Other recipes"], ["member", "Single methods"]];
let recipes = [];
let unavailable = [];

export const picked = () => PLACES.map((at) => $(`recipe-${at}`).value).filter(Boolean);

/** Fill the menus; `changed(at)` is called once another recipe is chosen. */
export function start(info, changed) {
  recipes = info.recipes;
  unavailable = info.unavailable ?? [];
  menu(0, [], info.recipe);
  for (const at of PLACES) {
    $(`recipe-${at}`).addEventListener("change", () => {
      tidy();
      empty(at); // the old number is not that of the new name
      changed(at);
    });
  }
  tidy();
}

/** Recipes by kind, then those that cannot run, with the reason, as nobody can choose them. */
function menu(at, without, chosen) {
  const select = $(`recipe-${at}`);
  const groups = GROUPS.map(([kind, title]) => {
    const some = recipes.filter((one) => (one.kind ?? "recipe") === kind && !without.includes(one.name));
    return some.length ? el("optgroup", { label: title }, ...some.map((one) => el("option", { value: one.name, text: one.name }))) : null;
  });
  const lacking = unavailable.map((one) => el("option", {
    value: one.name, disabled: true, title: one.reason, text: `${one.name} – ${one.reason.split(". ")[0]}`,
  }));
  select.replaceChildren(...[
    at ? el("option", { value: "", text: "none" }) : null, ...groups,
    lacking.length ? el("optgroup", { label: "Cannot run here" }, ...lacking) : null,
  ].filter(Boolean));
  select.value = chosen;
}

function tidy() {
  for (const at of [1, 2]) {
    const before = [0, 1].slice(0, at).map((i) => $(`recipe-${i}`).value);
    const kept = $(`recipe-${at}`).value;
    menu(at, before, before.includes(kept) ? "" : kept);
  }
  const two = $("recipe-1").value !== "";
  if (!two) $("recipe-2").value = "";
  $("verdict-2").hidden = !two;
  mark(document.body, "data-compare", two ? "" : null);
  $("only-differ-label").hidden = !two;
  for (const at of PLACES) {
    const name = $(`recipe-${at}`).value;
    mark($(`verdict-${at}`), "data-empty", name ? null : "");
    write($(`idea-${at}`), recipes.find((one) => one.name === name)?.idea ?? "");
  }
}

function empty(at) {
  $(`expected-${at}`).replaceChildren();
  $(`range-${at}`).hidden = true;
  $("verdict-differ").hidden = true;
  $("notes").replaceChildren();
  $("more").hidden = true;
}

/** What each recipe is expected to reach, in its tile; `answer` is null where nothing is scored. */
export function paint(answer, images) {
  const runs = answer && images ? answer.runs : [];
  for (const at of PLACES) tile(at, runs.find((one) => one.recipe === $(`recipe-${at}`).value));
  const many = runs.length > 1 && Number.isFinite(answer.differ);
  $("verdict-differ").hidden = !many;
  if (many) {
    $("differ").replaceChildren(percent(answer.differ / images),
      el("span", { class: "small dim", text: ` ${answer.differ.toLocaleString("en")} of ${count(images, "photo")}` }));
  }
  notes(runs, answer);
}

function tile(at, run) {
  const range = run?.interval;
  const bar = $(`range-${at}`);
  const error = run?.error && ([run.error.seen, run.error.do].filter(Boolean).join(". ") || "It cannot run here.");
  $(`expected-${at}`).replaceChildren(...(!run ? [] : error ? [el("span", { class: "failed", text: error })] : [
    percent(run.expected_accuracy),
    el("span", { class: "small dim", text: range ? ` expected, ${percent(range[0]).replace(" %", "")}–${percent(range[1])}` : " expected" }),
  ]));
  bar.hidden = !run || Boolean(error);
  length(bar, "--w", run?.expected_accuracy);
  length(bar, "--l", range?.[0]);
  length(bar, "--h", range?.[1]);
}

/** How the numbers may be read: what all recipes say once, what some say with their names. */
function notes(runs, answer) {
  const said = new Map();
  const good = runs.filter((run) => !run.error);
  for (const run of good) {
    for (const note of run.notes ?? []) said.set(note, [...(said.get(note) ?? []), run.recipe]);
  }
  const lines = [...said].map(([note, names]) => (names.length < good.length ? `${names.join(", ")}: ${note}` : note));
  const line = (text) => el("li", { dir: "auto", text });
  $("notes").replaceChildren(...lines.map(line));
  const more = runs.length ? answer.notes ?? [] : [];
  $("more").hidden = !more.length;
  write($("more-title"), `${count(more.length, "note")} on the class list`);
  $("more-notes").replaceChildren(...more.map(line));
}
