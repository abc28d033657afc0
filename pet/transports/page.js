/* What pet's pages have in common. Whatever comes from elsewhere becomes the text of an element, never a part of the page. */
"use strict";
const at = (id) => document.getElementById(id);
const write = (id, text) => { if (at(id).textContent !== text) at(id).textContent = text; };

function cell(text, kind) {
  const element = document.createElement("td");
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

/* Fill the body of a table: rows of cells, each a text and perhaps a class; `empty` stands in a table without rows. */
function fill(id, rows, empty, columns) {
  const body = at(id), made = document.createElement("tbody");
  made.append(...(rows.length ? rows : [[[empty, "empty"]]]).map((cells) => {
    const line = document.createElement("tr");
    line.append(...cells.map(([text, kind]) => cell(text, kind)));
    if (!rows.length) line.firstChild.colSpan = columns;
    return line;
  }));
  // What is the same stays as it is, so that a selection in it lasts.
  if (body.innerHTML !== made.innerHTML) body.replaceChildren(...made.children);
}

function fillBar(id, share) {
  const percent = Math.max(0, Math.min(100, 100 * share));
  at(id).style.width = `${percent}%`;
  at(id).parentNode.setAttribute("aria-valuenow", String(Math.round(percent)));
}

function duration(seconds) {
  const whole = Math.ceil(seconds);
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.ceil(whole / 60)} min`;
  return `${(whole / 3600).toFixed(1)} h`;
}

/* The line at the top: whether what is shown is still so. Four seconds of silence are said; a stream of events that ends and begins anew is not. */
const connection = {
  silentSince: null,
  heard(text = "live", kind = "") {
    this.silentSince = null;
    at("connection").className = kind;
    write("connection", text);
  },
  silent() { this.silentSince = this.silentSince || Date.now(); },
  watch(text) {
    setInterval(() => {
      if (!this.silentSince || Date.now() - this.silentSince < 4000) return;
      at("connection").className = "lost";
      write("connection", `${text}; trying again`);
    }, 1000);
  },
};
