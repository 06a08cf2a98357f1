// The page's conveniences: the theme, filters of the answers, values of the plots. All of it can be read without them.
"use strict";
(() => {
  const root = document.documentElement;
  const kept = (value) => {
    try {
      if (value !== undefined) localStorage.setItem("equipoise-theme", value);
      return localStorage.getItem("equipoise-theme");
    } catch { return null; } // a browser may forbid a page to keep anything
  };

  const setTheme = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
    for (const button of document.querySelectorAll("[data-set-theme]"))
      button.setAttribute("aria-pressed", String(button.dataset.setTheme === (root.dataset.theme || "system")));
  };

  const themes = () => {
    for (const button of document.querySelectorAll("[data-set-theme]"))
      button.addEventListener("click", () => { kept(button.dataset.setTheme); setTheme(button.dataset.setTheme); });
    setTheme(kept());
  };

  const filters = () => {
    const form = document.querySelector("form.filters");
    if (!form) return;
    const rows = [...document.querySelectorAll("[data-kind]")];
    const apply = () => {
      const { domain, kind, words } = form.elements;
      const wanted = words.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        const fits = (!domain.value || row.dataset.domain === domain.value) && (!kind.value || row.dataset.kind === kind.value)
          && (!wanted || row.textContent.toLowerCase().includes(wanted));
        row.hidden = !fits;
        shown += fits;
      }
      for (const group of document.querySelectorAll("[data-group]"))
        group.hidden = !group.querySelector("[data-kind]:not([hidden])");
      form.querySelector("output").textContent = `${shown} of ${rows.length} shown`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(apply));
    apply(); // a browser keeps what was chosen when the page is loaded again
  };

  const values = () => {
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.setAttribute("role", "status");
    tip.hidden = true;
    document.body.append(tip);
    const texts = new WeakMap();
    const hide = () => { tip.hidden = true; };
    const show = (part, x, y) => {
      tip.textContent = texts.get(part);
      tip.style.left = "0";
      tip.hidden = false;
      const box = tip.getBoundingClientRect();
      const left = Math.max(4, Math.min(x + 12, root.clientWidth - box.width - 8));
      const top = y + box.height + 24 > innerHeight ? Math.max(4, y - box.height - 12) : y + 16;
      tip.style.left = `${left + scrollX}px`;
      tip.style.top = `${top + scrollY}px`;
    };
    for (const plot of document.querySelectorAll("svg[role=img]")) {
      const parts = [...plot.querySelectorAll("title")].filter((title) => title.parentNode !== plot).map((title) => {
        const part = title.parentNode;
        texts.set(part, title.textContent);
        title.remove(); // else the browser shows it as well
        return part;
      });
      if (!parts.length) continue;
      const own = plot.querySelector("title");
      if (own) own.remove(); // its aria-label says the same
      plot.addEventListener("pointermove", (event) => {
        let part = event.target;
        while (part !== plot && !texts.has(part)) part = part.parentNode;
        if (part === plot) hide();
        else show(part, event.clientX, event.clientY);
      });
      plot.addEventListener("pointerleave", hide);
      if (parts.length < 2 || !plot.classList.contains("chart")) continue;
      plot.tabIndex = 0;
      plot.setAttribute("aria-label", `${plot.getAttribute("aria-label")}. Arrow keys read its values.`);
      let place = -1;
      plot.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (event.key === "Escape") hide();
        if (!step) return;
        event.preventDefault();
        place = Math.max(0, Math.min(parts.length - 1, place < 0 ? (step > 0 ? 0 : parts.length - 1) : place + step));
        for (const part of parts) part.classList.toggle("here", part === parts[place]);
        const box = parts[place].getBoundingClientRect();
        show(parts[place], box.left + box.width / 2, box.top);
      });
      plot.addEventListener("blur", () => { hide(); for (const part of parts) part.classList.remove("here"); });
    }
  };

  root.classList.add("js");
  setTheme(kept());
  document.addEventListener("DOMContentLoaded", () => { themes(); filters(); values(); });
})();
