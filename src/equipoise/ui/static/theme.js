// The theme: that of the system, light, or dark; kept in this browser. Runs before the page is drawn.
"use strict";
const THEMES = ["system", "light", "dark"];

function theme() {
  const kept = localStorage.getItem("theme");
  return THEMES.includes(kept) ? kept : "system";
}

function show(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}

show(theme());
document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const say = () => {
    button.textContent = `Theme: ${theme()}`;
    button.setAttribute("aria-label", `Theme: ${theme()}; change it`);
  };
  say();
  button.addEventListener("click", () => {
    localStorage.setItem("theme", THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
    show(theme());
    say();
  });
});
