// Photos come in: chosen, dropped (folders too) or pasted; a few files a request, one at a time.

import { ask, asked, words } from "./api.js";
import { $, count, el, say, write } from "./dom.js";

const FILES = 8;
let act = {};
const waiting = [];
let busy = false;
let done = 0;

export function start(given) {
  act = given;
  const files = $("files");
  for (const id of ["add-photos", "add-photos-too"]) $(id).addEventListener("click", () => files.click());
  files.addEventListener("change", () => {
    take([...files.files]);
    files.value = "";
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files || [])];
    if (pasted.length) take(pasted);
  });
  $("refused-close").addEventListener("click", () => {
    $("refused").hidden = true;
    $("refused-list").replaceChildren();
    $("add-photos").focus();
  });
  startDrop();
}

const withFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");

function startDrop() {
  let depth = 0;
  const cover = (on) => {
    $("drop").hidden = !on;
  };
  document.addEventListener("dragenter", (event) => {
    if (!withFiles(event)) return;
    depth += 1;
    cover(true);
  });
  document.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) cover(false);
  });
  document.addEventListener("dragover", (event) => {
    if (withFiles(event)) event.preventDefault();
  });
  document.addEventListener("drop", async (event) => {
    depth = 0;
    cover(false);
    if (!withFiles(event)) return;
    event.preventDefault();
    // Entries must be taken before the first await: the list is emptied after the event.
    const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
    const entries = items.map((item) => item.webkitGetAsEntry?.() || item.getAsFile());
    take((await Promise.all(entries.map(inside))).flat());
  });
}

/** The files of a dropped entry; a folder is walked through. */
async function inside(entry) {
  if (!entry) return [];
  if (entry instanceof File) return [entry];
  if (entry.isFile) return [await new Promise((good, bad) => entry.file(good, bad))].filter(Boolean);
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((good, bad) => reader.readEntries(good, bad));
    if (!some.length) break;
    found.push(...some);
  }
  found.sort((a, b) => (a.name < b.name ? -1 : 1));
  return (await Promise.all(found.filter((one) => !one.name.startsWith(".")).map(inside))).flat();
}

/** Add files to the list of those that were not taken, with the reasons. */
export function refuse(list) {
  if (!list.length) return;
  $("refused-list").append(...list.map((one) => el("li", {},
    el("b", { dir: "auto", text: one.name }), el("span", { text: words(one.error) }))));
  write($("refused-title"), `${count($("refused-list").children.length, "file")} not taken`);
  $("refused").hidden = false;
}

function megabytes(bytes) {
  return `${Math.round(bytes / 1e5) / 10} MB`;
}

/** Queue files; those that are too large are refused without being sent. */
export function take(files) {
  const most = act.limits().upload_bytes;
  const large = files.filter((file) => file.size > most);
  refuse(large.map((file) => ({
    name: file.name, error: `${megabytes(file.size)} is more than the ${megabytes(most)} that are taken. Make it smaller, or start with a larger --max-upload-mb.`,
  })));
  waiting.push(...files.filter((file) => file.size <= most));
  if (!busy) work();
}

function batch() {
  const some = [];
  let bytes = 0;
  while (waiting.length && some.length < FILES && bytes + waiting[0].size <= act.limits().upload_bytes) {
    bytes += waiting[0].size;
    some.push(waiting.shift());
  }
  return some;
}

async function work() {
  busy = true;
  done = 0;
  let added = 0;
  let refused = 0;
  while (waiting.length) {
    act.progress("Adding photos", done, done + waiting.length);
    const some = batch();
    const form = new FormData();
    for (const file of some) form.append("files", file, file.name);
    try {
      const said = await (await ask("/api/images", { method: "POST", form, tries: 12 })).json();
      added += said.added.length;
      refused += said.refused.length;
      refuse(said.refused);
    } catch (error) {
      // What the server took and refused before the error stands beside it, in the order sent.
      const before = { added: error.body?.added ?? [], refused: error.body?.refused ?? [] };
      const rest = some.slice(before.added.length + before.refused.length);
      added += before.added.length;
      refused += before.refused.length + rest.length;
      refuse([...before.refused, ...rest.map((file) => ({ name: file.name, error: error.message }))]);
      if (error.status === 0 || error.status === 401) waiting.length = 0;
    }
    done += some.length;
    act.added(added);
  }
  busy = false;
  act.progress("", 0, 0);
  const left = refused ? `, ${refused} not taken` : "";
  say(`${count(added, "photo")} added${left}.`);
}

/** Wait for the start folder: report how far it is until it is done. */
export async function watch() {
  for (let before = -1; ;) {
    const now = await asked("/api/progress");
    if (!(now.done < now.total)) {
      if (before >= 0) {
        act.progress("", 0, 0);
        act.added(now.done);
        say("All photos are here.");
      }
      return;
    }
    act.progress(now.what || "Reading photos", now.done, now.total);
    if (now.done > before) act.added(now.done);
    before = now.done;
    await new Promise((next) => setTimeout(next, 700));
  }
}
