"use strict";

/* A view is what the address says behind its #: filters, order, columns. It can be sent, gone back to, and kept in this
   browser under a name. */
blora.views = (() => {
  const { element } = blora;
  const at = (id) => document.getElementById(id);
  const TOGETHER_MS = 800; // changes that follow each other so soon, as letters of a word do, are one step back
  const said = () => new URLSearchParams(location.hash.slice(1));
  let changedAt = -Infinity;
  let [isFirst, isRecalled] = [true, false];

  /* Have the address say what is shown: by name, texts; empty ones are left out. */
  const show = (all) => {
    const words = `#${new URLSearchParams(Object.entries(all).filter(([, text]) => text !== ""))}`;
    if (words === location.hash) {
      isFirst = false;
      return;
    }
    const now = performance.now();
    const isStep = !isFirst && !isRecalled && now - changedAt > TOGETHER_MS;
    [changedAt, isFirst] = [isRecalled ? -Infinity : now, false];
    history[isStep ? "pushState" : "replaceState"](null, "", words);
  };

  const start = (key, recall) => {
    addEventListener("hashchange", () => {
      if (location.hash && !location.hash.includes("=")) return; // a place on this page, and no view
      isRecalled = true;
      changedAt = -Infinity;
      try {
        recall(said());
      } finally {
        isRecalled = false;
      }
    });
    const read = () => {
      try {
        return JSON.parse(localStorage.getItem(key) || "[]");
      } catch {
        return []; // nothing is kept here
      }
    };
    const write = (list) => {
      try {
        localStorage.setItem(key, JSON.stringify(list));
        at("view-told").textContent = "";
      } catch {
        at("view-told").textContent = "This browser keeps nothing for this page: keep the address instead.";
      }
      listAnew();
    };
    const listAnew = () => at("view-list").replaceChildren(...read().map(({ name, words }) => element("li", {},
      element("a", { href: words, textContent: name }),
      element("button", { type: "button", textContent: "Forget", "aria-label": `Forget view ${name}`,
        onclick: () => write(read().filter((one) => one.name !== name)) }))));
    const save = () => {
      const name = at("view-name").value.normalize("NFC").trim();
      if (!name) {
        at("view-told").textContent = "Give it a name.";
        return;
      }
      write([...read().filter((one) => one.name !== name), { name, words: location.hash }]);
      at("view-name").value = "";
    };
    at("view-save").addEventListener("click", save);
    at("view-name").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      save();
    });
    blora.popup(at("views"));
    listAnew();
  };
  return { start, show, said };
})();
