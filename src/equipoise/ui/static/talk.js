// The talk: a message goes to both sides, whose answers are shown as text while they are written.
"use strict";
const form = document.getElementById("talk");
const part = (id) => document.getElementById(id);
const SIDES = part("point").value === "base" ? ["base"] : ["base", "tuned"];
let turns = { base: [], tuned: [] };
let left = null; // ends the request when the page is left

function add(side, role, text) {
  const item = document.createElement("li");
  item.className = role;
  const who = document.createElement("span");
  who.className = "hidden";
  who.textContent = role === "user" ? "You: " : `${side}: `;
  const said = document.createElement("div");
  said.className = "said";
  said.dir = "auto";
  said.textContent = text;
  item.append(who, said);
  part(side).append(item);
  return item;
}

function busy(is) {
  part("send").disabled = is;
  part("again").disabled = is;
  part("point").disabled = is;
  part("stop").disabled = !is;
}

function fail(text) {
  part("wrong").textContent = text;
  part("wrong").hidden = false;
  part("said").textContent = "";
}

async function send() {
  const question = part("question").value.trim();
  if (!question) return;
  part("wrong").hidden = true;
  const before = structuredClone(turns);
  const shown = {};
  for (const side of SIDES) {
    turns[side].push({ role: "user", content: question });
    add(side, "user", question);
    shown[side] = add(side, "assistant", "…");
  }
  part("question").value = "";
  part("said").textContent = "Asking; the first answer waits until the model is loaded.";
  busy(true);
  try {
    const wrong = await ask(shown);
    if (wrong) {
      turns = before;
      for (const side of SIDES) {
        shown[side].previousElementSibling.remove();
        shown[side].remove();
      }
      part("question").value = question;
      fail(wrong);
    } else part("said").textContent = "";
  } catch (error) {
    fail(`The app does not answer any more (${error.message}).`);
  } finally {
    busy(false);
    part("question").focus();
  }
}

async function ask(shown) {
  left = new AbortController();
  const chats = Object.fromEntries(SIDES.map((side) => [side, turns[side]]));
  const answer = await fetch(form.dataset.address, {
    method: "POST",
    signal: left.signal,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      chats,
      point: part("point").value,
      temperature: Number(part("temperature").value),
      max_new_tokens: Number(part("longest").value),
      seed: turns.base.length,
    }),
  });
  if (!answer.ok) return (await answer.json().catch(() => ({ error: `status ${answer.status}` }))).error;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  const got = {};
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const news = JSON.parse(line);
      if (news.error) return news.error;
      if (news.note) part("said").textContent = `${news.note} …`;
      if (news.side) told(shown[news.side], news, got);
    }
    if (done) break;
  }
  for (const side of SIDES) {
    turns[side].push({ role: "assistant", content: got[side] ?? "" });
    if (!(side in got)) shown[side].lastElementChild.textContent = "(stopped before it began)";
  }
  return null;
}

function told(item, news, got) {
  part("said").textContent = `${news.side} is writing …`;
  item.lastElementChild.textContent = news.text;
  if (!news.done) return;
  got[news.side] = news.text;
  if (!news.text) item.lastElementChild.textContent = "(an empty answer)";
  const facts = document.createElement("p");
  facts.className = "facts";
  facts.textContent = `${news.tokens} tokens in ${news.seconds} s${news.cut_off ? ", cut off" : ""}`;
  item.append(facts);
}

function forget() {
  turns = { base: [], tuned: [] };
  part("base").replaceChildren();
  part("tuned").replaceChildren();
  part("wrong").hidden = true;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!part("send").disabled) send();
});
part("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // composing: Enter chooses a character
  event.preventDefault();
  form.requestSubmit();
});
part("stop").addEventListener("click", () =>
  fetch("/stop", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }),
);
part("again").addEventListener("click", forget);
part("point").addEventListener("change", forget);
window.addEventListener("pagehide", () => left?.abort());
