// What a reader may choose on the study page: recipes to mark and to show, domains of the front, the gain by settings,
// two runs to compare item by item. Every figure was computed before; without this script the first choice stands.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = data.rows;
  if (!rows.length) return;
  const by = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, text, css) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (css) made.className = css;
    return made;
  };
  const drawn = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const short = (value) => String(Number(value.toPrecision(4)));
  const signed = (value) => (value > 0 ? "+" : "") + Number(value.toPrecision(3));
  const onChange = (form, act) => {
    form.addEventListener("input", act);
    form.addEventListener("submit", (event) => event.preventDefault());
  };

  // Recipes: marked everywhere by their number, hidden everywhere by the filter.
  const parts = rows.map(() => []);
  for (const part of all("[data-row]")) parts[part.dataset.row].push(part);
  if (rows.length > 40) document.body.classList.add("many");
  const pinned = new Set();
  const mark = () => {
    parts.forEach((some, row) => { for (const part of some) part.classList.toggle("lit", pinned.has(row)); });
    document.body.classList.toggle("marking", pinned.size > 0);
  };
  for (const button of all("button.pin")) button.addEventListener("click", () => {
    const row = Number(button.closest("[data-row]").dataset.row);
    if (!pinned.delete(row)) pinned.add(row);
    button.setAttribute("aria-pressed", String(pinned.has(row)));
    mark();
  });
  const fits = (row, kind) => !kind || row.kind === kind || (kind === "feasible" && row.kind === "front");
  const filter = () => {
    const { words, kind, order } = by("filter").elements;
    const wanted = words.value.trim().toLowerCase();
    let shown = 0;
    rows.forEach((row, number) => {
      const fit = fits(row, kind.value) && row.name.toLowerCase().includes(wanted);
      for (const part of parts[number]) part.toggleAttribute("hidden", !fit);
      shown += fit;
    });
    for (const chain of all("[data-chain]"))
      chain.toggleAttribute("hidden", chain.dataset.chain.split(" ").some((row) => parts[row][0].hasAttribute("hidden")));
    by("filter").querySelector("output").textContent = `${shown} of ${rows.length} shown`;
    const body = document.querySelector(".board tbody");
    const lines = all("tr", body);
    const value = (line) => order.value === "" ? -line.dataset.row : rows[line.dataset.row].gains[order.value][0];
    body.append(...lines.sort((one, other) => value(other) - value(one)));
  };
  onChange(by("filter"), filter);

  // Plots: the frame and the marks move to the chosen figures.
  const nice = (value) => {
    const power = 10 ** Math.floor(Math.log10(value));
    return Math.max(...[1, 2, 2.5, 5].filter((unit) => unit * power <= value * (1 + 1e-9))) * power;
  };
  const axis = (measure, start, end) => {
    const ends = [0, ...rows.flatMap((row) => row.gains[measure])];
    let low = Math.min(...ends), high = Math.max(...ends);
    const air = (high - low) * 0.04 || 1;
    low -= air; high += air;
    const step = nice((high - low) / 4), ticks = [];
    for (let place = Math.ceil(low / step); place * step <= high; place++) ticks.push(place * step);
    return { ticks, at: (value) => start + (end - start) * (value - low) / (high - low) };
  };
  const frame = (group, scale, line, name) => {
    group.replaceChildren(...scale.ticks.flatMap((tick) => [
      drawn("line", { class: tick ? "grid" : "zero", ...line(scale.at(tick)) }),
      drawn("text", { class: "tick", ...name(scale.at(tick)) }, short(tick)),
    ]));
  };
  const upright = (svg, measure) => {
    const [left, top, right, bottom] = svg.dataset.box.split(" ").map(Number);
    const scale = axis(measure, bottom, top);
    frame(svg.querySelector(".frame-y"), scale, (y) => ({ x1: left, x2: right, y1: y, y2: y }),
      (y) => ({ x: left - 6, y: y + 4, "text-anchor": "end" }));
    return scale;
  };
  const stand = (spot, x, y, up, gain) => {
    spot.setAttribute("transform", `translate(${x} ${y})`);
    const reach = spot.querySelector(".reach.v");
    reach.setAttribute("y1", up.at(gain[1]) - y);
    reach.setAttribute("y2", up.at(gain[2]) - y);
  };
  const front = () => {
    const svg = document.querySelector("svg.front");
    const chosen = by("axes").elements;
    const [left, top, right, bottom] = svg.dataset.box.split(" ").map(Number);
    const x = Number(chosen.x.value), y = Number(chosen.y.value);
    const up = upright(svg, y), across = axis(x, left, right);
    frame(svg.querySelector(".frame-x"), across, (at) => ({ x1: at, x2: at, y1: top, y2: bottom }),
      (at) => ({ x: at, y: bottom + 18, "text-anchor": "middle" }));
    for (const spot of all(".spot", svg)) {
      const gains = rows[spot.dataset.row].gains, at = across.at(gains[x][0]);
      stand(spot, at, up.at(gains[y][0]), up, gains[y]);
      const reach = spot.querySelector(".reach.h");
      reach.setAttribute("x1", across.at(gains[x][1]) - at);
      reach.setAttribute("x2", across.at(gains[x][2]) - at);
    }
    const points = rows.filter((row) => row.kind !== "worse").map((row) => [row.gains[x][0], row.gains[y][0]]);
    points.sort((one, other) => other[0] - one[0] || other[1] - one[1]);
    const edge = [];
    for (const point of points) if (!edge.length || point[1] > edge.at(-1)[1]) edge.push(point);
    svg.querySelector(".edge").setAttribute("points", edge.map(([a, b]) => `${across.at(a)},${up.at(b)}`).join(" "));
    svg.querySelector(".x-name").textContent = data.measures[x];
    svg.querySelector(".y-name").textContent = data.measures[y];
    svg.setAttribute("aria-label", `Gain in ${data.measures[x]} (across) and in ${data.measures[y]} (up) of every recipe. Arrow keys read its values.`);
  };
  if (by("axes")) onChange(by("axes"), front);
  const settings = () => {
    const measure = Number(by("measure").elements.measure.value);
    for (const svg of all("svg.effect")) {
      const up = upright(svg, measure), at = new Map();
      for (const spot of all(".spot", svg)) {
        const gain = rows[spot.dataset.row].gains[measure];
        const x = Number(spot.getAttribute("transform").match(/\((\S+)/)[1]);
        stand(spot, x, up.at(gain[0]), up, gain);
        at.set(spot.dataset.row, `${x},${up.at(gain[0])}`);
      }
      for (const chain of all("[data-chain]", svg))
        chain.setAttribute("points", chain.dataset.chain.split(" ").map((row) => at.get(row)).join(" "));
    }
  };
  if (by("measure")) onChange(by("measure"), settings);

  // Two runs, item by item.
  const LISTED = 30;
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const known = new Map();
  const domain = (number) => {
    if (!known.has(number)) {
      const one = data.domains[number];
      known.set(number, { values: new Float32Array(bytes(one.values)), bases: new Float32Array(bytes(one.bases)) });
    }
    return known.get(number);
  };
  const told = (one, other, number) => {
    if (!known.has("better")) known.set("better", new Uint32Array(bytes(data.better)));
    const better = known.get("better"), bit = (a, b) => better[a * rows.length + b] >>> number & 1;
    const a = data.runs[one].row, b = data.runs[other].row;
    if (a === b) return "the same recipe";
    return bit(a, b) ? "the first is shown to be better" : bit(b, a) ? "the second is shown to be better" : "not told apart";
  };
  const said = (value) => Number.isNaN(value) ? "unscored" : short(value);
  const head = (text) => {
    const made = make("th");
    made.scope = "row";
    made.append(make("bdi", text));
    return made;
  };
  const texts = new Map(data.answers.items.map((item) => [`${item.domain}/${item.item}`, item]));
  const answer = (item, one, other) => {
    const line = make("tr", undefined, "texts"), cell = make("td"), fold = make("details"), inside = make("div", undefined, "inside");
    cell.colSpan = 6;
    const asked = item.question.length > 90 ? `${item.question.slice(0, 90)}…` : item.question;
    fold.append(make("summary", asked ? `Answers to: ${asked}` : "Answers"), inside);
    const box = (name, text) => {
      const made = make("div");
      const body = make("div", text, "said");
      body.dir = "auto";
      if (text.length > 500) body.tabIndex = 0;
      made.append(make("span", name, "key"), body);
      return made;
    };
    if (item.question) inside.append(box("question", item.question));
    if (item.expected) inside.append(box("expected", item.expected));
    const pair = make("div", undefined, "pair");
    pair.append(...[one, other].map((run) => box(data.runs[run].name, data.answers.texts[item.answers[run]])));
    inside.append(pair);
    cell.append(fold);
    line.append(cell);
    return line;
  };
  const compare = () => {
    const form = by("pair").elements;
    const one = Number(form.one.value), other = Number(form.other.value), side = Number(form.side.value);
    const counts = [], found = [];
    data.domains.forEach((about, number) => {
      const { values, bases } = domain(number), n = about.ids.length;
      let first = 0, second = 0, same = 0, unscored = 0;
      for (let item = 0; item < n; item++) {
        const a = values[one * n + item], b = values[other * n + item], difference = a - b;
        if (Number.isNaN(difference)) { unscored++; continue; }
        if (difference > 0) first++; else if (difference < 0) second++; else { same++; continue; }
        if (form.domain.value !== "" && Number(form.domain.value) !== number) continue;
        if (side * difference < 0 || (form.texts.checked && !texts.has(`${number}/${item}`))) continue;
        const base = bases[about.base_of[one] * n + item];
        found.push({ number, item, a, b, base, difference, size: Math.abs(difference) / (data.units[number] || 1) });
      }
      const line = make("tr");
      line.append(head(about.name));
      for (const count of [first, second, same, unscored]) line.append(make("td", count, "n"));
      line.append(make("td", told(one, other, number)));
      counts.push(line);
    });
    found.sort((x, y) => y.size - x.size);
    const lines = found.slice(0, LISTED).flatMap((row) => {
      const about = data.domains[row.number], line = make("tr"), item = texts.get(`${row.number}/${row.item}`);
      line.append(head(about.ids[row.item]), make("td", about.name));
      for (const text of [said(row.base), said(row.a), said(row.b), signed(row.difference)]) line.append(make("td", text, "n"));
      return item ? [line, answer(item, one, other)] : [line];
    });
    by("pair-counts").tBodies[0].replaceChildren(...counts);
    by("pair-items").tBodies[0].replaceChildren(...lines);
    by("pair-items").querySelector(".needs-js-said").textContent =
      ` ${Math.min(LISTED, found.length)} of ${found.length} shown; the page holds the answers to ${texts.size} questions, those on which the runs differ most.`;
    const names = by("pair-names");
    names.replaceChildren("First: ", make("strong", data.runs[one].name), ". Second: ", make("strong", data.runs[other].name), ".");
  };
  addEventListener("DOMContentLoaded", () => {
    filter();
    if (by("axes")) front();
    if (by("measure")) settings();
    if (by("pair")) { onChange(by("pair"), compare); compare(); }
  });
})();
