"use strict";
// Everything from outside is set as text, never as markup: the policy of the page forbids it too.
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const { classes, images } = JSON.parse(byId("data").textContent);

  function el(tag, options = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(options)) {
      if (key === "class") made.className = value;
      else made.setAttribute(key, value);
    }
    made.append(...children.filter((one) => one !== null && one !== undefined));
    return made;
  }
  const bdi = (text) => el("bdi", {}, text);
  const percent = (x) => (x === null ? "–" : `${Math.round(100 * x)}%`);
  const fine = (x) => (x === null ? "–" : `${(100 * x).toFixed(1)}%`);
  const number = (x) => (x === null ? "–" : String(Number(x.toPrecision(4))));
  const say = (text) => { byId("said").textContent = text; };
  const whole = (x) => Math.min(100, Math.max(0, Math.round(100 * x)));

  // -- theme
  const theme = byId("theme");
  const choices = ["auto", "light", "dark"];
  const shownTheme = () => document.documentElement.dataset.theme || "auto";
  const nameTheme = () => { theme.textContent = `Theme: ${shownTheme()}`; };
  theme.hidden = false;
  nameTheme();
  theme.addEventListener("click", () => {
    const next = choices[(choices.indexOf(shownTheme()) + 1) % choices.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try { localStorage.setItem("byname-theme", next); } catch (error) { /* not stored, still shown */ }
    nameTheme();
  });
  for (const one of all(".js")) one.hidden = false;

  // -- pictures are in the file once
  const sources = new Map(all("img[data-first]").map((one) => [one.dataset.first, one.src]));
  for (const one of all("img[data-again]")) one.src = sources.get(one.dataset.again) || one.src;

  // -- copying
  async function copy(text, button) {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch (error) {
      const area = el("textarea", { class: "hidden", "aria-hidden": "true" });
      area.value = text;
      button.after(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = done ? "Copied" : "Select it";
    say(done ? "Copied" : "Could not copy: select the text instead");
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button.parentElement.querySelector("code").textContent, button);
  });

  // -- dialog
  const dialog = byId("dialog");
  const seen = [];
  function show(kind, k, again = false) {
    if (kind === "class" ? !classes[k] : !images[k]) return;
    if (!again) seen.push([kind, k]);
    const [title, ...body] = kind === "class" ? classBody(k) : imageBody(k);
    byId("dialog-title").replaceChildren(bdi(title));
    byId("dialog-body").replaceChildren(...body.filter((one) => one));
    byId("dialog-back").hidden = seen.length < 2;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    byId("dialog-title").focus();
  }
  byId("dialog-close").addEventListener("click", () => dialog.close());
  byId("dialog-back").addEventListener("click", () => { seen.pop(); show(...seen.at(-1), true); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { seen.length = 0; });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-class], a[data-image]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (link.dataset.image !== undefined) show("image", Number(link.dataset.image));
    else show("class", Number(link.dataset.class));
  });

  function classLink(k) {
    const one = classes[k];
    return one ? el("a", { href: `#c-${k}`, "data-class": k }, bdi(one.name)) : bdi("–");
  }
  function picture(i) {
    const one = images[i];
    const source = sources.get(String(i));
    if (!source) return el("span", { class: "nopicture" }, bdi(one.file));
    return el("img", { src: source, alt: `${one.file}, answered ${one.label}` });
  }
  function thumb(i) {
    return el("a", { class: "thumb", href: `#i-${i}`, "data-image": i }, picture(i),
      el("span", { class: "caption" }, percent(images[i].p)));
  }
  function facts(rows) {
    const list = el("dl", { class: "facts" });
    for (const [name, value] of rows) {
      if (value !== null && value !== undefined && value !== "") list.append(el("dt", {}, name), el("dd", {}, value));
    }
    return list;
  }
  function table(label, head, rows) {
    const made = el("table", { class: "texts" },
      el("thead", {}, el("tr", {}, ...head.map((name, i) => el("th", i ? { scope: "col", class: "num" } : { scope: "col" }, name)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, i) =>
        (i ? el("td", { class: "num" }, cell) : el("th", { scope: "row" }, cell)))))));
    return el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, made);
  }
  function chances(rows) {
    return el("ul", { class: "chances" }, ...rows.map(([k, share]) => el("li", {},
      el("span", {}, classLink(k)),
      el("span", { class: "bar", "aria-hidden": "true" }, el("i", { class: `w${whole(share)}` })),
      el("span", {}, fine(share)))));
  }
  const tones = { right: "good", above: "above", wrong: "wrong" };
  const heading = (text) => el("h3", {}, text);

  function classBody(k) {
    const one = classes[k];
    const [n, accuracy, precision] = one.truth || [null, null, null];
    const limits = one.interval ? ` (${percent(one.interval[0])}–${percent(one.interval[1])})` : "";
    const parts = [one.name, facts([
      ["Id", bdi(one.id)],
      ["Under", one.where && bdi(one.where)],
      ["Flag", one.flag],
      ["Expected accuracy", percent(one.expected) + limits],
      ["True accuracy", n === null ? null : `${percent(accuracy)} of ${n} labelled`],
      ["Precision", n === null ? null : percent(precision)],
      ["Answered so", `${one.n} image${one.n === 1 ? "" : "s"}, ${fine(one.share)} of all`],
      ["CMM", number(one.cmm)],
    ])];
    if (one.images.length) parts.push(heading("Typical and doubtful images"), el("div", { class: "thumbs" }, ...one.images.map(thumb)));
    if (one.confusions.length) {
      const truth = one.confusions.some((c) => c[2] !== null);
      parts.push(heading("Closest classes"), table("Closest classes",
        truth ? ["Class", "Share", "True share"] : ["Class", "Share"],
        one.confusions.map(([to, share, real, contrast]) => {
          const told = contrast.map((text) => el("small", { class: "dim" }, bdi(text)));
          const first = el("span", {}, classLink(to), ...told);
          return truth ? [first, percent(share), percent(real)] : [first, percent(share)];
        })));
    }
    if (one.texts.length) {
      parts.push(heading("Prompts"), table("Prompts", ["Prompt", "Weight", "Changes", "Effect"],
        one.texts.map(([text, kind, weight, changes, effect]) => [
          el("span", {}, bdi(text), kind ? el("small", { class: "dim" }, kind) : null),
          number(weight), fine(changes), number(effect)])));
    }
    if (one.next) {
      parts.push(heading("Next step"), el("div", { class: "command" },
        el("pre", { tabindex: "0" }, el("code", {}, one.next)),
        el("button", { type: "button", class: "copy", "data-copy": "" }, "Copy")));
    }
    return parts;
  }

  function pieces(label, rows) {
    const most = Math.max(...rows.map((row) => Math.abs(row[3] || 0)), 1e-30);
    const length = (part) => el("span", { class: "bar part", "aria-hidden": "true" },
      el("i", { class: `w${whole(Math.abs(part) / most)}` }));
    return table(label, ["Prompt", "Adds", "Cosine", "Weight"], rows.map(([text, weight, cosine, part]) => [
      el("span", {}, bdi(text), part === null ? null : length(part)),
      number(part), number(cosine), number(weight)]));
  }
  function imageBody(i) {
    const one = images[i];
    const label = one.k === null ? bdi(one.label) : classLink(one.k);
    const truth = one.true === null ? null : el("span", {}, classLink(one.true), " ",
      el("span", { class: tones[one.outcome] || "" }, one.outcome === "above" ? "the answer is a group above it" : one.outcome || ""));
    const parts = [one.file, el("div", { class: "lead" }, picture(i), facts([
      ["Answer", label],
      ["Probability", fine(one.p)],
      ["Margin", fine(one.margin)],
      ["Decision", one.decision],
      ["True class", truth],
      ["Shown as", one.about.join(", ")],
    ])), heading("Most probable classes"), chances(one.top)];
    if (one.why.length) parts.push(heading("Why this label"),
      el("p", { class: "dim small" }, "What the prompts add to the score, the largest parts first."), pieces("Why this label", one.why));
    if (one.whyNot.length && one.against !== null) {
      parts.push(el("h3", {}, "Why not ", bdi(classes[one.against].name)), pieces("Why not the next", one.whyNot));
    }
    return parts;
  }

  // -- table: sorting and filtering
  const rows = all("#table tbody tr");
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  all("#table thead th").forEach((head, column) => {
    const button = el("button", { type: "button" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of all("#table thead th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const numeric = head.dataset.by === "number";
      const keyed = rows.map((row) => [row.cells[column].dataset.v, row]);
      keyed.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = numeric ? Number(a) - Number(b) : collator.compare(a, b);
        return up ? order : -order;
      });
      document.querySelector("#table tbody").append(...keyed.map(([, row]) => row));
    });
  });
  const plain = (text) => text.normalize("NFKC").toLocaleLowerCase();
  function filtered(form, items, texts, test, count, noun) {
    if (!form) return;
    const apply = () => {
      let shown = 0;
      items.forEach((item, i) => {
        const keep = test(texts[i], i);
        item.hidden = !keep;
        shown += keep;
      });
      count.textContent = `${shown} of ${items.length} ${noun}`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }
  const value = (id) => (byId(id) ? byId(id).value : "");
  const places = rows.map((row) => Number(row.id.slice(2)));
  filtered(byId("filter"), rows, places.map((k) => plain(`${classes[k].name} ${classes[k].id} ${classes[k].where}`)),
    (text, i) => text.includes(plain(value("filter-text"))) &&
      (!value("filter-flag") || classes[places[i]].flag === value("filter-flag")),
    byId("filter-count"), "classes");
  const tiles = all("#gallery > li");
  filtered(byId("gallery-filter"), tiles, images.map((one) => plain(`${one.file} ${one.label}`)),
    (text, i) => {
      const [reason, truth, one] = [value("gallery-reason"), value("gallery-truth"), images[i]];
      if (reason && !one.about.includes(reason)) return false;
      if (truth && one.outcome !== truth) return false;
      return text.includes(plain(value("gallery-text")));
    }, byId("gallery-count"), "images");

  // -- tree, print, and where one is
  for (const button of all("[data-tree]")) {
    button.addEventListener("click", () => {
      const open = button.dataset.tree === "open";
      const nodes = all("#tree details");
      nodes.forEach((node, i) => { node.open = open || i === 0; });
    });
  }
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
  const links = new Map(all(".sections a").map((one) => [one.hash.slice(1), one]));
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const one of links.values()) one.removeAttribute("aria-current");
      const link = links.get(entry.target.id);
      if (!link) continue;
      link.setAttribute("aria-current", "true");
      const list = link.closest("ul");
      list.scrollLeft = link.offsetLeft - list.offsetLeft - 40;
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const one of all("main > section")) watch.observe(one);
})();
