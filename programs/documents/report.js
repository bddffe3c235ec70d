"use strict";
// Everything that a document or a model says becomes a text node: no HTML is made from strings.
(() => {
const job = JSON.parse(document.getElementById("data").textContent);
const [table, detail, viewer] = ["table", "detail", "viewer"].map((id) => document.getElementById(id));
const CHUNK = 4000;  // characters that are laid out together, when they come near the window
const MARKED_CONTROLS = 100;  // in one chunk; further ones are left to themselves, so that no text is slow to open
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;
const GRADES = {
  exact: ["✓", "found word for word"],
  folded: ["✓", "found"],
  different: ["≠", "different: the document does not say it so"],
  absent: ["✕", "not found in the document"],
};
const KINDS = { unread: "not read", hidden: "hidden", doubtful: "doubtful", note: "" };

// --- nodes ---

const make = (tag, attributes, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) node.setAttribute(name, value);
  }
  for (const child of children.flat()) {
    if (child !== null) node.append(typeof child === "string" ? written(child) : child);
  }
  return node;
};

/** A text whose controls are shown by their numbers; each is isolated, so that it turns nothing around it. */
const written = (text) => {
  const parts = document.createDocumentFragment();
  let place = 0;
  for (const match of [...text.matchAll(CONTROL)].slice(0, MARKED_CONTROLS)) {
    const code = "U+" + match[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    const control = document.createElement("span");
    control.className = "control";
    control.dataset.code = code;
    control.textContent = match[0];
    parts.append(text.slice(place, match.index), control);
    place = match.index + 1;
  }
  parts.append(text.slice(place));
  return parts;
};

const bdi = (text) => make("bdi", {}, text);
const list = (items) => items.length ? make("ul", {}, items.map((item) => make("li", { dir: "auto" }, item))) : null;
const closed = (title, ...children) => make("details", {}, make("summary", {}, title), children);

// --- addresses: #doc=NAME&q=ID&c=NUMBER ---

const decoded = (key) => {
  try {
    return decodeURIComponent(key);
  } catch {
    return key;  // of a name that no encoding takes
  }
};
const named = (things, key) => things.findIndex((thing) => thing.key === key || decoded(thing.key) === decoded(key));
const address = (d, q, c) =>
  `#doc=${job.documents[d].key}` + (q === null ? "" : `&q=${job.questions[q].key}`) + (c === null ? "" : `&c=${c + 1}`);

const addressed = () => {
  const parts = new Map(location.hash.slice(1).split("&").map((part) => {
    const at = part.indexOf("=");
    return [part.slice(0, at), part.slice(at + 1)];
  }));
  if (!parts.has("doc")) return { d: null, q: null, c: null };
  const d = named(job.documents, parts.get("doc"));
  const q = parts.has("q") ? named(job.questions, parts.get("q")) : null;
  const c = parts.has("c") ? Number(parts.get("c")) - 1 : null;
  return { d, q, c };
};

// --- an answer ---

const standingLine = (row) => {
  const [sign, word] = job.signs[row ? row.standing : "not asked"];
  return make("p", { class: "standing " + (row ? row.standing.replace(" ", "-") : "not-asked") },
    make("i", { "aria-hidden": "true" }, sign), ` ${word}`, row && row.support ? `, ${row.support}` : null);
};

const costList = (answer) => make("dl", { class: "cost" },
  [["effort", answer.effort], ["confidence", answer.confidence ?? "not given"], ...answer.cost,
    ["read in", answer.parts === 1 ? "one piece" : `${answer.parts} parts`]]
    .map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, bdi(value)))));

const traceDetails = (answer) => {
  const shown = closed("Trace");
  shown.className = "trace";
  shown.addEventListener("toggle", () => {
    if (shown.open && shown.children.length === 1) shown.append(make("pre", { dir: "auto" }, answer.trace));
  });
  return shown;
};

/** What "not in the document" must be read with. */
const qualification = (d) => {
  const { unread, coverage } = job.documents[d];
  return make("div", { class: unread.length ? "notice" : "quiet" },
    make("p", {}, unread.length
      ? "The document does not say it where it was read. These parts were not read:"
      : "The document does not say it. No part of it is known to be unread."),
    list(unread), make("p", { class: "coverage muted", dir: "auto" }, coverage));
};

const difference = (pieces) => pieces.map(([side, text]) =>
  side === "both" ? text : make(side === "quote" ? "del" : "ins", {}, text));

const placeOf = (citation) => [
  citation.page === null ? null : `page ${citation.page}`,
  citation.label && citation.label !== String(citation.page) ? `printed ${citation.label}` : null,
  citation.line === null ? null : `line ${citation.line}`,
  citation.places > 1 ? `the first of ${citation.places} places` : null,
].filter((part) => part !== null).join(", ");

const citationItem = (citation, d, q, c) => {
  const [sign, word] = GRADES[citation.grade];
  const found = citation.start !== null;
  const how = citation.grade === "folded" ? `${word}; only ${citation.rules.join(", ")} differs` : word;
  const differs = citation.difference.length > 0;
  return make("li", {}, make(found ? "a" : "div",
    { class: `citation ${citation.grade}`, href: found ? address(d, q, c) : null, "data-c": c },
    make("p", { class: "grade" }, make("i", { "aria-hidden": "true" }, sign), ` ${how}`),
    make("blockquote", { dir: "auto" }, differs ? difference(citation.difference) : citation.quote),
    differs ? make("p", { class: "muted" }, make("del", {}, "only in the quote"), " ",
      make("ins", {}, "only in the document")) : null,
    found ? make("p", { class: "place" }, placeOf(citation)) : null,
    citation.hint ? make("p", { class: "hint", dir: "auto" }, citation.hint) : null));
};

const answerBody = (d, q) => {
  const row = job.rows[d][q];
  const question = make("h3", { class: "question", dir: "auto" }, job.questions[q].text);
  if (!row || !row.answer) {
    return [question, standingLine(row), row ? make("p", { class: "notice", dir: "auto" }, row.failure) : null];
  }
  const { answer } = row;
  return [
    question, standingLine(row),
    make("pre", { class: "answer", dir: "auto" }, answer.text),
    answer.value === null || answer.value === answer.text ? null
      : closed("Value", make("pre", { dir: "auto" }, answer.value)),
    row.standing === "not found" ? qualification(d) : null,
    row.standing === "unsupported"
      ? make("p", { class: "notice" }, "Nothing in the document is shown to support this answer.") : null,
    list(answer.remarks),
    answer.citations.length ? make("h4", {}, "Evidence") : null,
    make("ol", { class: "citations" }, answer.citations.map((citation, c) => citationItem(citation, d, q, c))),
    make("h4", {}, "Cost"), costList(answer),
    answer.trace === null ? null : traceDetails(answer),
  ];
};

// --- a document ---

let view = null;  // { d, text, chunks, pages, lit } of the one that is open

const remarkText = (remark, placed) => {
  const kind = KINDS[remark.kind];
  const what = remark.what.includes(kind) ? remark.what : `${kind}: ${remark.what}`;
  return placed || !remark.place ? what : `${remark.place}: ${what}`;
};

const remarkItem = (remark, placed) => make("div", { class: `remark ${remark.kind}` },
  make("p", { dir: "auto" }, remarkText(remark, placed)),
  remark.text ? closed("What it says", make("pre", { dir: "auto" }, remark.text)) : null);

const image = (link, title) => make("a", { class: "image", href: link, target: "_blank", rel: "noopener noreferrer" },
  make("img", { src: link, alt: title, loading: "lazy" }), make("span", {}, title));

const divider = (page, label, about) => {
  const unread = about.remarks.filter((remark) => remark.page === page && remark.kind === "unread");
  const others = about.remarks.filter((remark) => remark.page === page && remark.kind !== "unread");
  const title = `page ${page}` + (label && label !== String(page) ? `, printed ${label}` : "");
  const heading = make("h3", { class: unread.length ? "divider unread" : "divider", dir: "auto" },
    [title, ...unread.map((remark) => remarkText(remark, true))].join(": "));
  const images = (about.images[page] ?? []).map((link) => image(link, `Image of page ${page}`));
  return [heading, ...images, ...others.map((remark) => remarkItem(remark, true))];
};

/** Where to cut text[start:end] into chunks: after a line, else at a space, never within a character. */
const cuts = (text, start, end) => {
  const places = [];
  while (end - start > CHUNK * 1.5) {
    const piece = text.slice(start, start + CHUNK);
    let length = piece.lastIndexOf("\n") + 1 || piece.lastIndexOf(" ") + 1 || CHUNK;
    if (length === CHUNK && /[\ud800-\udbff]$/.test(piece)) length -= 1;
    places.push([start, start + length]);
    start += length;
  }
  if (start < end) places.push([start, end]);
  return places;
};

const fill = (chunk, spans) => {
  const touching = spans.filter((span) => span.start < chunk.end && span.end > chunk.start);
  const edges = new Set([chunk.start, chunk.end]);
  for (const { start, end } of [...touching, ...chunk.headings]) {
    edges.add(Math.max(start, chunk.start)).add(Math.min(end, chunk.end));
  }
  const places = [...edges].sort((one, other) => one - other);
  const covers = (start, end) => (span) => span.start <= start && span.end >= end;
  chunk.element.replaceChildren(...places.slice(1).map((end, index) => {
    const piece = view.text.slice(places[index], end);
    const over = touching.filter(covers(places[index], end));
    const heading = chunk.headings.some(covers(places[index], end));
    if (!over.length) return heading ? make("b", {}, piece) : written(piece);
    const first = over.find((span) => span.current) ?? over[0];
    return make("mark", {
      class: [first.grade, first.current ? "current" : "", heading ? "heading" : ""].join(" ").trim(),
      "data-citations": over.map((span) => span.c + 1).join(" "),
    }, piece);
  }));
};

const openDocument = (d) => {
  if (view && view.d === d) return;
  const about = job.documents[d];
  const text = JSON.parse(document.getElementById(`text-${d}`).textContent);
  view = { d, text, chunks: [], pages: new Map(), lit: [] };
  const body = make("div", { class: about.format === "text" ? "text plain" : "text", tabindex: "0", role: "region", "aria-label": "Text of the document" });
  body.append(...about.remarks.filter((remark) => remark.page === null).map((remark) => remarkItem(remark, false)),
    ...(about.images[""] ?? []).map((link, n) => image(link, `Image ${n + 1} of what was not read`)));
  let h = 0;
  for (const block of about.blocks) {
    const section = make("section", { class: "page", "data-page": block.page });
    if (block.page !== null) {
      section.append(...divider(block.page, block.label, about));
      view.pages.set(block.page, section);
    }
    for (const [start, end] of cuts(text, block.start, block.end)) {
      while (h < about.headings.length && about.headings[h][1] <= start) h += 1;
      const headings = [];
      for (let n = h; n < about.headings.length && about.headings[n][0] < end; n += 1) {
        headings.push({ start: about.headings[n][0], end: about.headings[n][1] });
      }
      const chunk = { start, end, headings, element: make("div", { class: "chunk" }) };
      const lines = text.slice(start, end).split("\n").reduce((sum, line) => sum + 1 + Math.floor(line.length / 80), 0);
      chunk.element.style.containIntrinsicSize = `auto ${Math.round(lines * 1.5)}em`;
      fill(chunk, []);
      view.chunks.push(chunk);
      section.append(chunk.element);
    }
    body.append(section);
  }
  viewer.replaceChildren(documentBar(about), body);
};

const documentBar = (about) => {
  const pages = [...view.pages.keys()];
  const input = make("input", { type: "number", min: pages[0] ?? 1, max: pages.at(-1) ?? 1, "aria-label": "Go to page",
    placeholder: "page" });
  input.addEventListener("change", () => {
    const page = view.pages.get(Number(input.value));
    if (page) reveal(page, "start");
  });
  return make("div", { class: "bar" },
    make("h2", {}, make("a", { href: address(view.d, null, null) }, bdi(about.name))),
    pages.length > 1 ? input : null,
    make("p", { class: about.unread.length ? "coverage warned" : "coverage muted", tabindex: "0", dir: "auto" },
      about.coverage));
};

/** Shows all quotes of an answer in the open document, and the chosen one above the rest. */
const highlight = (citations, chosen) => {
  const spans = citations
    .map((citation, c) => ({ start: citation.start, end: citation.end, grade: citation.grade, c, current: c === chosen }))
    .filter((span) => span.start !== null && span.start < span.end);
  const touched = view.chunks.filter((chunk) => spans.some((span) => span.start < chunk.end && span.end > chunk.start));
  for (const chunk of new Set([...view.lit, ...touched])) fill(chunk, spans);
  view.lit = touched;
  const target = viewer.querySelector(chosen === null ? "mark" : "mark.current");
  if (target) reveal(target, "center");
};

/** Once more after the layout, which until then has only guessed how high the text before it is. */
const reveal = (node, block) => {
  node.scrollIntoView({ block });
  requestAnimationFrame(() => {
    node.scrollIntoView({ block });
    requestAnimationFrame(() => node.scrollIntoView({ block }));
  });
};

// --- what the address says ---

const bar = (title) => {
  const step = (by) => {
    const shown = cells.filter((cell) => !cell.hidden());
    const { d, q } = addressed();
    const here = shown.findIndex((cell) => cell.d === d && cell.q === q);
    const next = shown[here < 0 ? 0 : here + by];
    if (next) go(address(next.d, next.q, null));
  };
  const button = (text, act) => {
    const made = make("button", { type: "button" }, text);
    made.addEventListener("click", act);
    return made;
  };
  return make("div", { class: "bar" }, title,
    make("span", { class: "buttons" }, button("‹ previous", () => step(-1)), button("next ›", () => step(1)),
      button("close", close)));
};

const close = () => {
  go("");
  const last = table.querySelector("a[tabindex='0']");
  if (last) last.focus();
};

const documentBody = (d) => {
  const about = job.documents[d];
  return [
    make("p", { class: "muted" }, `${about.format}, SHA-256 `, make("code", {}, about.sha256)),
    make("h4", {}, "What was read"), make("p", { dir: "auto" }, about.coverage),
    ...about.remarks.map((remark) => remarkItem(remark, false)),
    make("h4", {}, "Answers"),
    make("ul", { class: "answers" }, job.questions.map((question, q) => make("li", {},
      make("a", { href: address(d, q, null), dir: "auto" }, question.text), standingLine(job.rows[d][q])))),
  ];
};

let shownHash = null;
const go = (hash) => {
  location.hash = hash;
  show();
};

let shownRow = null;  // what the detail shows, so that going from quote to quote leaves it where it is scrolled to

const show = () => {
  shownHash = location.hash;
  const { d, q, c } = addressed();
  for (const cell of table.querySelectorAll("[aria-current]")) cell.removeAttribute("aria-current");
  document.body.classList.toggle("open", d !== null);
  detail.hidden = viewer.hidden = d === null;
  if (d === null) {
    shownRow = null;
    return;
  }
  if (d < 0 || (q !== null && q < 0)) {
    viewer.hidden = true;
    shownRow = null;
    detail.replaceChildren(bar(make("p", { class: "notice" }, "This report does not hold what the address names.")));
    return;
  }
  openDocument(d);
  const place = `${d} ${q}`;
  if (shownRow !== place) {
    const question = q === null ? null : job.questions[q];
    const title = make("h2", {}, bdi(job.documents[d].name),
      question ? make("span", { class: "muted" }, " · ", bdi(question.id), ` · ${question.output}`) : null);
    detail.replaceChildren(bar(title), ...(q === null ? documentBody(d) : answerBody(d, q)).filter((part) => part));
    detail.scrollTop = 0;
    shownRow = place;
    if (matchMedia("(max-width: 60rem)").matches) detail.scrollIntoView();
  }
  for (const citation of detail.querySelectorAll(".citation")) {
    if (Number(citation.dataset.c) === c) citation.setAttribute("aria-current", "true");
    else citation.removeAttribute("aria-current");
  }
  const cell = cells.find((one) => one.d === d && one.q === q);
  if (cell) {
    cell.link.setAttribute("aria-current", "true");
    cell.link.scrollIntoView({ block: "nearest", inline: "nearest" });
    rove(cell.link);
  }
  const row = q === null ? null : job.rows[d][q];
  highlight(row && row.answer ? row.answer.citations : [], c);
};

// --- the table: filters and keys ---

const cells = [...table.querySelectorAll("a.cell")].map((link) => {
  const d = Number(link.closest("tr").dataset.d), q = Number(link.parentNode.dataset.q);
  const row = job.rows[d][q];
  const answer = row ? (row.answer ? row.answer.text : row.failure) : "";
  const words = [job.documents[d].name, job.questions[q].id, job.questions[q].text, answer].join("\n").toLowerCase();
  const td = link.parentNode;
  return { d, q, link, td, words, standing: row ? row.standing : "not asked", hidden: () => td.classList.contains("out") };
});
const heads = [...table.querySelectorAll("thead [data-q]")];
for (const { q, td } of cells) {
  td.dataset.question = [...heads[q].children].map((part) => part.textContent).join(": ");
}
const lines = [...table.querySelectorAll("tbody tr")];
const filters = document.getElementById("filters");
const [search, byDocument, byQuestion] = ["search", "by-document", "by-question"].map((id) => document.getElementById(id));

const filter = () => {
  const sought = search.value.trim().toLowerCase();
  const standing = filters.elements.standing.value;
  const rows = new Set(), columns = new Set();
  let count = 0;
  for (const cell of cells) {
    const fits = (!byDocument.value || cell.d === Number(byDocument.value))
      && (!byQuestion.value || cell.q === Number(byQuestion.value))
      && (!standing || cell.standing === standing) && cell.words.includes(sought);
    cell.td.classList.toggle("out", !fits);
    if (fits) {
      rows.add(cell.d);
      columns.add(cell.q);
      count += 1;
    }
  }
  const all = count === cells.length;
  table.classList.toggle("listed", Boolean(sought || standing));
  for (const line of lines) {
    const unreadable = line.classList.contains("unreadable");
    line.hidden = unreadable
      ? Boolean(byDocument.value || byQuestion.value || standing) || !line.textContent.toLowerCase().includes(sought)
      : !all && !rows.has(Number(line.dataset.d));
  }
  for (const head of heads) head.hidden = !all && !columns.has(Number(head.dataset.q));
  for (const cell of cells) cell.td.hidden = !all && !columns.has(cell.q);
  document.getElementById("count").textContent = all ? "" : `${count.toLocaleString("en")} of ${cells.length.toLocaleString("en")} shown`;
  if (!links().includes(table.querySelector("a[tabindex='0']"))) rove(links()[0] ?? null);
};

/** One stop for the tab key; the arrows go on from it. */
const rove = (link) => {
  for (const other of table.querySelectorAll("a")) other.tabIndex = -1;
  if (link) link.tabIndex = 0;
};
const links = () => [...table.querySelectorAll("tbody tr:not([hidden]) a")]
  .filter((link) => !link.parentNode.hidden && !link.parentNode.classList.contains("out"));
const columnOf = (link) => Number(link.parentNode.dataset.q ?? -1);

table.addEventListener("keydown", (event) => {
  const here = event.target.closest("a");
  if (!here || event.ctrlKey || event.metaKey || event.altKey) return;
  const row = here.closest("tr");
  const inRow = links().filter((link) => link.closest("tr") === row);
  const inColumn = links().filter((link) => columnOf(link) === columnOf(here));
  const next = {
    ArrowRight: () => inRow[inRow.indexOf(here) + 1],
    ArrowLeft: () => inRow[inRow.indexOf(here) - 1],
    ArrowDown: () => inColumn[inColumn.indexOf(here) + 1],
    ArrowUp: () => inColumn[inColumn.indexOf(here) - 1],
    Home: () => inRow[0],
    End: () => inRow.at(-1),
  }[event.key];
  if (!next) return;
  event.preventDefault();
  const link = next();
  if (link) {
    rove(link);
    link.focus();
  }
});

document.addEventListener("keydown", (event) => {
  const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
  if (event.key === "/" && !typing) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "Escape" && !typing && document.body.classList.contains("open")) {
    close();
  }
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.hash);  // also where it is shown already: the reader may have scrolled away
});

// --- paper: every answer that the filters leave, with its evidence ---

const paper = document.getElementById("print");
addEventListener("beforeprint", () => {
  for (const d of job.documents.keys()) {
    const shown = cells.filter((cell) => cell.d === d && !cell.hidden());
    if (!shown.length) continue;
    paper.append(make("h2", {}, bdi(job.documents[d].name)),
      make("p", { class: "muted", dir: "auto" }, job.documents[d].coverage));
    for (const cell of shown) paper.append(make("article", {}, answerBody(d, cell.q)));
  }
  for (const details of paper.querySelectorAll("details")) details.remove();
});
addEventListener("afterprint", () => paper.replaceChildren());

filters.addEventListener("input", filter);
filters.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => location.hash === shownHash || show());
filter();
show();
})();
