"use strict";

/* The page of a run: the bar on top, the sheet of pictures as a grid or a wall, the tally below. */
(() => {
  const { element, model, marks, MARKS, filters, views } = blora;
  const { filter } = filters;
  const at = (id) => document.getElementById(id);
  const VIEW_KEY = `blora:view:${blora.data.run}`;
  const UNSORTED = "manifest"; // as an address says it
  const CAPTION_PX = 26;
  const BAR_PX = 5;
  const GAP_PX = 10;
  const ratio = blora.data.height / blora.data.width;

  const SMALLEST_PX = 72;
  const LARGEST_PX = 320;

  /* How the page was left, or, in an address with a view in it, as that says. A size of 0 fits the width. */
  const viewIn = (words, usual) => ({
    ...usual,
    ...(["grid", "wall"].includes(words.get("view")) && { view: words.get("view") }),
    ...(words.has("sort") && { sort: words.get("sort") }),
    ...(words.has("first") && { worst: words.get("first") !== "best" }),
  });
  const readView = () => {
    const usual = { view: "grid", sort: model.scores.length ? model.scores[0].name : "", worst: true, size: 0 };
    try {
      Object.assign(usual, JSON.parse(localStorage.getItem(VIEW_KEY) || "{}"));
    } catch {
      // nothing is kept here
    }
    return viewIn(views.said(), usual);
  };
  const view = readView();
  let size = SMALLEST_PX; // of a picture, as it is drawn
  let list = [];
  let grid = null;
  let columns = 1;

  const sortNumber = () => model.scores.findIndex((score) => score.name === view.sort);

  /* ---- what is in a cell ---- */

  const shown = (row, column) => {
    if (row < 0 || column < 0) return [];
    if (view.view === "wall") return list.slice(row * columns + column, row * columns + column + 1);
    if (row >= grid.contents.length || column >= grid.styles.length) return [];
    return grid.at(grid.contents[row], grid.styles[column]);
  };
  const has = (row, column) => {
    if (view.view === "wall") return row >= 0 && column >= 0 && column < columns && row * columns + column < list.length;
    return row >= 0 && column >= 0 && row < grid.contents.length && column < grid.styles.length;
  };

  const value = (i) => (sortNumber() < 0 ? "" : blora.number(model.scores[sortNumber()].values[i]));

  /* How good a number is within the run, as a bar; none where nothing is known, or all are alike. */
  const bar = (number) => {
    const made = element("div", { className: "bar-of", "aria-hidden": "true" });
    const share = sortNumber() < 0 ? NaN : model.share(model.scores[sortNumber()], number);
    if (!Number.isNaN(share)) made.append(element("i", {}));
    made.style.setProperty("--share", Number.isNaN(share) ? 0 : share);
    return made;
  };

  const fill = (cell, row, column) => {
    const [i, ...others] = shown(row, column);
    if (i === undefined) {
      cell.replaceChildren(element("div", { className: "nothing" }), element("span", { className: "said", textContent: "no picture" }));
      delete cell.dataset.mark;
      return;
    }
    const mark = marks.decision(model.samples.id[i]);
    const kept = cell.dataset.i === String(i) ? cell.querySelector("img, .missing") : null;
    const picture = kept || (model.there(i)
      ? element("img", { alt: "", decoding: "async", draggable: false })
      : element("div", { className: "missing", title: model.reason(i) }, "not drawn",
        element("small", { textContent: model.reason(i) })));
    const frame = element("div", { className: "frame", "aria-hidden": "true" }, picture);
    if (mark in MARKS) frame.append(element("span", { className: `sign ${mark}`, textContent: MARKS[mark].sign }));
    if (model.chosen(i)) frame.append(element("span", { className: "chosen", textContent: "★" }));
    if (others.length) frame.append(element("span", { className: "more", textContent: `1 of ${others.length + 1}` }));
    const name = view.view === "wall" ? `${model.content(i).name} · ${model.style(i).name}` : `seed ${model.samples.seed[i]}`;
    const said = [model.label(i), sortNumber() >= 0 && `${model.scores[sortNumber()].label} ${value(i)}`, mark in MARKS && MARKS[mark].word, model.chosen(i) && "chosen",
      others.length && `${others.length} more candidates`, !model.there(i) && `not drawn: ${model.reason(i)}`];
    const number = sortNumber() < 0 ? NaN : model.scores[sortNumber()].values[i];
    cell.replaceChildren(frame, bar(number),
      element("div", { className: "caption", "aria-hidden": "true" },
        element("span", { className: "name", textContent: name, title: model.label(i) }),
        element("span", { className: "value", textContent: value(i) })),
      element("span", { className: "said", textContent: said.filter(Boolean).join(", ") }));
    cell.dataset.i = i;
    cell.dataset.mark = mark;
    if (!kept && model.there(i)) blora.thumbnails.show(picture, blora.data.references.length + i);
  };

  const fillHead = (cell, row, column) => {
    if (row < 0 && column < 0) {
      const means = sortNumber() < 0 ? "" : `, means of ${model.scores[sortNumber()].label}`;
      cell.append(element("span", { className: "quiet", textContent: `content by style${means}` }));
      return;
    }
    const side = row >= 0 ? blora.data.contents[grid.contents[row]] : blora.data.styles[grid.styles[column]];
    cell.title = side.name;
    if (side.images.length) {
      const image = element("img", { alt: "", decoding: "async" });
      cell.append(image);
      blora.thumbnails.show(image, model.reference.get(side.images[0]));
    }
    cell.append(element("span", { className: "name", textContent: side.name }));
    if (sortNumber() < 0) return;
    const mean = row >= 0 ? grid.contentMean(grid.contents[row]) : grid.styleMean(grid.styles[column]);
    cell.append(element("span", { className: "mean" }, element("span", { textContent: blora.number(mean) }), bar(mean)));
  };

  /* ---- the pair: what comes before and after in the order that is on the screen ---- */

  const neighbour = (i, by) => {
    const pairs = view.view === "wall" ? list
      : grid.contents.flatMap((row) => grid.styles.map((column) => grid.at(row, column)[0]).filter((one) => one !== undefined));
    let place = pairs.indexOf(i);
    if (place < 0) place = pairs.findIndex((one) => model.candidatesOf(one) === model.candidatesOf(i));
    for (let next = place + by; next >= 0 && next < pairs.length; next += by) {
      if (model.candidatesOf(pairs[next]) !== model.candidatesOf(i)) return pairs[next];
    }
    return -1;
  };
  const sheet = new blora.Sheet(at("sheet"), {
    has, fill, fillHead,
    open: (row, column) => {
      const [i] = shown(row, column);
      if (i !== undefined) blora.pair.open(i, neighbour);
    },
  });
  blora.pair.onClose(() => {
    const i = blora.pair.current();
    if (filter.decision) update(); // what was marked there may no longer belong here
    const [row, column] = place(i);
    if (row >= 0) sheet.go(row, column);
  });

  const place = (i) => {
    if (view.view === "wall") {
      const number = list.indexOf(i);
      return number < 0 ? [-1, -1] : [Math.floor(number / columns), number % columns];
    }
    const [row, column] = [grid.contents.indexOf(model.samples.content[i]), grid.styles.indexOf(model.samples.style[i])];
    return column < 0 ? [-1, -1] : [row, column];
  };

  /* The next cell from here that shows a picture, else the last before: one without takes no mark. */
  const nearest = (row, column) => {
    const { rows, columns: across } = sheet.size;
    const shows = (number) => shown(Math.floor(number / across), number % across)[0] !== undefined;
    const here = Math.min(row * across + column, rows * across - 1);
    let number = here;
    while (number < rows * across && !shows(number)) number += 1;
    if (number === rows * across) for (number = here; number > 0 && !shows(number);) number -= 1;
    return [Math.floor(number / across), number % across];
  };

  /* ---- drawing ---- */

  const count = () => {
    const word = list.length === 1 ? "picture" : "pictures";
    const open = model.count - Object.values(marks.tally()).reduce((sum, one) => sum + one, 0);
    at("count").textContent = list.length === model.count ? `${model.count} ${word}` : `${list.length} of ${model.count} ${word}`;
    const { keep, reject, redo } = marks.tally();
    at("tally").textContent = `${keep} kept · ${reject} rejected · ${redo} to redo · ${open} open`;
    at("export").disabled = marks.ownCount() === 0;
    at("unkept").hidden = marks.isKept();
    const score = model.scores[sortNumber()];
    at("tied").textContent = score && model.count > 1 && score.known.length > 1 && !score.span ? `All have the same ${score.label}.` : "";
  };

  const layout = () => {
    const scroller = at("sheet");
    const narrow = innerWidth < 600;
    const beside = CAPTION_PX + BAR_PX + GAP_PX;
    if (view.view === "wall") {
      size = view.size || (narrow ? 104 : 152);
      const room = Math.max(scroller.clientWidth, size);
      columns = Math.max(1, Math.floor(room / (size + GAP_PX)));
      const width = Math.floor(room / columns);
      const height = Math.round((width - GAP_PX) * ratio) + beside;
      sheet.layout({ rows: Math.ceil(list.length / columns), columns, width, height, left: 0, top: 0 });
    } else {
      const left = narrow ? 72 : 132;
      const fitting = Math.floor((scroller.clientWidth - left) / Math.max(1, grid.styles.length)) - GAP_PX;
      size = view.size || Math.max(narrow ? 104 : SMALLEST_PX, Math.min(LARGEST_PX, fitting));
      const height = Math.round(size * ratio) + beside;
      sheet.layout({ rows: grid.contents.length, columns: grid.styles.length, width: size + GAP_PX, height, left,
        top: narrow ? 100 : 128 });
    }
    at("size").value = String(size);
    at("nothing").hidden = list.length > 0;
  };

  /* Filter, sort and lay out anew. */
  const update = () => {
    list = model.order(filter, sortNumber(), view.worst, marks);
    grid = model.grid(list, sortNumber(), view.worst);
    layout();
    count();
    showAddress();
  };

  const showAddress = () =>
    views.show({ view: view.view, sort: view.sort || UNSORTED, first: view.worst ? "worst" : "best", ...filters.told() });
  const recall = (words) => {
    Object.assign(view, viewIn(words, view));
    keepView();
    showView();
    filters.recall(words); // and shows what passes
  };

  const keepView = () => {
    try {
      localStorage.setItem(VIEW_KEY, JSON.stringify(view));
    } catch {
      // the view is a comfort: without it the page opens as it does for the first time
    }
  };

  /* ---- the bar ---- */

  const showView = () => {
    at("as-grid").setAttribute("aria-pressed", String(view.view === "grid"));
    at("as-wall").setAttribute("aria-pressed", String(view.view === "wall"));
    at("direction").textContent = view.worst ? "Worst first" : "Best first";
    at("direction").disabled = sortNumber() < 0;
    at("sort").value = String(sortNumber());
    at("fit").setAttribute("aria-pressed", String(view.size === 0));
    at("sheet").classList.toggle("wall", view.view === "wall");
  };
  const change = (changes) => {
    Object.assign(view, changes);
    keepView();
    showView();
    at("sheet").scrollTop = 0;
    at("sheet").scrollLeft = 0;
    update();
  };

  /* ---- parts of the page ---- */

  const parts = ["pictures", "faults", "about"];
  const showPart = (wanted) => {
    for (const part of parts) {
      at(part).hidden = part !== wanted;
      const link = at(`to-${part}`);
      if (part === wanted) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    if (wanted === "pictures") layout();
  };

  const onKey = (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (typing || document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (at("pictures").hidden) return;
    const key = event.key.toLowerCase();
    const mark = Object.entries(MARKS).find(([, one]) => one.key === key);
    const [i] = shown(sheet.active.row, sheet.active.column);
    const onPicture = event.target.closest(".cell") !== null && i !== undefined;
    if (mark && onPicture) blora.toast.mark(i, mark[0]);
    else if (mark) blora.toast.show(`No picture has the focus: move to one with the arrow keys, then press ${key}`, false);
    else if (key === "u") blora.toast.undo();
    else if (key === "f") change({ size: 0 });
    else if (key === "/") at("search").focus();
    else if (key === "?") at("keys").showModal();
    else if (key === "g" || key === "w") change({ view: key === "g" ? "grid" : "wall" });
    else if (key.startsWith("arrow") && event.target === document.body) sheet.go(sheet.active.row, sheet.active.column);
    else return;
    event.preventDefault();
  };

  const start = () => {
    for (const part of parts) at(`to-${part}`).addEventListener("click", () => showPart(part));
    at("sort").append(...model.scores.map((score, number) =>
      element("option", { value: number, textContent: blora.title(score), title: blora.meaning(score) })),
      element("option", { value: -1, textContent: "as in the manifest" }));
    at("sort").addEventListener("change", (event) => {
      const score = model.scores[Number(event.target.value)];
      change({ sort: score ? score.name : "" });
    });
    at("direction").addEventListener("click", () => change({ worst: !view.worst }));
    at("as-grid").addEventListener("click", () => change({ view: "grid" }));
    at("as-wall").addEventListener("click", () => change({ view: "wall" }));
    at("size").addEventListener("input", (event) => change({ size: event.target.valueAsNumber }));
    at("fit").addEventListener("click", () => change({ size: 0 }));
    at("bar").addEventListener("submit", (event) => event.preventDefault());
    at("reviewer").value = marks.reviewer();
    at("reviewer").addEventListener("input", (event) => marks.reviewer(event.target.value));
    at("show-keys").addEventListener("click", () => at("keys").showModal());
    at("keys-close").addEventListener("click", () => at("keys").close());
    document.addEventListener("keydown", onKey);
    marks.onChange(() => {
      if (filter.decision && !document.querySelector("dialog[open]")) {
        const focused = at("sheet").contains(document.activeElement);
        update();
        if (focused) sheet.go(...nearest(sheet.active.row, sheet.active.column));
      } else {
        sheet.refresh();
        count();
      }
    });
    new ResizeObserver(() => {
      if (!at("pictures").hidden) layout();
    }).observe(at("sheet"));
    document.documentElement.classList.add("ready");
    showView();
    filters.start(update);
    views.start(`blora:views:${blora.data.run}`, recall);
    filters.recall(views.said());
    blora.saving.start();
    showPart("pictures");
  };
  start();
})();
