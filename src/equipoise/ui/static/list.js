// The list: filter, sort, choose two or more to compare, and keep the states of running runs up to date.
"use strict";
const EVERY = 5000;
const table = document.getElementById("runs");
const rows = table ? [...table.tBodies[0].rows] : [];

function filter() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const state = document.getElementById("state").value;
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const fits = (!state || row.dataset.state === state) && words.every((word) => text.includes(word));
    row.hidden = !fits;
    shown += fits;
  }
  document.getElementById("count").textContent = shown === rows.length ? `${shown} runs` : `${shown} of ${rows.length} runs`;
}

function sort(head) {
  const down = head.getAttribute("aria-sort") !== "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = head.dataset.key;
  const numeric = ["started", "took", "verdict"].includes(key);
  const value = (row) => (numeric ? Number(row.dataset[key]) : row.dataset[key]);
  const order = (a, b) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  rows.sort((a, b) => (down ? -1 : 1) * order(value(a), value(b)));
  table.tBodies[0].append(...rows);
}

function choose() {
  const chosen = rows.filter((row) => row.querySelector("input").checked).length;
  const button = document.getElementById("compare");
  button.disabled = chosen < 2;
  button.textContent = chosen < 2 ? "Compare: choose two or more" : `Compare ${chosen} runs`;
}

async function refresh() {
  const answer = await fetch("/api/runs").catch(() => null); // the app has ended
  if (!answer || !answer.ok) return;
  const entries = await answer.json();
  const known = new Map(rows.map((row) => [row.dataset.id, row]));
  document.getElementById("news").hidden = entries.every((entry) => known.has(entry.id));
  for (const entry of entries) {
    const row = known.get(entry.id);
    if (!row || row.dataset.state === entry.state) continue;
    row.dataset.state = entry.state;
    const chip = row.querySelector(".chip");
    chip.textContent = entry.state;
    chip.className = `chip ${entry.state}`;
  }
}

if (table) {
  document.getElementById("filter").addEventListener("input", filter);
  document.getElementById("state").addEventListener("change", filter);
  for (const head of table.tHead.rows[0].cells) head.querySelector("button")?.addEventListener("click", () => sort(head));
  table.addEventListener("change", choose);
  choose();
  filter(); // a browser that goes back keeps what was typed
  setInterval(() => document.hidden || refresh(), EVERY);
}
