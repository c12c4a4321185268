"use strict";

/* The pairs of a comparison: a wall of two pictures a card, sorted by how much a score differs; one card in full. */
(() => {
  const { element, data } = blora;
  const at = (id) => document.getElementById(id);
  const WIDTH_PX = 300;
  const ratio = data.height / data.width;
  const scores = data.scores.map((score) => ({
    ...score,
    change: score.a.map((value, i) => (value === null || score.b[i] === null ? NaN : score.b[i] - value)),
  }));
  let [sort, worst, columns] = [0, true, 1];
  let list = data.names.map((_, i) => i);

  const update = () => {
    const score = scores[sort];
    if (score) {
      const sign = (score.lower ? -1 : 1) * (worst ? 1 : -1);
      list.sort((x, y) => {
        const [a, b] = [score.change[x], score.change[y]];
        return Number.isNaN(a) - Number.isNaN(b) || sign * (a - b) || x - y;
      });
    }
    at("direction").textContent = worst ? "b worse first" : "b better first";
    layout();
  };
  const layout = () => {
    const room = Math.max(at("sheet").clientWidth, 200);
    columns = Math.max(1, Math.floor(room / WIDTH_PX));
    const width = Math.floor(room / columns);
    const height = Math.round(((width - 14) / 2) * ratio) + 46;
    sheet.layout({ rows: Math.ceil(list.length / columns), columns, width, height, left: 0, top: 0 });
  };

  const signed = (value) => (Number.isNaN(value) ? "–" : `${value < 0 ? "−" : "+"}${blora.number(Math.abs(value))}`);
  const thumbnail = (number) => {
    if (data.keys[number] === null) return element("div", { className: "missing", textContent: "not drawn" });
    const image = element("img", { alt: "", decoding: "async" });
    blora.thumbnails.show(image, number);
    return image;
  };
  const has = (row, column) => row >= 0 && column >= 0 && column < columns && row * columns + column < list.length;
  const fill = (cell, row, column) => {
    const i = list[row * columns + column];
    const change = scores[sort] ? signed(scores[sort].change[i]) : "";
    cell.replaceChildren(
      element("div", { className: "frame twins", "aria-hidden": "true" }, thumbnail(2 * i), thumbnail(2 * i + 1)),
      element("div", { className: "caption", "aria-hidden": "true" },
        element("span", { className: "name", textContent: data.names[i], title: data.names[i] }),
        element("span", { className: "value", textContent: change })),
      element("span", { className: "said", textContent: `${data.names[i]}, ${change}` }),
    );
  };

  const open = (row, column) => {
    const i = list[row * columns + column];
    at("twin-heading").textContent = data.names[i];
    const figure = (title, key) => element("figure", { className: "side" },
      key === null ? element("div", { className: "missing", textContent: "not drawn" })
        : element("img", { src: data.root + key, alt: `${data.names[i]}, ${title}` }),
      element("figcaption", { textContent: title }));
    const rows = scores.map((score) => element("tr", {},
      element("th", { scope: "row", textContent: blora.title(score), title: blora.meaning(score) }),
      ...[score.a[i], score.b[i]].map((value) => element("td", { className: "value", textContent: blora.number(value ?? NaN) })),
      element("td", { className: "value", textContent: signed(score.change[i]) })));
    at("twin-body").replaceChildren(
      element("div", { className: "two" }, figure("a", data.keys[2 * i]), figure("b", data.keys[2 * i + 1])),
      element("table", {}, element("thead", {}, element("tr", {},
        ...["score", "a", "b", "b − a"].map((name, n) => element("th", { scope: "col", textContent: name, className: n ? "value" : "" })))),
        element("tbody", {}, ...rows)));
    at("twin").showModal();
  };

  const sheet = new blora.Sheet(at("sheet"), { has, fill, open, fillHead: () => {} });
  at("sort").append(...scores.map((score, number) => element("option", { value: number, textContent: blora.title(score) })));
  at("sort").addEventListener("change", (event) => {
    sort = Number(event.target.value);
    update();
  });
  at("direction").addEventListener("click", () => {
    worst = !worst;
    update();
  });
  at("bar").addEventListener("submit", (event) => event.preventDefault());
  at("twin-close").addEventListener("click", () => at("twin").close());
  let width = 0;
  new ResizeObserver(() => {
    if (at("sheet").clientWidth === width) return;
    width = at("sheet").clientWidth;
    layout();
  }).observe(at("sheet"));
  document.documentElement.classList.add("ready");
  update();
})();
