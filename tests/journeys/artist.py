"""An artist with a folder of photos, on a machine without a GPU, a bucket or a server."""

from __future__ import annotations

import re
import shutil
import urllib.request

from tests.documents import ROOT
from tests.journeys.transcript import Transcript

PICTURES = ROOT / "manifests" / "examples" / "pictures"
FEW_STEPS = "settings: {train: {steps: 4}, sample: {steps: 2}}\n"

WRONG = """\
version: 1
name: wrong
preset: papr
base: sdlx
prompt: a picture
contents: [{image: photos/aple.png, name: apple}, {image: photos/owl.png, name: owl}]
styles: [{image: looks/night.png, name: night}]
pairs: [{content: owl, style: nigth}]
"""


def artists_hour(hour: Transcript) -> None:
    """Type all that such a person types; leaves the store with two runs of the same pairs."""
    for folder, names in {"photos": ("apple", "owl"), "looks": ("sunset", "night")}.items():
        (hour.folder / folder).mkdir()
        for name in names:
            shutil.copy(PICTURES / f"{name}.png", hour.folder / folder)
    (hour.folder / "photos" / "cut.jpg").write_bytes(b"\xff\xd8\xff")

    hour.say("20: what the README says first; 18: which version; a word is mistyped")
    hour.type("--version")
    hour.type("pln", "night.yaml")
    hour.say("4: a folder is no manifest, and init makes one of it")
    hour.type("run", "photos")
    hour.type("init", "--contents", "photos", "--styles", "looks", "--out", "night.yaml")
    manifest = hour.folder / "night.yaml"
    hour.look("night.yaml", manifest.read_text())
    manifest.write_text(manifest.read_text() + FEW_STEPS)
    hour.say("8: every fault at once")
    (hour.folder / "wrong.yaml").write_text(WRONG)
    hour.type("validate", "wrong.yaml")
    hour.say("1: SDXL is one word away, and the small model says what it is not for")
    hour.type("plan", "night.yaml", "--base", "embedded", "--preset", "paper")
    hour.say("2, 16: what it will take, on which device")
    hour.type("plan", "night.yaml")
    hour.say("15, 12, 10: a run's first line, its bars, its worst pictures, its end and what to type next")
    hour.type("run", "night.yaml")
    hour.say("16: what was measured counts from now on")
    hour.type("plan", "night.yaml")
    hour.say("14: any name of a run will do")
    hour.type("scores", "night", "--top", "2")
    hour.type("status", "nigth")
    hour.say("6: Ctrl-C, and going on")
    hour.type("run", "night.yaml", "--set", "sample.steps=3", interrupt_at="drawing", after="page: ")
    assert hour.left_behind() == []
    hour.type("status", "latest")
    hour.type("rerun", "latest")
    hour.say("13: the page, shown and looked at")
    _look_at_the_page(hour)
    hour.say("pictures under names that a person reads")
    hour.type("export", "latest", "pictures")
    hour.look("pictures/", "\n".join(sorted(path.name for path in (hour.folder / "pictures").iterdir())))


def _look_at_the_page(hour: Transcript) -> None:
    """Serve the page of the last run until it has been fetched."""
    seen = []

    def fetch(text: str) -> None:
        address = re.search(r"http://127\S+", text)
        assert address, text
        with urllib.request.urlopen(address[0], timeout=60) as answer:
            page = answer.read().decode()
        seen.extend(re.findall(r"<title>(.*?)</title>", page))

    hour.type("serve", "latest", "--port", "0", interrupt_at="index.html", before=fetch)
    hour.look("the page's title", "\n".join(seen))
