// The only door to the server. The token comes from the page's own address and leaves it at once.

const KEY = "byname-token";
const here = new URL(location.href);
let token = here.searchParams.get("token") || "";
if (token) {
  here.searchParams.delete("token");
  history.replaceState(null, "", here);
}
try {
  // A reload of this tab would lose the token otherwise; other tabs and sites cannot read it.
  if (token) sessionStorage.setItem(KEY, token);
  else token = sessionStorage.getItem(KEY) || "";
} catch {
  // Storage may be forbidden: then a reload asks for the printed address again.
}

export class Refused extends Error {
  constructor(status, words, body = null) {
    super(words);
    this.status = status;
    this.body = body; // what came beside the error: files that were taken before it
  }
}

/** What the server says of an error, as one line: what was seen and what to do. */
export function words(error) {
  if (typeof error === "string") return error;
  if (!error) return "It failed, and the server did not say why.";
  const parts = [error.asked, error.seen, error.do].filter(Boolean).map((part) => String(part).trim());
  return parts.map((part) => (/[.!?]$/.test(part) ? part : `${part}.`)).join(" ");
}

const pause = (wait) => new Promise((done) => setTimeout(done, wait));

export async function ask(path, { method = "GET", json, form, signal, tries = 4 } = {}) {
  const headers = { "X-Byname-Token": token };
  let body = form;
  if (json !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(json);
  }
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is byname serve still running? Start it again and open the address it prints.");
  }
  if (answer.ok) return answer;
  if ((answer.status === 429 || answer.status === 503) && tries > 0) {
    await pause(250 * (5 - tries));
    return ask(path, { method, json, form, signal, tries: tries - 1 });
  }
  if (answer.status === 401) {
    throw new Refused(401, "This page does not have the key of the running server. Open the address that byname serve printed, with its token.");
  }
  if (answer.status === 503) throw new Refused(503, "The server has too many connections. Try again in a moment.");
  const said = await answer.json().catch(() => null);
  throw new Refused(answer.status, words(said?.error), said);
}

export const asked = async (path, how) => (await ask(path, how)).json();

/** Fetch a file with the token, and hand it to the browser's downloads. */
export async function download(path, name) {
  const blob = await (await ask(path)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
