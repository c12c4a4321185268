"use strict";
window.blora = window.blora || {};

/* A number as it is read: three digits after the point below 10, none where they say nothing. */
blora.number = (value) => {
  if (Number.isNaN(value)) return "–";
  return Math.abs(value) < 10 ? value.toFixed(3) : value.toPrecision(4);
};

/* A score's name as people read it; the arrow says that a small number is the good one. */
blora.title = (score) => score.label + (score.lower ? " ↓" : "");
/* What it says, for tooltips. */
blora.meaning = (score) =>
  `${score.says} ${score.lower ? "Low" : "High"} is good. (${score.name}${score.scorer ? `, ${score.scorer}` : ""})`;

/* An element with properties and children. Texts become text nodes: a name can never become markup. */
blora.element = (tag, properties = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
};

/* A popup closes on Esc, and by a press beside it; a page that scrolls shows all of it. */
blora.popup = (popup) => {
  popup.addEventListener("toggle", () => {
    if (popup.open) popup.querySelector(".panel").scrollIntoView({ block: "nearest" });
  });
  popup.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !popup.open) return;
    popup.open = false;
    popup.querySelector("summary").focus();
    event.preventDefault();
  });
  document.addEventListener("pointerdown", (event) => {
    if (!popup.contains(event.target)) popup.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) popup.open = false;
  });
};
