"use strict";

/* The page of a comparison: its pairs as a wall of two pictures a card, or as a table; one pair in full. */
(() => {
  const { element, data, model, filters, views, twinsTable } = blora;
  const { filter } = filters;
  const { signed } = twinsTable;
  const at = (id) => document.getElementById(id);
  const WIDTH_PX = 300;
  const SHOWN_COLUMNS = 4; // scores in the table where nobody has chosen
  const PARTS = { change: "b − a", a: "a", b: "b" };
  const ratio = data.height / data.width;
  const usual = () => ({ as: "pictures", score: model.parts[0], part: "change", worst: true, by: "",
    columns: model.parts.slice(0, SHOWN_COLUMNS) });
  const view = usual();
  let columns = 1;
  let list = [];

  /* ---- pictures ---- */

  const thumbnail = (number) => {
    if (data.keys[number] === null) return element("div", { className: "missing", textContent: "not drawn" });
    const image = element("img", { alt: "", decoding: "async" });
    blora.thumbnails.show(image, number);
    return image;
  };
  const told = (i) => {
    if (!view.score) return "";
    const value = view.score[view.part].values[i];
    return view.part === "change" ? signed(value) : blora.number(value);
  };
  const has = (row, column) => row >= 0 && column >= 0 && column < columns && row * columns + column < list.length;
  const fill = (cell, row, column) => {
    const i = list[row * columns + column];
    cell.replaceChildren(
      element("div", { className: "frame twins", "aria-hidden": "true" }, thumbnail(2 * i), thumbnail(2 * i + 1)),
      element("div", { className: "caption", "aria-hidden": "true" },
        element("span", { className: "name", textContent: data.names[i], title: data.names[i] }),
        element("span", { className: "value", textContent: told(i) })),
      element("span", { className: "said", textContent: `${data.names[i]}, ${told(i)}` }),
    );
  };

  const open = (i) => {
    at("twin-heading").textContent = data.names[i];
    const figure = (title, key) => element("figure", { className: "side" },
      key === null ? element("div", { className: "missing", textContent: "not drawn" })
        : element("img", { src: data.root + key, alt: `${data.names[i]}, ${title}` }),
      element("figcaption", { textContent: title }));
    const rows = model.parts.map((score) => element("tr", {},
      element("th", { scope: "row", textContent: blora.title(score), title: blora.meaning(score) }),
      ...[score.a, score.b].map((one) => element("td", { className: "value", textContent: blora.number(one.values[i]) })),
      element("td", { className: "value", textContent: signed(score.change.values[i]) })));
    at("twin-body").replaceChildren(
      element("div", { className: "two" }, figure("a", data.keys[2 * i]), figure("b", data.keys[2 * i + 1])),
      element("table", {}, element("thead", {}, element("tr", {},
        ...["score", "a", "b", "b − a"].map((name, n) => element("th", { scope: "col", textContent: name, className: n ? "value" : "" })))),
        element("tbody", {}, ...rows)));
    at("twin").showModal();
  };
  const sheet = new blora.Sheet(at("sheet"), { has, fill, fillHead: () => {},
    open: (row, column) => open(list[row * columns + column]) });

  const layout = () => {
    const room = Math.max(at("sheet").clientWidth, 200);
    columns = Math.max(1, Math.floor(room / WIDTH_PX));
    const width = Math.floor(room / columns);
    const height = Math.round(((width - 14) / 2) * ratio) + 46;
    sheet.layout({ rows: Math.ceil(list.length / columns), columns, width, height, left: 0, top: 0 });
  };

  /* ---- what is shown ---- */

  const sortBy = (score, part) => {
    const again = view.score === score && view.part === part;
    Object.assign(view, { score, part, worst: again ? !view.worst : true });
    update();
  };
  const key = () => (view.score ? `${view.part}.${view.score.name}` : "");
  const showControls = () => {
    const [worse, better] = view.part === "change" ? ["b worse first", "b better first"] : ["Worst first", "Best first"];
    at("direction").textContent = view.worst ? worse : better;
    at("sort").value = key();
    at("by").value = view.by;
    at("as-pictures").setAttribute("aria-pressed", String(view.as === "pictures"));
    at("as-table").setAttribute("aria-pressed", String(view.as === "table"));
    for (const box of at("column-boxes").querySelectorAll("input")) box.checked = view.columns.some((one) => one.name === box.value);
    for (const id of ["by-label", "columns"]) at(id).hidden = view.as !== "table";
    at("nothing").hidden = list.length > 0;
    at("sheet").hidden = view.as !== "pictures" || !list.length;
    at("twins-table").hidden = view.as !== "table" || !list.length;
    at("count").textContent = list.length === model.count ? `${model.count} pairs` : `${list.length} of ${model.count} pairs`;
  };
  const update = () => {
    list = model.order(filter, view.score, view.part, view.worst);
    showControls();
    if (view.as === "pictures") layout();
    else twinsTable.draw(at("twins"), { list, by: view.by, view, columns: view.columns, sortBy, open, thumbnail });
    views.show({ as: view.as, sort: key(), first: view.worst ? "worst" : "best", by: view.by,
      columns: view.columns.map((one) => one.name).join(","), ...filters.told() });
  };

  /* A view out of an address; what it does not say is as usual. */
  const recall = (words) => {
    const named = (name) => model.parts.find((one) => one.name === name);
    const [, part, name] = /^(change|a|b)\.(.*)$/.exec(words.get("sort") || "") || [];
    Object.assign(view, usual(), named(name) && { score: named(name), part }, {
      as: words.get("as") === "table" ? "table" : "pictures",
      worst: words.get("first") !== "best",
      by: ["contents", "styles"].includes(words.get("by")) ? words.get("by") : "",
    }, words.has("columns") && { columns: words.get("columns").split(",").map(named).filter(Boolean) });
    filters.recall(words); // and shows what passes
  };

  const start = () => {
    at("sort").append(...Object.entries(PARTS).map(([part, label]) => element("optgroup", { label },
      ...model.parts.map((score) => element("option", { value: `${part}.${score.name}`, textContent: `${label}: ${blora.title(score)}` })))));
    at("sort").addEventListener("change", (event) => {
      const [, part, name] = /^(\w+)\.(.*)$/.exec(event.target.value);
      Object.assign(view, { part, score: model.parts.find((one) => one.name === name) });
      update();
    });
    at("column-boxes").append(...model.parts.map((score) => element("label", {}, element("input", { type: "checkbox",
      value: score.name, onchange: () => {
        const on = new Set([...at("column-boxes").querySelectorAll("input:checked")].map((box) => box.value));
        view.columns = model.parts.filter((one) => on.has(one.name));
        update();
      } }), ` ${score.label}`)));
    const press = (id, change) => at(id).addEventListener("click", () => {
      Object.assign(view, change());
      update();
    });
    press("direction", () => ({ worst: !view.worst }));
    press("as-pictures", () => ({ as: "pictures" }));
    press("as-table", () => ({ as: "table" }));
    at("by").addEventListener("change", (event) => {
      view.by = event.target.value;
      update();
    });
    at("bar").addEventListener("submit", (event) => event.preventDefault());
    at("twin-close").addEventListener("click", () => at("twin").close());
    let width = 0;
    new ResizeObserver(() => {
      if (at("sheet").hidden || at("sheet").clientWidth === width) return;
      width = at("sheet").clientWidth;
      layout();
    }).observe(at("sheet"));
    document.documentElement.classList.add("ready");
    blora.popup(at("columns"));
    filters.start(update);
    views.start(`blora:views:${data.runs.join(" ")}`, recall);
    recall(views.said());
  };
  start();
})();
