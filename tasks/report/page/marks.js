"use strict";

/* Decisions: keep, reject, redo. Those recorded in the store came with the page; those made here are kept in this
   browser at once, so that nothing is lost if the tab closes, and leave it as a small file. The later mark counts. */
blora.marks = (() => {
  const KEY = `blora:decisions:${blora.data.run}`;
  const REVIEWER = "blora:reviewer";
  const recorded = new Map(Object.entries(blora.data.marks));
  let own = new Map();
  let kept = true; // whether this browser keeps anything for pages like this one
  const listeners = [];
  const before = []; // what was marked here, and what stood there: [id, mark or undefined]

  const load = () => {
    try {
      own = new Map(Object.entries(JSON.parse(localStorage.getItem(KEY) || "{}")));
    } catch {
      kept = false;
    }
  };
  const save = () => {
    try {
      localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(own)));
    } catch {
      kept = false;
    }
  };
  const tell = (id) => listeners.forEach((listener) => listener(id));

  const latest = (id) => {
    const [mine, theirs] = [own.get(id), recorded.get(id)];
    return mine && (!theirs || mine[1] >= theirs[1]) ? mine : theirs;
  };
  const decision = (id) => (latest(id) || ["undecided"])[0];

  /* Mark a picture; the same mark again takes it back. */
  const toggle = (id, wanted) => {
    const next = decision(id) === wanted ? "undecided" : wanted;
    before.push([id, own.get(id)]);
    if (next === "undecided" && !recorded.has(id)) own.delete(id);
    else own.set(id, [next, Date.now()]);
    save();
    tell(id);
    return next;
  };

  /* Take the last mark made here back; gives the picture's id, or null where there is none. */
  const undo = () => {
    if (!before.length) return null;
    const [id, mark] = before.pop();
    if (mark) own.set(id, mark);
    else own.delete(id);
    save();
    tell(id);
    return id;
  };

  /* The store has these marks now: what was not marked anew since need not be kept here. */
  const saved = (sent) => {
    for (const { sample_id: id, decided_at: at } of sent.decisions) {
      if (own.get(id)?.[1] === Date.parse(at)) own.delete(id);
    }
    save();
  };

  const tally = () => {
    const counts = { keep: 0, reject: 0, redo: 0 };
    for (const id of new Set([...own.keys(), ...recorded.keys()])) {
      if (decision(id) in counts) counts[decision(id)] += 1;
    }
    return counts;
  };

  const reviewer = (name) => {
    try {
      if (name !== undefined) localStorage.setItem(REVIEWER, name);
      return localStorage.getItem(REVIEWER) || "";
    } catch {
      return name || "";
    }
  };

  /* What was marked here, as `blora review` reads it. */
  const file = (name) => ({
    format: 1,
    run_id: blora.data.run,
    reviewer: name.slice(0, 200),
    decisions: [...own]
      .filter(([id]) => blora.model.byId.has(id))
      .map(([id, [said, at]]) => ({ sample_id: id, decision: said, decided_at: new Date(at).toISOString() })),
  });

  load();
  addEventListener("storage", (event) => {
    if (event.key !== KEY) return; // another tab of the same page
    load();
    tell(null);
  });
  return {
    decision, toggle, undo, saved, tally, file, reviewer, canUndo: () => before.length > 0,
    by: (id) => (latest(id) || [])[2] || "",
    redo: (id) => (recorded.get(id) || [])[3] || "",
    ownCount: () => own.size,
    isKept: () => kept,
    onChange: (listener) => listeners.push(listener),
  };
})();

blora.MARKS = {
  keep: { word: "kept", verb: "Keep", key: "k", sign: "✓" },
  reject: { word: "rejected", verb: "Reject", key: "r", sign: "✕" },
  redo: { word: "to be redone", verb: "Redo", key: "d", sign: "↻" },
};
