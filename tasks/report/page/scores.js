"use strict";

/* Columns of numbers, a score each, and what pages ask of them. */

/* A score with its values as numbers, NaN where there is none, and the range of those that are known. */
blora.scored = (score) => {
  const values = Float64Array.from(score.values, (value) => value ?? NaN);
  const known = values.filter((value) => !Number.isNaN(value)).sort();
  const [low, high] = [known[0], known[known.length - 1]];
  return { ...score, values, low, high, known, span: high - low };
};

/* What a score has to be multiplied by for the worst to be the smallest. */
blora.worse = (score) => (score.lower ? -1 : 1);

/* Compares two items by a score; those without one come last, equal ones as they were. */
blora.byScore = (score, worstFirst) => {
  const { values } = score;
  const sign = blora.worse(score) * (worstFirst ? 1 : -1);
  return (a, b) => {
    const [x, y] = [values[a], values[b]];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
    return sign * (x - y) || a - b;
  };
};

/* Whether an item lies within ranges of scores: [{score, low, high}], scores by their numbers. */
blora.within = (scores, ranges, i) => ranges.every(({ score, low, high }) => {
  const value = scores[score].values[i];
  return value >= low && value <= high; // never of NaN
});

/* How many items have a score in each of so many equal parts of its range. */
blora.histogram = (score, parts) => {
  const counts = new Array(parts).fill(0);
  for (const value of score.known) {
    counts[score.span ? Math.min(parts - 1, Math.floor(((value - score.low) / score.span) * parts)) : 0] += 1;
  }
  return counts;
};

/* The mean of what is known of some items; NaN where nothing is. */
blora.mean = (score, items) => {
  const known = items.map((i) => score.values[i]).filter((value) => !Number.isNaN(value));
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : NaN;
};
