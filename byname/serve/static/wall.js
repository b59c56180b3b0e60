// The photos: a grid that holds only the cards in sight, for ten or ten thousand images.

import { $, el, length, mark, percent, write } from "./dom.js";
import { picture } from "./thumbs.js";

const GAP = 12;
const AHEAD = 2; // rows of cards kept above and below the window

const cards = new Map(); // image id -> card
const rows = new Map(); // place -> row
let total = 0;
let view = { compare: false, lines: 3, label: (id) => id };
let active = null; // image id that the Tab key reaches
let shape = { columns: 1, width: 200, height: 300, thumb: 150 };
let act = {};
let awaited = null; // a place that the keys went to before its row was here

export function start(given) {
  act = given;
  const scroller = $("main");
  let asked = false;
  const soon = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      render();
    });
  };
  scroller.addEventListener("scroll", soon, { passive: true });
  new ResizeObserver(soon).observe($("wall"));
  new ResizeObserver(soon).observe(scroller);
  $("wall").addEventListener("keydown", onKey);
  $("wall").addEventListener("focusin", (event) => {
    const li = event.target.closest("li");
    if (li) activate(li.dataset.image);
  });
}

export const known = () => rows;
export const size = () => total;
export const at = (place) => rows.get(place);

/** Which places are in sight: [first, last). */
export function sight() {
  const first = Math.max(0, firstLine() - AHEAD) * shape.columns;
  return [first, Math.min(total, (lastLine() + AHEAD) * shape.columns)];
}

/** Show an answer: all other rows are forgotten, the scroll stays (or goes to the top). */
export function show(answer, how, top) {
  view = how;
  rows.clear();
  total = answer.total;
  merge(answer);
  if (top) $("main").scrollTop = Math.min($("main").scrollTop, $("wall").offsetTop);
  render();
}

export function merge(answer) {
  answer.rows.forEach((row, at) => rows.set(answer.offset + at, row));
}

function measure() {
  const wall = $("wall");
  const wide = wall.clientWidth;
  const least = wide < 560 ? 150 : 208;
  const columns = Math.max(1, Math.floor((wide + GAP) / (least + GAP)));
  const width = Math.floor((wide - GAP * (columns - 1)) / columns);
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const thumb = Math.round(width * 0.74);
  const texts = wide < 560 ? 3 : 2; // lines of a class name, before it is cut
  const tall = 0.21 + 0.97 * texts;
  const height = Math.round(thumb + rem * (2.4 + (tall + 0.15) * view.lines));
  shape = { columns, width, height, thumb };
  wall.style.setProperty("--card-wide", `${width}px`);
  wall.style.setProperty("--answer-tall", `${tall}rem`);
  wall.style.setProperty("--label-lines", texts);
  wall.style.setProperty("--thumb", `${thumb}px`);
  wall.style.setProperty("--tall", `${height}px`);
  const lines = Math.ceil(total / columns);
  wall.style.setProperty("height", `${Math.max(0, lines * (height + GAP) - GAP)}px`);
}

function firstLine() {
  const above = $("main").getBoundingClientRect().top - $("wall").getBoundingClientRect().top;
  return Math.floor(Math.max(0, above) / (shape.height + GAP));
}

function lastLine() {
  const main = $("main").getBoundingClientRect();
  const below = main.bottom - $("wall").getBoundingClientRect().top;
  return Math.ceil(Math.max(0, below) / (shape.height + GAP)) + 1;
}

export function render() {
  if (!$("wall").clientWidth) return; // the other view is open on a phone
  measure();
  const [first, last] = sight();
  const focus = document.activeElement;
  const held = focus?.closest?.("#wall li")?.dataset.image;
  const seen = new Set();
  let missing = null;
  for (let place = first; place < last; place += 1) {
    const row = rows.get(place);
    const id = row ? row.image : `wait-${place}`;
    if (!row) missing ??= place;
    seen.add(id);
    put(id, row, place);
  }
  for (const [id, card] of cards) {
    if (seen.has(id)) continue;
    card.li.remove();
    cards.delete(id);
  }
  if (!cards.has(active)) activate(rows.get(first)?.image ?? null);
  if (awaited !== null && rows.has(awaited)) activate(rows.get(awaited).image);
  const back = awaited !== null && rows.has(awaited) ? cards.get(active)?.group : focus;
  if (awaited !== null && rows.has(awaited)) awaited = null;
  // Moving a card in the page takes the focus off it: give it back, or to the card that stands in.
  if (held || back !== focus) {
    const to = back?.isConnected ? back : cards.get(active)?.group;
    if (document.activeElement !== to) to?.focus({ preventScroll: true });
  }
  if (missing !== null) act.want(missing);
}

function put(id, row, place) {
  let card = cards.get(id);
  if (!card) {
    card = row ? make(id) : { li: el("li", { class: "card waiting", "aria-hidden": "true" }) };
    cards.set(id, card);
  }
  const x = (place % shape.columns) * (shape.width + GAP);
  const y = Math.floor(place / shape.columns) * (shape.height + GAP);
  card.li.style.setProperty("transform", `translate(${x}px, ${y}px)`);
  if (card.place !== place || !card.li.isConnected) {
    card.place = place;
    // The order in the page is the order on the screen, for Tab and for readers.
    let next = null;
    for (const other of $("wall").children) {
      if (other !== card.li && Number(other.dataset.place) > place) {
        next = other;
        break;
      }
    }
    if (!card.li.isConnected || card.li.nextElementSibling !== next) $("wall").insertBefore(card.li, next);
    card.li.dataset.place = place;
  }
  if (row) {
    mark(card.li, "aria-setsize", total);
    mark(card.li, "aria-posinset", place + 1);
    paint(card, row);
  }
}

function make(id) {
  const photo = el("img", { alt: "", decoding: "async" });
  const tag = el("span", { class: "tag", hidden: true });
  const open = el("button", { type: "button", class: "photo", tabIndex: -1, onclick: () => act.open(cards.get(id).place) }, photo, tag);
  const name = el("p", { class: "file dim", dir: "auto" });
  const lines = el("div", { class: "lines" });
  const group = el("div", { class: "body", role: "group", tabIndex: -1 }, open, name, lines);
  const li = el("li", { class: "card", "data-image": id }, group);
  picture(photo, id);
  return { li, group, open, tag, name, lines, photo };
}

/** What the lines of a card say: the best answers, or one answer a recipe. */
export function choices(row) {
  if (view.compare) {
    return row.answers.map((one, at) => one && {
      id: one.class_id, text: view.label(one.class_id, one.label), share: one.probability,
      decision: one.decision, run: at, other: differs(row, at),
    });
  }
  const first = row.answers[0];
  const best = row.top.map(([id, share], at) => ({
    id, text: view.label(id, at || !first ? null : first.label), share,
    decision: at || !first ? "accept" : first.decision, run: at,
  }));
  // A broader answer (an ancestor) is none of the classes: it stands above them.
  if (first && first.decision === "backoff" && first.class_id !== best[0]?.id) {
    best.unshift({ id: first.class_id, text: first.label, share: first.probability, decision: "backoff", run: 0 });
  }
  return best;
}

const differs = (row, at) => Boolean(row.answers[at] && row.answers[0] && row.answers[at].class_id !== row.answers[0].class_id);

function paint(card, row) {
  const offered = choices(row).slice(0, view.lines);
  while (card.lines.children.length > offered.length) card.lines.lastElementChild.remove();
  while (card.lines.children.length < offered.length) card.lines.append(line(card));
  offered.forEach((one, at) => paintLine(card.lines.children[at], one, row, at));
  write(card.name, row.name);
  mark(card.name, "title", row.name);
  const fixed = row.corrected !== null && row.corrected !== undefined;
  const doubt = row.answers.some((one) => one?.decision === "reject");
  write(card.tag, fixed ? `✓ ${view.label(row.corrected)}` : doubt ? "Fits no class" : "");
  card.tag.hidden = !fixed && !doubt;
  mark(card.li, "data-corrected", fixed ? "" : null);
  mark(card.li, "data-differ", view.compare && row.answers.some((_, at) => differs(row, at)) ? "" : null);
  const said = offered.map((one) => (one ? `${one.text} ${percent(one.share)}` : "no answer")).join(", ");
  mark(card.group, "aria-label", `${row.name}: ${said}${fixed ? `; corrected to ${view.label(row.corrected)}` : ""}`);
  mark(card.open, "aria-label", `Open ${row.name}`);
  const here = active === row.image ? 0 : -1;
  for (const node of [card.group, card.open, ...card.lines.children]) if (node.tabIndex !== here) node.tabIndex = here;
}

function line(card) {
  return el("button", { type: "button", class: "answer", onclick: (event) => {
    const row = rows.get(card.place);
    const one = row && choices(row)[[...card.lines.children].indexOf(event.currentTarget)];
    if (one) act.correct(row, row.corrected === one.id ? null : one.id);
  } }, el("b"), el("span", { class: "label", dir: "auto" }), el("span", { class: "share" }));
}

function paintLine(node, one, row, at) {
  const [digit, label, share] = node.children;
  write(digit, String(at + 1));
  write(label, one ? one.text : "no answer");
  write(share, one ? percent(one.share) : "");
  length(node, "--w", one?.share);
  mark(node, "data-run", view.compare ? at : null);
  mark(node, "data-other", one?.other ? "" : null);
  mark(node, "title", one ? `${one.text}: ${percent(one.share)}${view.compare ? ` by ${view.recipes[at]}` : ""}. Press ${at + 1} if this is right.` : null);
  mark(node, "aria-pressed", one && row.corrected === one.id ? "true" : "false");
  node.disabled = !one || one.decision === "backoff";
}

function activate(id) {
  if (active === id) return;
  const before = cards.get(active);
  active = id;
  for (const card of [before, cards.get(id)]) {
    if (!card?.group) continue;
    const here = card.li.dataset.image === id ? 0 : -1;
    for (const node of [card.group, card.open, ...card.lines.children]) node.tabIndex = here;
  }
}

/** Bring a place into sight and put the focus there. */
export function go(place) {
  const main = $("main").getBoundingClientRect();
  const top = $("wall").getBoundingClientRect().top + Math.floor(place / shape.columns) * (shape.height + GAP);
  const head = document.querySelector(".tools").getBoundingClientRect().height + GAP;
  if (top < main.top + head) $("main").scrollTop += top - main.top - head;
  else if (top + shape.height > main.bottom) $("main").scrollTop += top + shape.height - main.bottom + GAP;
  awaited = place;
  render();
}

function onKey(event) {
  const li = event.target.closest("li");
  if (!li || event.ctrlKey || event.metaKey || event.altKey) return;
  const place = Number(li.dataset.place);
  const row = rows.get(place);
  const ways = {
    ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: total - 1,
    ArrowUp: place - shape.columns, ArrowDown: place + shape.columns,
  };
  if (event.key in ways) {
    const to = ways[event.key];
    if (to >= 0 && to < total) go(to);
  } else if (/^[1-5]$/.test(event.key) && row) {
    const one = choices(row)[Number(event.key) - 1];
    if (one && one.decision !== "backoff") act.correct(row, one.id);
  } else if (["0", "Delete", "Backspace"].includes(event.key) && row) {
    act.correct(row, null);
  } else if (event.key === "Enter" && event.target === cards.get(row?.image)?.group) {
    act.open(place);
  } else return;
  event.preventDefault();
}

/** The row of an image changed (a correction): paint its card again. */
export function refresh(image) {
  const card = cards.get(image);
  const row = card && rows.get(card.place);
  if (row) paint(card, row);
}
