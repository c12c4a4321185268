"use strict";

/* How decisions leave the page: as a file, or, where `blora serve` shows it, straight into the store. */
blora.saving = (() => {
  const { element, marks } = blora;
  const at = (id) => document.getElementById(id);
  /* The address of a served page begins with the secret word of this serving; a page elsewhere has no such beginning. */
  const served = location.hostname === "127.0.0.1" && /^\/serve-[\w-]{20,}\//.exec(location.pathname);
  const many = (count) => (count === 1 ? "1 decision" : `${count} decisions`);

  const exported = () => {
    const file = marks.file(at("reviewer").value);
    const name = `${blora.data.run}.decisions.json`;
    const address = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], { type: "application/json" }));
    element("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    at("next").textContent = `${many(file.decisions.length)} in a file. Next: ${blora.data.review.replace("FILE", name)}`;
  };

  const saved = async () => {
    const file = marks.file(at("reviewer").value);
    at("export").disabled = true;
    at("next").textContent = "Saving …";
    try {
      const answer = await fetch(`${served[0]}decisions`, { method: "POST", body: JSON.stringify(file),
        headers: { "content-type": "application/json" } });
      const body = await answer.json();
      if (!answer.ok) throw new Error(body.error);
      marks.saved(file);
      sessionStorage.setItem("blora:said", `${many(file.decisions.length)} saved.${body.next ? ` Next: ${body.next}` : ""}`);
      location.reload(); // the page was written anew: pictures to be redone, other candidates chosen
    } catch (error) {
      at("export").disabled = false;
      at("next").textContent = `Not saved: ${error.message}. The decisions are kept in this browser.`;
    }
  };

  const start = () => {
    at("export").textContent = served ? "Save decisions" : "Export decisions";
    at("export").addEventListener("click", served ? saved : exported);
    if (!served) return;
    at("how-to-save").textContent = "Decisions are kept in this browser as they are made; Save writes them into the store.";
    at("next").textContent = sessionStorage.getItem("blora:said") || "";
    sessionStorage.removeItem("blora:said");
  };
  return { start };
})();
