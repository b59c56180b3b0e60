// Thumbnails as blob URLs: a few at a time, newest wish first, the least used forgotten.

import { ask } from "./api.js";

const AT_ONCE = 6;
const KEPT = 600;
const known = new Map(); // image id -> blob URL, least used first
const wishes = new Map(); // image id -> img elements that want it
let running = 0;

function keep(id, url) {
  known.set(id, url);
  while (known.size > KEPT) {
    const [oldest, old] = known.entries().next().value;
    known.delete(oldest);
    URL.revokeObjectURL(old);
  }
}

async function fetchOne(id) {
  running += 1;
  try {
    const url = URL.createObjectURL(await (await ask(`/api/thumb/${encodeURIComponent(id)}`)).blob());
    keep(id, url);
    for (const img of wishes.get(id) || []) if (img.dataset.image === id) img.src = url;
  } catch {
    for (const img of wishes.get(id) || []) img.dataset.missing = "";
  } finally {
    wishes.delete(id);
    running -= 1;
    work();
  }
}

const started = new Set();

function work() {
  for (const id of [...wishes.keys()].reverse()) {
    if (running >= AT_ONCE) return;
    if (started.has(id)) continue;
    const wanted = [...wishes.get(id)].some((img) => img.isConnected && img.dataset.image === id);
    if (!wanted) {
      wishes.delete(id); // scrolled away before its turn came
      continue;
    }
    started.add(id);
    fetchOne(id).finally(() => started.delete(id));
  }
}

/** Show image `id` in `img`, now or as soon as it is here. */
export function picture(img, id) {
  if (img.dataset.image === id && img.src) return;
  img.dataset.image = id;
  delete img.dataset.missing;
  const url = known.get(id);
  if (url) {
    known.delete(id);
    known.set(id, url);
    img.src = url;
    return;
  }
  img.removeAttribute("src");
  if (!wishes.has(id)) wishes.set(id, new Set());
  wishes.get(id).add(img);
  queueMicrotask(work); // after the caller has put the element into the page
}

export function forget(id) {
  const url = known.get(id);
  if (url) URL.revokeObjectURL(url);
  known.delete(id);
}
