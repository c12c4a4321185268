"use strict";

/* The pairs of a comparison: what each score is in run a, in run b, and by how much it differs. No page in here. */
blora.model = (() => {
  const { data } = blora;
  const count = data.names.length;
  const parts = data.scores.map((score) => ({
    ...score,
    a: blora.scored({ ...score, values: score.a }),
    b: blora.scored({ ...score, values: score.b }),
    change: blora.scored({ ...score,
      values: score.a.map((value, i) => (value === null || score.b[i] === null ? null : score.b[i] - value)) }),
  }));
  /* What filters set ranges on. */
  const scores = parts.map((score) => ({ ...score.change, label: `${score.label}, b − a` }));
  const searched = data.names.map((name) => name.toLowerCase());

  const passes = (filter, i) => filter.text.split(/\s+/).every((word) => searched[i].includes(word))
    && blora.within(scores, filter.ranges, i);

  /* Numbers of the pairs that pass the filter, by a part (a, b or change) of a score; null: as they come. */
  const order = (filter, score, part, worstFirst) => {
    const list = Array.from({ length: count }, (_, i) => i).filter((i) => passes(filter, i));
    return score ? list.sort(blora.byScore(score[part], worstFirst)) : list;
  };

  /* The pairs of a list by content or style, or each by itself: [{name, items}], in the order of the first of each. */
  const groups = (list, by) => {
    if (!by) return list.map((i) => ({ name: data.names[i], items: [i] }));
    const made = new Map();
    for (const i of list) {
      const name = data[by][i];
      if (made.has(name)) made.get(name).items.push(i);
      else made.set(name, { name, items: [i] });
    }
    return [...made.values()];
  };

  return { count, parts, scores, order, groups };
})();
