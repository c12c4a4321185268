"""The built data set, as trainings read it: pictures, what each shows, and what is held out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Pictures:
    """What `build` left in a folder; arrays are aligned, one entry a picture.

    Attributes:
        folder: Where it lies.
        thing: Index into `things` of each picture.
        look: Index into `looks`.
        geometry: Pictures of one geometry share their layout exactly.
        placing: Pictures of one placing show a thing at one size and place, whoever drew it.
        native: Whether it is a drawing as its set has it, in the set's own look.
        judged: Whether it may be among those that trainings are judged by: a drawing of the sets, placed once.
        things: Code point, name, category and held_out of each thing.
        looks: Name, words and held_out of each look.
    """

    folder: Path
    thing: np.ndarray
    look: np.ndarray
    geometry: np.ndarray
    placing: np.ndarray
    native: np.ndarray
    judged: np.ndarray
    things: list[dict[str, Any]]
    looks: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Pictures:
        """Read all but the pixels."""
        index = np.load(folder / "index.npz")
        columns = {name: index[name] for name in ("thing", "look", "geometry", "placing", "native", "judged")}
        things, looks = (json.loads((folder / f"{name}.json").read_text()) for name in ("things", "looks"))
        return cls(folder, **columns, things=things, looks=looks)

    def __len__(self) -> int:
        return len(self.thing)

    def pixels(self) -> np.ndarray:
        """All pictures, uint8 (N, side, side, 3), read from disk as they are used."""
        return np.load(self.folder / "pictures.npy", mmap_mode="r")

    def held_out_thing(self) -> np.ndarray:
        """For each picture, whether its thing is kept out of all training."""
        return np.array([thing["held_out"] for thing in self.things])[self.thing]

    def held_out_look(self) -> np.ndarray:
        """For each picture, whether its look is kept out of all training."""
        return np.array([look["held_out"] for look in self.looks])[self.look]

    def for_training(self) -> np.ndarray:
        """Rows whose thing and look may both be trained on."""
        return np.flatnonzero(~self.held_out_thing() & ~self.held_out_look())

    def plain(self) -> dict[int, int]:
        """For each geometry the row of its drawing as the set has it; of sets that share one, the first."""
        native = np.flatnonzero(self.native)[::-1]
        return {int(g): int(row) for g, row in zip(self.geometry[native], native, strict=True)}
