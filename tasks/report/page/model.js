"use strict";

/* The pictures of a run as rows, out of the columns of data.js: names, scores, filters and orders. No page in here. */
blora.model = (() => {
  const data = blora.data;
  const samples = data.samples;
  const count = samples.id.length;
  const scores = data.scores.map(blora.scored);
  const reference = new Map(data.references.map((key, number) => [key, number]));

  const content = (i) => data.contents[samples.content[i]];
  const style = (i) => data.styles[samples.style[i]];
  const chosen = (i) => samples.best[i] === 1;
  const there = (i) => samples.bytes[i] !== null;
  const pairOf = (i) => samples.content[i] * data.styles.length + samples.style[i];
  const searched = Array.from({ length: count }, (_, i) =>
    `${content(i).name} ${style(i).name} ${samples.seed[i]}`.toLowerCase(),
  );
  const candidates = new Map();
  const byId = new Map();
  for (let i = 0; i < count; i += 1) {
    byId.set(samples.id[i], i);
    if (candidates.has(pairOf(i))) candidates.get(pairOf(i)).push(i);
    else candidates.set(pairOf(i), [i]);
  }

  const label = (i) => `${content(i).name} in ${style(i).name}, seed ${samples.seed[i]}`;
  const picture = (i) => `${data.root}samples/${content(i).id}/${style(i).id}/${samples.id[i]}.png`;

  const passes = (i, filter, marks) => {
    if (filter.text && !filter.text.split(/\s+/).every((word) => searched[i].includes(word))) return false;
    if (filter.decision === "missing" ? there(i) : filter.decision === "chosen" ? !chosen(i)
      : filter.decision && marks.decision(samples.id[i]) !== filter.decision) {
      return false;
    }
    return blora.within(scores, filter.ranges, i);
  };

  /* Numbers of the pictures that pass the filter, in order. `sort` is the number of a score, or -1 for the manifest's. */
  const order = (filter, sort, worstFirst, marks) => {
    const list = [];
    for (let i = 0; i < count; i += 1) if (passes(i, filter, marks)) list.push(i);
    return sort < 0 ? list : list.sort(blora.byScore(scores[sort], worstFirst));
  };

  /* The same as a grid: contents down, styles across, both in the order of their mean score; pairs without a picture
     that passes stay empty, rows and columns of nothing but those are left out. In a cell what was chosen stands before
     the other candidates; means are of the first in each cell, which is what the grid shows. */
  const grid = (list, sort, worstFirst) => {
    const cells = new Map();
    for (const i of [...list.filter(chosen), ...list.filter((one) => !chosen(one))]) {
      if (cells.has(pairOf(i))) cells.get(pairOf(i)).push(i);
      else cells.set(pairOf(i), [i]);
    }
    const first = [...cells.values()].map((some) => some[0]);
    const meansOf = (column) => {
      const sums = new Map();
      for (const i of first) {
        const sum = sums.get(column[i]) || { total: 0, known: 0 };
        const value = sort < 0 ? NaN : scores[sort].values[i];
        if (!Number.isNaN(value)) {
          sum.total += value;
          sum.known += 1;
        }
        sums.set(column[i], sum);
      }
      return new Map([...sums].map(([side, sum]) => [side, sum.known ? sum.total / sum.known : NaN]));
    };
    const arrange = (means) => {
      const sides = [...means.keys()].sort((a, b) => a - b);
      if (sort < 0) return sides;
      const sign = blora.worse(scores[sort]) * (worstFirst ? 1 : -1);
      const place = (side) => (Number.isNaN(means.get(side)) ? Infinity : sign * means.get(side));
      return sides.sort((a, b) => place(a) - place(b) || a - b);
    };
    const [contentMeans, styleMeans] = [meansOf(samples.content), meansOf(samples.style)];
    return {
      contents: arrange(contentMeans),
      styles: arrange(styleMeans),
      contentMean: (row) => contentMeans.get(row),
      styleMean: (column) => styleMeans.get(column),
      at: (row, column) => cells.get(row * data.styles.length + column) || [],
    };
  };

  /* Where a value lies between the run's worst and best, 0 to 1; NaN where all are equal. */
  const share = (score, value) => {
    const up = score.span ? (value - score.low) / score.span : NaN;
    return score.lower ? 1 - up : up;
  };

  /* Why a picture is not there. */
  const reason = (i) => data.missing[i] || "";

  /* Which share of the run's pictures is worse than this one, 0 to 1. */
  const rank = (score, value) => {
    let [low, high] = [0, score.known.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (score.known[middle] < value) low = middle + 1;
      else high = middle;
    }
    const share = score.known.length > 1 ? low / (score.known.length - 1) : 1;
    return score.lower ? 1 - share : share;
  };

  return { count, scores, samples, content, style, there, chosen, label, picture, order, grid, rank, byId, reference,
    share, reason, candidatesOf: (i) => candidates.get(pairOf(i)) };
})();
