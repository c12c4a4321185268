"use strict";

/* The pictures of a run as rows, out of the columns of data.js: names, scores, filters and orders. No page in here. */
blora.model = (() => {
  const data = blora.data;
  const samples = data.samples;
  const count = samples.id.length;
  const scores = data.scores.map((score) => {
    const values = Float64Array.from(score.values, (value) => (value === null ? NaN : value));
    const known = values.filter((value) => !Number.isNaN(value)).sort();
    const [low, high] = [known[0], known[known.length - 1]];
    return { ...score, values, low, high, known, span: high - low };
  });
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

  /* What a score has to be multiplied by for the worst to be the smallest. */
  const worse = (score) => (score.lower ? -1 : 1);

  const passes = (i, filter, marks) => {
    if (filter.text && !filter.text.split(/\s+/).every((word) => searched[i].includes(word))) return false;
    if (filter.decision === "missing" ? there(i) : filter.decision === "chosen" ? !chosen(i)
      : filter.decision && marks.decision(samples.id[i]) !== filter.decision) {
      return false;
    }
    for (const { score, low, high } of filter.ranges) {
      const value = scores[score].values[i];
      if (Number.isNaN(value) || value < low || value > high) return false;
    }
    return true;
  };

  const compare = (score, worstFirst) => {
    const { values } = scores[score];
    const sign = worse(scores[score]) * (worstFirst ? 1 : -1);
    return (a, b) => {
      const [x, y] = [values[a], values[b]];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
      return sign * (x - y) || a - b;
    };
  };

  /* Numbers of the pictures that pass the filter, in order. `sort` is the number of a score, or -1 for the manifest's. */
  const order = (filter, sort, worstFirst, marks) => {
    const list = [];
    for (let i = 0; i < count; i += 1) if (passes(i, filter, marks)) list.push(i);
    return sort < 0 ? list : list.sort(compare(sort, worstFirst));
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
      const sign = worse(scores[sort]) * (worstFirst ? 1 : -1);
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

  /* How many of the run's pictures have a score in each of so many equal parts of its range. */
  const histogram = (score, parts) => {
    const counts = new Array(parts).fill(0);
    for (const value of score.known) {
      counts[score.span ? Math.min(parts - 1, Math.floor(((value - score.low) / score.span) * parts)) : 0] += 1;
    }
    return counts;
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
    histogram, share, reason, candidatesOf: (i) => candidates.get(pairOf(i)) };
})();
