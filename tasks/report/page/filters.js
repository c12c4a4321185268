"use strict";

/* What is shown: a search, a decision where the page has some, and a range of each score of `blora.model`, set on its
   histogram or in figures. */
blora.filters = (() => {
  const { element, model } = blora;
  const at = (id) => document.getElementById(id);
  const PARTS = 24;
  const filter = { text: "", decision: "", ranges: [] };
  let changed = () => {};

  const bounds = (row) => [...row.querySelectorAll("input")];
  const rows = () => [...at("range-rows").querySelectorAll(".range")];

  /* Which bars lie within the range. */
  const paint = (row) => {
    const score = model.scores[Number(row.dataset.score)];
    const [low, high] = bounds(row).map((input) => input.valueAsNumber);
    // A bound that was set by a bar is its edge in four digits, and may lie a little on the other side of it.
    const near = Math.min(5e-4 * Math.max(Math.abs(score.low), Math.abs(score.low + score.span)), score.span / PARTS / 2);
    [...row.querySelector(".histogram").children].forEach((bar, part) => {
      const [start, end] = [part, part + 1].map((edge) => score.low + (score.span * edge) / PARTS);
      bar.classList.toggle("out", end <= low + near || start >= high - near);
    });
  };

  const read = () => {
    filter.ranges = rows().flatMap((row) => {
      const [low, high] = bounds(row).map((input) => input.valueAsNumber);
      paint(row);
      if (Number.isNaN(low) && Number.isNaN(high)) return [];
      return [{ score: Number(row.dataset.score), low: Number.isNaN(low) ? -Infinity : low,
        high: Number.isNaN(high) ? Infinity : high }];
    });
    at("ranges-on").textContent = filter.ranges.length ? ` ${filter.ranges.length}` : "";
    changed();
  };

  /* Bars that a pointer is drawn over to set the range; a press on one bar sets its part alone. The two fields beside it
     do the same from the keyboard. */
  const histogram = (score, inputs) => {
    const counts = blora.histogram(score, PARTS);
    const most = Math.max(...counts);
    const made = element("div", { className: "histogram", "aria-hidden": "true", title: blora.meaning(score) },
      ...counts.map((count) => {
        const bar = element("i", { title: `${count} of ${score.known.length}` });
        bar.style.setProperty("--share", count ? Math.max(0.06, count / most) : 0);
        return bar;
      }));
    if (!score.span) return made; // all pictures are alike in it
    const partOf = (event) => {
      const box = made.getBoundingClientRect();
      return Math.max(0, Math.min(PARTS - 1, Math.floor(((event.clientX - box.left) / box.width) * PARTS)));
    };
    let begun = -1;
    const set = (event) => {
      const [first, last] = [begun, partOf(event)].sort((a, b) => a - b);
      const value = (edge) => String(Number((score.low + (score.span * edge) / PARTS).toPrecision(4)));
      inputs[0].value = first > 0 ? value(first) : "";
      inputs[1].value = last < PARTS - 1 ? value(last + 1) : "";
      read();
    };
    made.addEventListener("pointerdown", (event) => {
      made.setPointerCapture(event.pointerId);
      begun = partOf(event);
      set(event);
    });
    made.addEventListener("pointermove", (event) => {
      if (begun >= 0) set(event);
    });
    for (const end of ["pointerup", "pointercancel"]) made.addEventListener(end, () => { begun = -1; });
    return made;
  };

  const rangeRow = (score, number) => {
    const bound = (name, initial) => element("input", { type: "number", step: "any", placeholder: blora.number(initial),
      "aria-label": `${score.label}, ${name}`, oninput: read });
    const inputs = [bound("at least", score.low), bound("at most", score.high)];
    const row = element("div", { className: "range" },
      element("span", { className: "name", textContent: blora.title(score), title: blora.meaning(score) }),
      histogram(score, inputs),
      element("span", { className: "bounds" }, inputs[0], element("span", { textContent: "to" }), inputs[1]));
    row.dataset.score = number;
    return row;
  };

  const clearRanges = () => {
    for (const row of rows()) for (const input of bounds(row)) input.value = "";
    read();
  };

  const isOn = () => Boolean(filter.text || filter.decision || filter.ranges.length);

  const clear = () => {
    filter.text = filter.decision = at("search").value = "";
    if (at("decision")) at("decision").value = "";
    clearRanges();
  };

  /* The filters as text for the address, and back. */
  const told = () => ({
    text: filter.text, show: filter.decision,
    ...Object.fromEntries(filter.ranges.map(({ score, low, high }) => [`of.${model.scores[score].name}`,
      [low, high].map((value) => (Number.isFinite(value) ? value : "")).join("..")])),
  });
  const recall = (words) => {
    at("search").value = filter.text = words.get("text") || "";
    if (at("decision")) {
      at("decision").value = words.get("show") || "";
      filter.decision = at("decision").value;
    }
    for (const row of rows()) {
      const [low, high] = (words.get(`of.${model.scores[Number(row.dataset.score)].name}`) || "").split("..");
      const [lowest, highest] = bounds(row);
      [lowest.value, highest.value] = [low || "", high || ""];
    }
    read();
  };

  const start = (listener) => {
    changed = listener;
    at("range-rows").append(...model.scores.map(rangeRow));
    at("search").addEventListener("input", (event) => {
      filter.text = event.target.value.normalize("NFC").trim().toLowerCase();
      changed();
    });
    at("decision")?.addEventListener("change", (event) => {
      filter.decision = event.target.value;
      changed();
    });
    at("clear-ranges").addEventListener("click", clearRanges);
    at("clear").addEventListener("click", () => {
      clear();
      at("search").focus();
    });
    blora.popup(at("ranges"));
  };
  return { filter, start, clear, isOn, told, recall };
})();
