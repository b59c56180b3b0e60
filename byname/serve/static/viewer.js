// One photo in a dialog: what it may be, why the label, and which class is right.

import { asked } from "./api.js";
import { $, el, fill, length, percent, say, trouble, write } from "./dom.js";
import { forget, picture } from "./thumbs.js";
import * as wall from "./wall.js";

let place = -1;
let shown = null; // the row in the dialog
let recipe = null;
let asks = 0;
let act = {};

export function start(given) {
  act = given;
  const dialog = $("viewer");
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("right-class").addEventListener("change", () => act.correct(shown, $("right-class").value || null));
  $("why-recipe").addEventListener("change", () => {
    recipe = $("why-recipe").value;
    why();
  });
  $("remove-photo").addEventListener("click", removePhoto);
  dialog.addEventListener("keydown", onKey);
  dialog.addEventListener("close", () => {
    if (place >= 0 && wall.at(place)) wall.go(place);
    shown = null;
  });
}

export function open(at) {
  if (!wall.at(at)) return;
  const dialog = $("viewer");
  place = at;
  recipe = act.recipes().includes(recipe) ? recipe : act.recipes()[0];
  if (!dialog.open) dialog.showModal();
  paint(true);
  $("viewer-title").focus();
}

export const image = () => ($("viewer").open ? shown?.image : null);

async function step(way) {
  const to = place + way;
  if (to < 0 || to >= wall.size()) return;
  await act.load(to);
  if (!wall.at(to)) return;
  place = to;
  paint(true);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|INPUT)$/.test(event.target.tagName)) return;
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (/^[1-5]$/.test(event.key)) {
    const one = shown?.top[Number(event.key) - 1];
    if (one) act.correct(shown, one[0]);
  } else if (event.key === "0" || event.key === "Delete") act.correct(shown, null);
  else return;
  event.preventDefault();
}

/** Paint the photo; `again` where the explanation has to be fetched as well. */
export function paint(again = false) {
  const row = again ? wall.at(place) : shown;
  if (!row) return;
  shown = row;
  write($("viewer-title"), row.name);
  picture($("viewer-photo"), row.image);
  $("viewer-photo").alt = row.name;
  $("previous").disabled = place <= 0;
  $("next").disabled = place >= wall.size() - 1;
  paintCandidates(row);
  const fixed = row.corrected ?? null;
  fill($("right-class"), [["", "Not corrected"], ...act.classes()], fixed ?? "");
  if (fixed !== null && $("right-class").value !== fixed) {
    $("right-class").append(el("option", { value: fixed, text: act.label(fixed) }));
    $("right-class").value = fixed;
  }
  write($("corrected"), fixed === null ? "Choose the right one, or press its number." : `Corrected to ${act.label(fixed)}.`);
  if (again) why();
}

function paintCandidates(row) {
  const list = $("candidates");
  const held = [...list.querySelectorAll("button")].indexOf(document.activeElement);
  list.replaceChildren(...row.top.map(([id, share], at) => {
    const button = el("button", {
      type: "button", class: "answer", "aria-pressed": row.corrected === id ? "true" : "false",
      onclick: () => act.correct(row, row.corrected === id ? null : id),
    }, el("b", { text: at + 1 }), el("span", { class: "label", dir: "auto", text: act.label(id) }),
    el("span", { class: "share", text: percent(share) }));
    length(button, "--w", share);
    return el("li", {}, button);
  }));
  if (held >= 0) list.querySelectorAll("button")[held]?.focus();
}

async function why() {
  const row = shown;
  const mine = ++asks;
  const names = act.recipes();
  const choose = $("why-recipe");
  choose.hidden = names.length < 2;
  fill(choose, names.map((name) => [name, name]), recipe);
  const box = $("why");
  box.setAttribute("aria-busy", "true");
  try {
    const said = await asked(`/api/why/${encodeURIComponent(row.image)}?recipe=${encodeURIComponent(recipe)}`);
    if (mine !== asks) return;
    box.replaceChildren(...[ahead(said), ...[said, said.against].filter(Boolean).map(side)].filter(Boolean));
    if (!box.children.length) box.append(el("p", { class: "dim", text: "No text to show." }));
  } catch (error) {
    if (mine === asks) box.replaceChildren(el("p", { class: "dim", text: error.message }));
  } finally {
    if (mine === asks) box.removeAttribute("aria-busy");
  }
}

/** By how much the answer is ahead of the runner-up. */
function ahead({ label, score, against }) {
  if (!Number.isFinite(score) || !Number.isFinite(against?.score)) return null;
  const gap = score - against.score;
  return el("p", { class: "ahead" }, el("bdi", { text: label }), gap < 0 ? " is behind " : " is ahead of ", el("bdi", { text: against.label }),
    ` by ${Math.abs(gap).toFixed(2)}: score ${score.toFixed(2)} against ${against.score.toFixed(2)}.`);
}

/** The texts of one class, the strongest first, with what each adds to the score. */
function side(one, at) {
  const most = Math.max(...one.texts.map((text) => Math.abs(text.part ?? text.cosine ?? 0)), 1e-9);
  const rows = one.texts.map((text) => {
    const value = text.part ?? text.cosine ?? 0;
    const item = el("li", { class: value < 0 ? "piece against" : "piece" },
      el("span", { class: "text", dir: "auto", text: text.text }),
      el("span", { class: "amount", text: value.toFixed(value < 10 ? 2 : 1),
        title: `weight ${Number(text.weight).toPrecision(2)}, cosine ${Number(text.cosine).toFixed(3)}` }));
    length(item, "--w", Math.abs(value) / most);
    return item;
  });
  return el("div", { class: at ? "side second" : "side" },
    el("h4", {}, at ? "Next best: " : "", el("bdi", { text: one.label })),
    el("p", { class: "small dim", text: one.texts.some((text) => text.part !== null) ? "What each text adds to the score" : "How close each text is to the photo" }),
    el("ol", { class: "rows" }, ...rows));
}

async function removePhoto() {
  const row = shown;
  try {
    await asked(`/api/images/${encodeURIComponent(row.image)}`, { method: "DELETE" });
    $("viewer").close();
    forget(row.image);
    say(`${row.name} was removed.`);
    act.removed();
  } catch (error) {
    $("viewer").close();
    trouble(error);
  }
}
