// Small helpers. Every text goes in through textContent: names and files are other people's.

export const $ = (id) => document.getElementById(id);

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "textContent", "tabIndex"]);

/** An element with attributes, properties, listeners (onclick: f) and children. */
export function el(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(key.slice(2), value);
    else if (key === "text") node.textContent = value;
    else if (key === "class") node.className = value;
    else if (PROPERTIES.has(key)) node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Write only what changed: the screen stays still and the reader silent. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function mark(node, name, value) {
  if (value === null || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** A length in a custom property; the policy allows this, and no style attribute. */
export function length(node, name, share) {
  const value = `${Math.round(1000 * Math.min(1, Math.max(0, share ?? 0))) / 10}%`;
  if (node.style.getPropertyValue(name) !== value) node.style.setProperty(name, value);
}

export function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(share)) return "–";
  if (share > 0 && share < 0.005) return "<1 %";
  if (share < 1 && share > 0.995) return ">99 %";
  return `${Math.round(100 * share)} %`;
}

export function count(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

export function later(wait, act) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait);
  };
}

/** Replace the options of a select, keeping its choice; pairs of value and text. */
export function fill(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => el("option", { value, text })));
  select.value = chosen;
}

let quiet = 0;

/** Say something to everyone: shown for a while, and read aloud. */
export function say(text) {
  const box = $("said");
  // The same words twice are two events for a screen reader only if they differ.
  box.textContent = box.textContent === text ? `${text}\u00a0` : text;
  box.classList.add("on");
  clearTimeout(quiet);
  quiet = setTimeout(() => box.classList.remove("on"), 3500);
}

export function trouble(error) {
  write($("trouble-text"), error?.message || String(error));
  $("trouble").hidden = false;
}

export function calm() {
  $("trouble").hidden = true;
}
