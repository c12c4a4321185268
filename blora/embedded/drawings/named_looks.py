"""The looks: those with words, those held out, and as many more as one likes, drawn by lot."""

from __future__ import annotations

from functools import partial

import numpy as np

from blora.embedded.drawings.looks import WHITE, Colour, Look, luminance

NAMED: tuple[Look, ...] = (
    Look("sky", "sky blue paper", paper=(120, 185, 235)),
    Look("rose", "pink paper", paper=(250, 175, 195)),
    Look("lemon", "yellow paper", paper=(252, 222, 90)),
    Look("meadow", "green paper", paper=(140, 205, 120)),
    Look("black", "black paper", paper=(12, 12, 16)),
    Look("kraft", "brown kraft paper", paper=(190, 150, 105), texture="grain", texture_size=0.5),
    Look("lilac", "purple paper", paper=(150, 120, 200)),
    Look("brick", "red paper", paper=(200, 60, 50)),
    Look("dusk", "sunset sky", paper=(60, 50, 120), paper2=(250, 150, 90), paper_kind="down"),
    Look("spotlight", "spotlight", paper=(255, 250, 220), paper2=(60, 45, 40), paper_kind="radial"),
    Look("candy", "candy stripes", paper=(255, 235, 240), paper2=(245, 150, 175), paper_kind="stripes"),
    Look("polka", "polka dots", paper=(240, 245, 255), paper2=(90, 140, 220), paper_kind="dots"),
    Look("tiles", "checkered tiles", paper=(235, 235, 225), paper2=(170, 190, 170), paper_kind="checks"),
    Look(
        "sepia",
        "sepia photograph",
        colours="map",
        palette=((45, 25, 10), (150, 105, 65), (240, 220, 180)),
        paper=(232, 212, 172),
    ),
    Look("blueprint", "blueprint", line="edges", ink=(225, 240, 255), paper=(25, 70, 150)),
    Look(
        "night",
        "moonlit night",
        colours="map",
        palette=((5, 8, 30), (30, 50, 110), (150, 180, 240)),
        paper=(10, 14, 45),
    ),
    Look(
        "sunset",
        "sunset duotone",
        colours="map",
        palette=((70, 10, 90), (230, 70, 80), (255, 220, 120)),
        paper=(255, 200, 130),
    ),
    Look("acid", "acid neon", colours="map", palette=((20, 0, 60), (255, 0, 160), (190, 255, 0)), paper=(40, 250, 190)),
    Look(
        "forest",
        "forest duotone",
        colours="map",
        palette=((10, 35, 20), (60, 120, 60), (215, 235, 170)),
        paper=(215, 228, 190),
    ),
    Look(
        "ocean",
        "ocean duotone",
        colours="map",
        palette=((0, 30, 60), (0, 120, 150), (190, 245, 240)),
        paper=(170, 225, 230),
    ),
    Look(
        "ember", "glowing embers", colours="map", palette=((10, 0, 0), (190, 40, 0), (255, 230, 90)), paper=(25, 8, 5)
    ),
    Look(
        "pencil",
        "pencil drawing",
        line="edges",
        ink=(70, 70, 75),
        paper=(250, 249, 245),
        texture="grain",
        texture_size=0.25,
    ),
    Look(
        "crayon",
        "red crayon drawing",
        line="edges",
        line_width=2,
        ink=(200, 50, 40),
        paper=(255, 250, 235),
        texture="grain",
        texture_size=0.5,
    ),
    Look(
        "chalk",
        "chalk on a blackboard",
        line="edges",
        line_width=2,
        ink=(235, 235, 225),
        paper=(35, 60, 50),
        texture="grain",
        texture_size=0.4,
    ),
    Look(
        "neon", "neon sign", line="edges", line_width=2, ink=(80, 255, 230), paper=(25, 5, 45), blur="soft", blur_size=1
    ),
    Look("newsprint", "newspaper halftone", texture="halftone", texture_size=6, paper=(240, 235, 220)),
    Look("popart", "pop art dots", texture="halftone", texture_size=8, ink=(225, 30, 80), paper=(255, 235, 80)),
    Look("etching", "etching", texture="hatch", texture_size=5, paper=(245, 240, 228)),
    Look("banknote", "green engraving", texture="hatch", texture_size=6, ink=(20, 90, 60), paper=(225, 235, 210)),
    Look("mosaic", "mosaic", blur="pixels", blur_size=8, paper=(225, 215, 190)),
    Look("pixelart", "pixel art", blur="pixels", blur_size=4, paper=(70, 90, 130)),
    Look("mist", "soft mist", blur="soft", blur_size=3, paper=(225, 230, 235)),
    Look(
        "watercolour",
        "watercolour",
        colours="posterise",
        amount=5,
        blur="ripple",
        blur_size=2,
        paper=(250, 244, 228),
        texture="canvas",
        texture_size=0.35,
    ),
    Look(
        "oil",
        "oil painting",
        blur="oil",
        blur_size=3,
        paper=(150, 125, 95),
        paper2=(95, 110, 120),
        paper_kind="clouds",
        texture="canvas",
        texture_size=0.8,
    ),
    Look("poster", "screen print poster", colours="posterise", amount=2, paper=(240, 205, 120)),
    Look("negative", "photographic negative", colours="invert", paper=(20, 25, 25)),
    Look("gray", "black and white photograph", colours="gray", paper=(200, 200, 200)),
    Look("sticker", "sticker with a thick white border", line="outline", line_width=4, ink=WHITE, paper=(85, 175, 165)),
    Look("cartoon", "cartoon with a thick black outline", line="outline", line_width=3, paper=(255, 248, 210)),
    Look(
        "gold",
        "gold on black",
        colours="map",
        palette=((60, 35, 0), (200, 150, 40), (255, 240, 170)),
        paper=(15, 12, 10),
        line="outline",
        line_width=1,
        ink=(230, 180, 70),
    ),
    Look(
        "tv",
        "old television",
        colours="map",
        palette=((5, 20, 15), (60, 150, 110), (200, 255, 220)),
        paper=(20, 50, 40),
        texture="scanlines",
        texture_size=2,
    ),
    Look(
        "martian",
        "alien colours",
        colours="hue",
        amount=0.33,
        paper=(60, 20, 40),
        paper2=(160, 70, 60),
        paper_kind="down",
    ),
    Look(
        "dream",
        "dreamy colours",
        colours="hue",
        amount=0.67,
        paper=(245, 215, 255),
        paper2=(190, 225, 255),
        paper_kind="clouds",
        blur="soft",
        blur_size=1,
    ),
    Look("linen", "white linen canvas", texture="canvas", texture_size=0.8, paper=(238, 234, 224)),
)
# Kept out of all training, to measure how well looks carry that no weight has seen.
HELD_OUT_NAMED: tuple[Look, ...] = (
    Look("coral", "coral paper", paper=(255, 127, 95)),
    Look(
        "cyanotype",
        "cyanotype",
        colours="map",
        palette=((5, 20, 70), (60, 110, 180), (235, 245, 250)),
        paper=(20, 50, 120),
    ),
    Look(
        "inkwash",
        "ink wash",
        colours="gray",
        blur="oil",
        blur_size=2,
        paper=(236, 228, 208),
        texture="grain",
        texture_size=0.4,
    ),
    Look(
        "autumn",
        "autumn duotone",
        colours="map",
        palette=((60, 15, 10), (200, 95, 20), (250, 215, 120)),
        paper=(120, 45, 25),
        texture="canvas",
        texture_size=0.5,
    ),
    Look("comic", "blue comic dots", texture="halftone", texture_size=7, ink=(30, 60, 190), paper=(255, 225, 235)),
    Look("bluepen", "blue ballpoint pen", line="edges", line_width=2, ink=(30, 50, 170), paper=(252, 250, 240)),
)


def _colour(rng: np.random.Generator, low: int = 0, high: int = 255) -> Colour:
    """A colour by lot, each part from `low` to `high`."""
    r, g, b = rng.integers(low, high + 1, 3)
    return int(r), int(g), int(b)


def random_look(seed: int) -> Look:
    """A look drawn by lot. It has no words; it widens what a style reference may ask for."""
    rng = np.random.default_rng(seed)
    colour = partial(_colour, rng)

    def pick(options: list[str], weights: list[float]) -> str:
        return str(rng.choice(options, p=np.array(weights) / sum(weights)))

    palette = tuple(sorted((colour() for _ in range(rng.integers(2, 5))), key=lambda c: float(luminance(np.array(c)))))
    line = pick(["none", "outline", "edges"], [6, 2, 2])
    texture = pick(
        ["none", "canvas", "grain", "halftone", "hatch"], [7, 2, 2, 1, 1] if line == "none" else [7, 2, 2, 0, 0]
    )
    colours = pick(["own", "map", "hue", "gray", "invert", "posterise"], [4, 5, 2, 1, 1, 1])
    return Look(
        name=f"random-{seed}",
        words="",
        colours=colours,
        palette=palette,
        amount=float(rng.integers(2, 5)) if colours == "posterise" else float(rng.random()),
        paper=colour(),
        paper2=colour(),
        paper_kind=pick(["plain", "down", "radial", "stripes", "dots", "checks", "clouds"], [8, 2, 2, 1, 1, 1, 3]),
        line=line,
        ink=colour(0, 90) if rng.random() < 0.6 else colour(),
        line_width=int(rng.integers(1, 5)),
        blur=pick(["none", "soft", "oil", "pixels", "ripple"], [7, 1, 2, 1, 1]),
        blur_size=int(rng.choice([2, 4])),
        texture=texture,
        texture_size=float(rng.uniform(5, 9)) if texture in ("halftone", "hatch") else float(rng.uniform(0.3, 1)),
    )


def white_look(seed: int) -> Look:
    """A look by lot as the drawn sets have them: white paper, flat or graded colours, outlines, lines or two tones."""
    rng = np.random.default_rng(10_000 + seed)
    colour = partial(_colour, rng)
    dark, light = colour(0, 70), WHITE if rng.random() < 0.6 else colour(150, 255)
    tones = sorted((colour() for _ in range(2)), key=lambda c: float(luminance(np.array(c))))
    palette = (dark, dark, light, light) if rng.random() < 0.6 else (dark, *tones, light)
    line = str(rng.choice(["none", "outline", "edges"], p=(0.35, 0.35, 0.3)))
    colours = str(rng.choice(["own", "posterise", "hue", "gray", "map"], p=(0.25, 0.25, 0.1, 0.1, 0.3)))
    return Look(
        name=f"white-{seed}",
        words="",
        colours=colours,
        palette=palette,
        amount=float(rng.integers(2, 4)) if colours == "posterise" else float(rng.random()),
        paper=WHITE if rng.random() < 0.8 else colour(235, 255),
        line=line,
        ink=colour(0, 40) if rng.random() < 0.8 else colour(0, 200),
        line_width=int(rng.integers(1, 4)),
    )
