"""A researcher with a table of pairs and two runs to look into."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.journeys.transcript import Transcript

PAIRS = """\
content,style,seeds,content_strength
photos/apple.png,looks/sunset.png,0|1,1
photos/apple.png,looks/night.png,0,0.8
photos/owl.png,looks/night.png,0,strong
"""


def researchers_hour(hour: Transcript, artist: Path, few: str, more: str) -> None:
    """Type all that such a person types.

    Args:
        hour: whose folder has a store with two runs of the same pairs.
        artist: where the pictures are.
        few: the run whose pictures were drawn in fewer steps.
        more: the other one.
    """
    for folder in ("photos", "looks"):
        shutil.copytree(artist / folder, hour.folder / folder)
    hour.say("18: what may be set")
    hour.type("presets", is_exact=True)
    hour.type("settings", "guidance", is_exact=True)
    hour.type("settings", "guidanse", is_exact=True)
    hour.say("1: a table names no base, and paper means SDXL")
    table = hour.folder / "pairs.csv"
    table.write_text(PAIRS)
    hour.type("validate", "pairs.csv")
    table.write_text(PAIRS.replace("strong", "1"))
    hour.type("plan", "pairs.csv", "--preset", "paper")
    hour.type("plan", "pairs.csv", "--preset", "paper", "--set", "train.steps=0", "--set", "sample.stepps=20")
    hour.say("11, 9: filters, what they do not find, and what scores mean")
    hour.type("scores", few, "--where", "style=night and colour_distance >= 0", "--sort", "colour_distance")
    hour.type("scores", few, "--where", "style=night and colour_distance > 500")
    hour.type("scores", few, "--where", "stile=night")
    hour.type("scores", few, "--explain")
    hour.say("10: where a score says nothing, that is said")
    hour.type("scores", few, "--sort", "transfer")
    hour.say("two settings side by side")
    hour.type("compare", few, more)
    hour.say("18: the instruments say what they take")
    hour.type("probe", "--help", is_exact=True)
    hour.type("bench", "--help", is_exact=True)
    hour.type("bench", "out", "--device", "cuda:0")


def drawing_steps(run: Path) -> int:
    """In how many steps the pictures of a run, which is a folder of a store, were drawn."""
    return int(json.loads((run / "run.json").read_text())["settings"]["sample"]["steps"])
