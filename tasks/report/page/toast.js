"use strict";

/* What was just done, said at the foot of the page for a while, with a way back. */
blora.toast = (() => {
  const { element, marks, model, MARKS } = blora;
  const SECONDS = 8;
  const text = element("span", {});
  const back = element("button", { type: "button", textContent: "Undo", "aria-keyshortcuts": "u" });
  const box = element("div", { id: "toast", hidden: true }, element("span", { role: "status" }, text), back);
  let timer = 0;

  const hide = () => {
    box.hidden = true;
  };
  /* Within a dialog, if one is open: all else is out of reach then. */
  const show = (words, canUndo) => {
    const host = document.querySelector("dialog[open]") || document.body;
    if (box.parentNode !== host) host.append(box);
    text.textContent = words;
    back.hidden = !canUndo;
    box.hidden = false;
    clearTimeout(timer);
    timer = setTimeout(hide, SECONDS * 1000);
  };

  const mark = (i, name) => {
    const said = marks.toggle(model.samples.id[i], name);
    const word = said in MARKS ? MARKS[said].word : "undecided again";
    const star = model.chosen(i) && said !== "keep" && said in MARKS ? "★ the chosen candidate, " : "";
    show(`${star}${model.label(i)}: ${word}`, true);
  };
  const undo = () => {
    const id = marks.undo();
    if (id === null) show("Nothing to undo", false);
    else show(`${model.label(model.byId.get(id))}: taken back`, marks.canUndo());
  };
  back.addEventListener("click", undo);
  document.addEventListener("close", () => document.body.append(box), true); // out of a dialog that closes
  return { show, mark, undo };
})();
