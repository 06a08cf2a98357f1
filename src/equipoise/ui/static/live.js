// One run: its part that changes is asked for while the run goes on.
"use strict";
const EVERY = 2000;
const live = document.getElementById("live");
let tag = "";

const now = () => live.querySelector(".now");

async function refresh() {
  if (!document.hidden) {
    const answer = await fetch(live.dataset.address, { headers: tag ? { "If-None-Match": tag } : {} }).catch(() => null);
    if (answer && answer.status === 200) {
      tag = answer.headers.get("ETag") ?? "";
      put(await answer.text());
    }
  }
  if (now().dataset.going) setTimeout(refresh, EVERY);
}

function put(text) {
  const open = [...live.querySelectorAll("details[open]")].map((part) => part.id);
  const said = now().dataset.said;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  live.replaceChildren(...fresh.body.childNodes);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (now().dataset.said !== said) document.getElementById("status").textContent = now().dataset.said;
}

if (now().dataset.going) setTimeout(refresh, EVERY);
