"use strict";

/* Both runs' scores side by side: a row a pair, or a row a content or style with means, and a mean of all on top. */
blora.twinsTable = (() => {
  const { element, model } = blora;
  const PARTS = [["a", "a"], ["b", "b"], ["change", "b − a"]];
  const ROWS = 200; // at a time: a table of thousands is slow to draw, and nobody reads to its end

  const signed = (value) => (Number.isNaN(value) ? "–" : `${value < 0 ? "−" : "+"}${blora.number(Math.abs(value))}`);
  const cell = (score, part, items) => {
    const value = blora.mean(score[part], items);
    return element("td", { className: "value", textContent: part === "change" ? signed(value) : blora.number(value) });
  };

  /* `view` says what is sorted by, `columns` which scores are shown; `sortBy` and `open` answer presses. */
  const draw = (table, { list, by, view, columns, sortBy, open, thumbnail }) => {
    const groups = model.groups(list, by);
    if (by && view.score) { // groups by their means
      const sign = blora.worse(view.score) * (view.worst ? 1 : -1);
      const mean = new Map(groups.map((one) => [one, blora.mean(view.score[view.part], one.items)]));
      const place = (one) => (Number.isNaN(mean.get(one)) ? Infinity : sign * mean.get(one));
      groups.sort((a, b) => place(a) - place(b));
    }
    const head = (score) => element("th", { scope: "colgroup", colSpan: 3, textContent: blora.title(score), title: blora.meaning(score) });
    const sorter = (score, [part, label]) => {
      const on = view.score === score && view.part === part;
      return element("th", { scope: "col", className: "value", ...(on && { "aria-sort": view.worst === !score.lower ? "ascending" : "descending" }) },
        element("button", { type: "button", className: "plain", textContent: on ? `${label} ${view.worst === !score.lower ? "↑" : "↓"}` : label,
          "aria-label": `Sort by ${score.label}, ${label}`, onclick: () => sortBy(score, part) }));
    };
    const row = ({ name, items }) => element("tr", {},
      element("th", { scope: "row" }, ...(by ? [name, element("span", { className: "number", textContent: items.length })]
        : [element("span", { className: "small-twins" }, thumbnail(2 * items[0]), thumbnail(2 * items[0] + 1)),
          element("button", { type: "button", className: "plain link", textContent: name, onclick: () => open(items[0]) })])),
      ...columns.flatMap((score) => PARTS.map(([part]) => cell(score, part, items))));
    const body = element("tbody", {}, ...groups.slice(0, ROWS).map(row));
    const more = () => {
      body.append(...groups.slice(body.rows.length, body.rows.length + ROWS).map(row));
      told();
    };
    const foot = element("caption", {});
    const told = () => {
      const left = groups.length - body.rows.length;
      foot.replaceChildren(...(left ? [`${body.rows.length} of ${groups.length} rows. `,
        element("button", { type: "button", textContent: `Show ${Math.min(left, ROWS)} more`, onclick: more })] : []));
    };
    told();
    table.replaceChildren(foot,
      element("thead", {},
        element("tr", {}, element("td", {}), ...columns.map(head)),
        element("tr", {}, element("th", { scope: "col", textContent: by === "contents" ? "Content" : by === "styles" ? "Style" : "Pair" }),
          ...columns.flatMap((score) => PARTS.map((part) => sorter(score, part)))),
        element("tr", { className: "means" }, element("th", { scope: "row", textContent: `mean of ${list.length}` }),
          ...columns.flatMap((score) => PARTS.map(([part]) => cell(score, part, list))))),
      body);
  };
  return { draw, signed };
})();
