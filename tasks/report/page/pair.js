"use strict";

/* One pair in full: both references, every candidate beside the others with its scores, and the marks. */
blora.pair = (() => {
  const { element, model, marks, MARKS } = blora;
  const dialog = document.getElementById("pair");
  const body = document.getElementById("pair-body");
  const heading = document.getElementById("pair-heading");
  let current = -1;
  let neighbour = () => -1;

  const reference = (title, side) => {
    const pictures = side.images.map((key) =>
      element("img", { src: blora.data.root + key, alt: `${title}: ${side.name}`, loading: "lazy", decoding: "async" }),
    );
    const links = [];
    if (blora.data.adapters && side.whole) {
      for (const half of ["content", "style"]) {
        const href = `${blora.data.root}adapters/${side.id}/${half}.safetensors`;
        links.push(element("a", { href, textContent: `${half} half`, download: "" }), " ");
      }
    }
    return element("figure", { className: "side" },
      element("div", { className: "photos" }, ...pictures),
      element("figcaption", {}, element("span", { className: "kind", textContent: title }), ` ${side.name}`,
        element("div", { className: "links" }, ...links)),
    );
  };

  const scoreRow = (score, i) => {
    const value = score.values[i];
    if (Number.isNaN(value)) return [];
    const meter = element("meter", { min: 0, max: 1, value: model.rank(score, value) });
    const percent = Math.round(model.rank(score, value) * 100);
    meter.setAttribute("aria-label", `better than ${percent} % of the run`);
    meter.title = `better than ${percent} % of the run`;
    return [element("tr", { title: blora.meaning(score) },
      element("th", { scope: "row", textContent: blora.title(score) }),
      element("td", { className: "value", textContent: blora.number(value) }),
      element("td", {}, meter),
    )];
  };

  const settings = (i) => {
    const { samples } = model;
    const [prompt, contentPrompt, negative] = blora.data.prompts[samples.prompt[i]];
    const [contentDial, styleDial] = blora.data.dials[samples.dials[i]];
    const rows = [["seed", samples.seed[i]], ["prompt", prompt], ["content prompt", contentPrompt],
      ["negative prompt", negative], ["content strength", contentDial], ["style strength", styleDial],
      ["bytes", samples.bytes[i]], ["id", samples.id[i]]];
    return element("dl", {}, ...rows.filter(([, value]) => value !== "" && value !== null).flatMap(([name, value]) =>
      [element("dt", { textContent: name }), element("dd", { textContent: String(value) })]));
  };

  const buttons = (i) => {
    const id = model.samples.id[i];
    return element("div", { className: "verdict", role: "group", "aria-label": "Decision" },
      ...Object.entries(MARKS).map(([name, mark]) => element("button", {
        type: "button", className: `mark ${name}`, "aria-pressed": String(marks.decision(id) === name),
        "aria-keyshortcuts": mark.key, onclick: () => blora.toast.mark(i, name),
      }, `${mark.sign} ${mark.verb} `, element("kbd", { textContent: mark.key }))));
  };

  const picture = (i) => {
    if (!model.there(i)) {
      return element("div", { className: "missing" }, "not drawn",
        element("small", { textContent: model.reason(i) }));
    }
    const image = element("img", { alt: model.label(i), decoding: "async", width: blora.data.width,
      height: blora.data.height });
    if (blora.data.pictures) image.src = model.picture(i);
    else blora.thumbnails.show(image, blora.data.references.length + i);
    if (!blora.data.pictures) return image;
    return element("a", { href: model.picture(i), target: "_blank", rel: "noopener", title: "Open the picture alone" }, image);
  };

  const candidate = (i) => {
    const id = model.samples.id[i];
    const label = model.label(i) + (model.chosen(i) ? ", chosen" : "");
    const made = element("article", { className: "candidate", tabIndex: -1, "aria-label": label });
    made.dataset.i = i;
    made.dataset.mark = marks.decision(id);
    if (i === current) made.setAttribute("aria-current", "true");
    const redo = model.byId.get(marks.redo(id));
    const notes = [];
    if (marks.by(id)) notes.push(`marked by ${marks.by(id)}`);
    if (redo !== undefined) notes.push(`asked for again as seed ${model.samples.seed[redo]}`);
    made.append(
      element("h3", {}, `seed ${model.samples.seed[i]}`,
        ...(model.chosen(i) ? [element("span", { className: "best", textContent: "★ chosen" })] : [])),
      picture(i),
      buttons(i),
      element("p", { className: "note", textContent: notes.join(" · ") }),
      element("table", { className: "scores" },
        element("caption", { className: "quiet", textContent: `scores of seed ${model.samples.seed[i]}` }),
        element("tbody", {}, ...model.scores.flatMap((score) => scoreRow(score, i)))),
      element("details", {}, element("summary", { textContent: "Settings" }), settings(i)),
    );
    made.addEventListener("focusin", () => {
      if (current !== i) select(i, false);
    });
    return made;
  };

  const select = (i, focus = true) => {
    current = i;
    for (const made of body.querySelectorAll(".candidate")) {
      if (Number(made.dataset.i) === i) {
        made.setAttribute("aria-current", "true");
        if (focus) made.focus();
      } else made.removeAttribute("aria-current");
    }
  };

  const draw = () => {
    const inside = body.contains(document.activeElement) ? document.activeElement.closest("button.mark") : null;
    const name = inside && [...inside.classList].find((one) => one in MARKS);
    heading.textContent = `${model.content(current).name} in ${model.style(current).name}`;
    body.replaceChildren(
      element("div", { className: "sides" }, reference("content", model.content(current)),
        reference("style", model.style(current))),
      element("div", { className: "candidates" }, ...model.candidatesOf(current).map(candidate)),
    );
    const button = name && body.querySelector(`[aria-current] button.${name}`);
    if (button) button.focus();
    else select(current);
  };

  const step = (by) => {
    const all = model.candidatesOf(current);
    const place = all.indexOf(current) + by;
    if (place >= 0 && place < all.length) {
      select(all[place]);
      return;
    }
    const other = neighbour(current, by);
    if (other >= 0) open(other, neighbour);
  };

  /* Open the pair of picture `i`; `beside(i, ±1)` says which picture comes before and after it, -1 where none does. */
  const open = (i, beside) => {
    current = i;
    neighbour = beside;
    draw();
    body.scrollTop = 0;
    if (!dialog.open) dialog.showModal();
    select(i);
  };

  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const mark = Object.entries(MARKS).find(([, one]) => one.key === event.key.toLowerCase());
    if (mark) blora.toast.mark(current, mark[0]);
    else if (event.key.toLowerCase() === "u") blora.toast.undo();
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowLeft") step(-1);
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  document.getElementById("pair-close").addEventListener("click", () => dialog.close());
  document.getElementById("pair-before").addEventListener("click", () => step(-1));
  document.getElementById("pair-after").addEventListener("click", () => step(1));
  marks.onChange(() => {
    if (dialog.open) draw();
  });
  return { open, current: () => current, onClose: (listener) => dialog.addEventListener("close", listener) };
})();
