"use strict";
window.blora = window.blora || {};

/* A number as it is read: three digits after the point below 10, none where they say nothing. */
blora.number = (value) => {
  if (Number.isNaN(value)) return "–";
  return Math.abs(value) < 10 ? value.toFixed(3) : value.toPrecision(4);
};

/* Score names as words. */
blora.words = (name) => name.replaceAll("_", " ");

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
