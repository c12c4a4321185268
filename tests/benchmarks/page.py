"""How fast the page of a large run opens and scrolls: ``python -m tests.benchmarks.page [--side 100] [--keep DIR]``.

Baseline: the plain page that one would write first, the same thumbnails as one file and one ``<img loading=lazy>`` a
picture, all of them in the document. Ours: the page of the run, its grid and its wall. Both are opened from the disk in
chromium, several times, and the best time counts, for other programs can only slow a browser down. Times are taken
inside the browser: until the first screen of thumbnails is decoded, and frame times of 90 steps of scrolling. On a busy
machine those say little; `cpu` is the processor time of the page's main thread alone, which no other program changes
much: until that first screen, and a step of scrolling.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests import layout
from manifests.store.store import Store
from tasks.report.run_page import write_report
from tests.browser import browsing
from tests.made_run import finish, plan_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

STEPS = 90
SCROLL = """([selector, step]) => new Promise((done) => {
  const box = selector ? document.querySelector(selector) : document.scrollingElement;
  const times = [];
  let before = 0;
  const move = (now) => {
    if (before) times.push(now - before);
    before = now;
    box.scrollTop += step;
    if (times.length < 90) { requestAnimationFrame(move); return; }
    times.sort((a, b) => a - b);
    done({ median_ms: times[45], p95_ms: times[85], most_ms: times[89] });
  };
  requestAnimationFrame(move);
})"""
SEEN = """(least) => [...document.images].filter((one) => {
  const box = one.getBoundingClientRect();
  return one.complete && one.naturalWidth && box.bottom > 0 && box.top < innerHeight;
}).length >= least"""


def write_plain(folder: Path, page: Path) -> Path:
    """The baseline: a page with every thumbnail of another page as a file of its own."""
    data = json.loads((page / "data.js").read_text().split("blora.data = ", 1)[1].rstrip(";\n"))
    pictures: list[str] = []
    for name, _ in data["thumbnails"]:
        text = (page / "thumbnails" / f"{name}.js").read_text()
        pictures += json.loads(text[text.index("[") : text.rindex("]") + 1])
    folder.mkdir(parents=True, exist_ok=True)
    cells = []
    for number, picture in enumerate(pictures[len(data["references"]) :]):
        (folder / f"{number}.webp").write_bytes(base64.b64decode(picture))
        cells.append(f'<figure><img loading="lazy" src="{number}.webp"><figcaption>{number}</figcaption></figure>')
    style = "body{display:flex;flex-wrap:wrap;gap:10px}figure{margin:0}img{width:152px;height:152px}"
    index = folder / "index.html"
    index.write_text(f"<!doctype html><style>{style}</style>" + "".join(cells))
    return index


def visit(browser: Browser, index: Path, keys: str, selector: str) -> dict[str, Any]:
    """Open a page once and scroll it."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def cpu_seconds() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    page.goto(index.as_uri(), wait_until="commit")
    page.wait_for_function(SEEN, arg=20, timeout=120_000)
    found: dict[str, Any] = {"open_s": page.evaluate("performance.now()") / 1000, "open_cpu_s": cpu_seconds()}
    for key in keys:
        page.keyboard.press(key)
    found["elements"] = page.evaluate("document.getElementsByTagName('*').length")
    before = cpu_seconds()
    found |= page.evaluate(SCROLL, [selector, 180])
    found["step_cpu_ms"] = (cpu_seconds() - before) * 1000 / STEPS
    context.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=100, help="contents, and styles")
    parser.add_argument("--keep", default="", help="folder of the run; taken up again if it is there")
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(given.keep or temporary)
        names = [f"thing {n:03}" for n in range(given.side)], [f"look {n:03}" for n in range(given.side)]
        store, plan = plan_run(root, *names)
        page = Path(store.root) / layout.report_prefix(plan.run.run_id)
        if not page.exists():
            finish(store, plan)
        started = time.perf_counter()
        write_report(Store.open(store.root), plan)
        written_seconds = time.perf_counter() - started
        plain = write_plain(root / "plain", page)
        ways = {
            "plain": (plain, "", ""),
            "grid": (page / "index.html", "g", "#sheet"),
            "wall": (page / "index.html", "w", "#sheet"),
        }
        with browsing() as browser:
            tried = {name: [visit(browser, *way) for _ in range(given.times)] for name, way in ways.items()}
    best = {name: {key: min(one[key] for one in some) for key in some[0]} for name, some in tried.items()}
    print(
        f"{len(plan.samples)} pictures; report written again in {written_seconds:.1f} s; load {os.getloadavg()[0]:.1f}"
    )
    print(f"data.js {(page / 'data.js').stat().st_size / 1e6:.2f} MB" if given.keep else "")
    for name, found in best.items():
        ratios = [best["plain"][key] / found[key] for key in ("open_cpu_s", "step_cpu_ms")]
        shown = ", ".join(f"{key} {value:.3g}" for key, value in found.items())
        print(f"{name:<6} {shown}; plain takes {ratios[0]:.1f} times the cpu to open, {ratios[1]:.1f} times to scroll")


if __name__ == "__main__":
    main()
