// The page of byname serve: what the user does becomes one question to /api/score, and its answer
// is shown. A newer question makes older answers void, so that fast typing never shows old scores.

import { asked, download } from "./api.js";
import { $, calm, count, later, mark, say, trouble, write } from "./dom.js";
import * as names from "./names.js";
import * as upload from "./upload.js";
import * as verdicts from "./verdicts.js";
import * as viewer from "./viewer.js";
import * as wall from "./wall.js";

const PAGE = 200; // rows of one answer
const WAIT = 150; // milliseconds of silence before a changed name is scored
const FADE = 150; // further ones after which the old scores are shown as old
const HELP = "Must hold {}. Empty: the sentences of the recipe.";

let info = { recipes: [], limits: { upload_bytes: 2e7 }, images: 0 };
let labels = new Map(); // class id -> name, of the last answer
let recipes = []; // of the last answer
let onlyClass = null; // {id, name}
let corrections = 0;
let asks = 0; // number of the last question; older answers are dropped
let last = null; // the last question, for further pages of its answer
let loading = new Map(); // offset -> promise
let flying = null; // AbortController of the question on its way
let sentence = ""; // the wording, as long as what stands in its field is none

const order = () => document.querySelector("input[name=order]:checked").value;
const label = (id, given) => labels.get(id) ?? given ?? `${id} (removed)`;

function question() {
  const chosen = [...new Set(verdicts.picked())];
  return {
    classes: names.wire(), recipes: chosen, order: order(),
    ...(sentence ? { template: sentence } : {}),
    ...($("find").value.trim() ? { find: $("find").value.trim() } : {}),
    ...(onlyClass ? { only_class: onlyClass.id } : {}),
    ...($("only-differ").checked && chosen.length > 1 ? { only_differ: true } : {}),
    ...($("only-corrected").checked ? { only_corrected: true } : {}),
  };
}

/** Ask for scores and show them. `top`: the photos are others now, so begin at the first. */
async function score(top = false) {
  const mine = ++asks;
  flying?.abort();
  const body = question();
  const sent = names.named();
  if (!body.classes.length) return noClass();
  const [first] = top ? [0] : wall.sight();
  const offset = Math.max(0, first - 40);
  flying = new AbortController();
  const slow = setTimeout(() => busy("Scoring"), 500);
  const late = setTimeout(dim, FADE); // what is shown is no longer what was asked for
  try {
    const answer = await asked("/api/score", { method: "POST", json: { ...body, offset, limit: PAGE }, signal: flying.signal });
    if (mine !== asks) return; // a newer question is on its way
    last = body;
    loading = new Map();
    calm();
    take({ ...answer, offset }, sent, top);
  } catch (error) {
    if (mine !== asks || error.name === "AbortError") return;
    dim();
    trouble(error);
  } finally {
    clearTimeout(slow);
    clearTimeout(late);
    if (mine === asks) busy("");
  }
}

const soon = later(WAIT, () => score());
const soonTop = later(WAIT, () => score(true));

function dim() {
  document.body.dataset.old = "";
}

/** The wording is checked here: without a place for the name every answer would be an error. */
function reword() {
  const given = $("template").value.trim();
  const fine = !given || given.split("{}").length === 2;
  mark($("template"), "aria-invalid", fine ? null : "true");
  write($("template-help"), fine ? HELP : "Not used yet: it must hold {} once, where the name goes.");
  mark($("template-help"), "data-bad", fine ? null : "");
  if (!fine || given === sentence) return;
  sentence = given;
  soon();
}

function noClass() {
  delete document.body.dataset.old;
  busy("");
  names.scored([], []);
  labels = new Map();
  last = null;
  wall.show({ rows: [], offset: 0, total: 0 }, { compare: false, lines: 1, label, recipes: [] }, true);
  verdicts.paint(null, info.images);
  facts();
  write($("nothing"), "Add at least one class name: photos are labeled by names.");
  $("nothing").hidden = info.images === 0;
}

function take(answer, sent, top) {
  delete document.body.dataset.old;
  recipes = answer.runs.map((run) => run.recipe);
  const ids = names.scored(sent, answer.runs);
  labels = new Map([...ids].map(([id, one]) => [id, one.name.trim()]));
  const compare = answer.runs.length > 1;
  const lines = compare ? answer.runs.length : Math.min(3, sent.length);
  wall.show(answer, { compare, lines, label, recipes }, top);
  verdicts.paint(answer, info.images);
  facts(answer);
  if (viewer.image() !== null) viewer.paint();
}

/** Rows of another part of the same answer. */
function load(place) {
  if (wall.at(place) || !last) return Promise.resolve();
  const offset = Math.max(0, Math.floor((place - 40) / 50) * 50);
  if (loading.has(offset)) return loading.get(offset);
  const mine = asks;
  const more = asked("/api/score", { method: "POST", json: { ...last, offset, limit: PAGE } })
    .then((answer) => {
      if (mine !== asks) return;
      wall.merge({ ...answer, offset });
      wall.render();
    })
    .catch((error) => mine === asks && trouble(error))
    .finally(() => loading.delete(offset));
  loading.set(offset, more);
  return more;
}

/** How many corrections there are, on the button that exports them. */
function paintCorrections() {
  $("export").disabled = !corrections;
  $("corrections").hidden = !corrections;
  write($("corrections"), corrections ? corrections.toLocaleString("en") : "");
}

function facts(answer = null) {
  const n = info.images;
  write($("facts"), [n ? count(n, "photo") : null, info.encoder && `encoder ${info.encoder}`].filter(Boolean).join(" · "));
  $("welcome").hidden = n > 0 || !$("working").hidden;
  document.querySelector(".tools").hidden = n === 0;
  $("save-report").disabled = !n || !answer;
  $("verdicts").hidden = n === 0;
  paintCorrections();
  if (!answer) return;
  write($("nothing"), "No photo matches.");
  $("nothing").hidden = n === 0 || answer.total > 0;
  const part = answer.total < n ? `${answer.total.toLocaleString("en")} of ${count(n, "photo")}` : count(n, "photo");
  write($("shown"), `${part}, scored in ${Math.max(1, Math.round(1000 * answer.seconds))} ms`);
}

function busy(text) {
  if ($("bar").dataset.real) return;
  write($("working-text"), text);
  $("bar").removeAttribute("value");
  $("working").hidden = !text;
}

/** The bar of photos coming in; an empty text ends it. */
function progress(what, done, total) {
  const bar = $("bar");
  if (!what) {
    delete bar.dataset.real;
    $("working").hidden = true;
    $("welcome").hidden = info.images > 0;
    return;
  }
  bar.dataset.real = "1";
  bar.max = Math.max(1, total);
  bar.value = done;
  write($("working-text"), `${what.charAt(0).toUpperCase()}${what.slice(1)}: ${done.toLocaleString("en")} of ${total.toLocaleString("en")}`);
  $("working").hidden = false;
  $("welcome").hidden = true;
}

async function refreshState() {
  const state = await asked("/api/state");
  info = { ...info, images: state.images, limits: state.limits };
  corrections = state.corrections ?? corrections;
}

async function photosChanged() {
  await refreshState().catch(trouble);
  facts();
  soon();
}

/** One after the other, in the order of the keys: answers that overtake would count wrong. */
let correcting = Promise.resolve();

async function correct(row, id) {
  if (!row || (row.corrected ?? null) === id) return;
  const before = row.corrected ?? null;
  row.corrected = id;
  const repaint = () => {
    wall.refresh(row.image);
    if (viewer.image() === row.image) viewer.paint();
  };
  repaint();
  try {
    const ask = () => asked("/api/corrections", { method: "PUT", json: { image: row.image, class_id: id } });
    const turn = correcting.then(ask);
    correcting = turn.catch(() => {});
    const said = await turn;
    corrections = said.corrections;
    say(id === null ? `${row.name}: correction taken back.` : `${row.name} is ${label(id)}.`);
  } catch (error) {
    row.corrected = before;
    repaint();
    trouble(error);
  }
  paintCorrections();
}

function showOnly(one) {
  onlyClass = one;
  $("only-class").hidden = !one;
  write($("only-class"), one ? `Only ${one.name} ×` : "");
  mark($("only-class"), "aria-label", one ? `Showing only ${one.name}; show all` : null);
  go("photos");
  score(true);
}

/** On a phone one view is open at a time. */
function go(where) {
  document.body.dataset.view = where;
  for (const button of document.querySelectorAll("[data-go]")) mark(button, "aria-pressed", String(button.dataset.go === where));
  if (where === "photos") wall.render();
}

async function busyButton(button, act) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  const slow = setTimeout(() => busy("Making the file"), 300);
  try {
    await act();
  } catch (error) {
    trouble(error);
  } finally {
    clearTimeout(slow);
    busy("");
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

function startControls() {
  for (const radio of document.querySelectorAll("input[name=order]")) radio.addEventListener("change", () => score(true));
  for (const id of ["only-differ", "only-corrected"]) $(id).addEventListener("change", () => score(true));
  $("find").addEventListener("input", soonTop);
  $("template").addEventListener("input", reword);
  $("only-class").addEventListener("click", () => {
    showOnly(null);
    $("find").focus();
  });
  $("trouble-close").addEventListener("click", calm);
  $("show-keys").addEventListener("click", () => $("keys").showModal());
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }
  for (const button of document.querySelectorAll("[data-go]")) button.addEventListener("click", () => go(button.dataset.go));
  $("export").addEventListener("click", (event) => busyButton(event.currentTarget, () => download("/api/corrections.csv", "corrections.csv")));
  $("save-report").addEventListener("click", (event) => busyButton(event.currentTarget, () => download(`/api/report?recipe=${encodeURIComponent(verdicts.picked()[0])}`, "byname-report.html")));
}

async function start() {
  const load1 = (place) => load(place);
  names.start({
    changed: soon,
    showClass: (one) => one.id && showOnly({ id: one.id, name: one.name.trim() }),
  });
  wall.start({ want: load1, open: viewer.open, correct });
  viewer.start({
    correct, label, load: load1, recipes: () => recipes, removed: photosChanged,
    classes: () => [...labels],
  });
  upload.start({ limits: () => info.limits, progress, added: photosChanged });
  startControls();
  try {
    info = await asked("/api/state");
  } catch (error) {
    return trouble(error);
  }
  corrections = info.corrections ?? 0;
  write($("title"), info.title || "byname");
  document.title = `${info.title || "Photos"} – byname`;
  sentence = $("template").value = info.template ?? "";
  upload.refuse(info.unreadable ?? []);
  names.set(info.classes);
  verdicts.start(info, (at) => {
    dim();
    score(at === 0);
  });
  facts();
  score(true);
  const early = (info.unreadable ?? []).length;
  await upload.watch().catch(trouble);
  const state = await asked("/api/state").catch(() => null);
  upload.refuse((state?.unreadable ?? []).slice(early));
}

start();
