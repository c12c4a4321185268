"""What things have to say by their names: codes of a typical drawing, in numbers that one text encoder can add.

The first encoder has half of the context's numbers, and all places are told by the same few numbers of a thing. So a
thing's codes are turned into what the content block hears most nearly as them, and that into principal components over
all things; `words.name_layers` has the layers that say them.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers.models import Transformer2DModel

from blora.embedded.drawings.pictures import Pictures
from blora.embedded.training.train import Trainee
from blora.embedded.training.unet import CONTENT_BLOCK, STYLE_BLOCK
from blora.embedded.words.name_layers import TOLD, UNITS

QUIET = 1.0
"""How much what the style block hears of a name counts, where 1 is as much as what the content block does not."""
LOUDNESS = 1.5
"""How much louder names are than the codes that they stand for."""


def typical_codes(pictures: Pictures) -> dict[int, np.ndarray]:
    """By thing that may be trained on, the content codes of the drawing nearest to the mean of all: (PLACES, CODE).

    The mean itself is drawn as a blur of all hands'.
    """
    table = np.load(pictures.folder / "content.npy", mmap_mode="r")
    usable = pictures.native & pictures.judged & ~pictures.held_out_thing() & ~pictures.held_out_look()
    typical = {}
    for thing in np.unique(pictures.thing[usable]):
        codes = np.stack([table[row] for row in np.flatnonzero(usable & (pictures.thing == thing))]).astype(np.float32)
        typical[int(thing)] = codes[((codes - codes.mean(0)) ** 2).sum((1, 2)).argmin()]
    return typical


@torch.no_grad()
def spoken(trainee: Trainee, width: int, quiet: float = QUIET) -> torch.Tensor:
    """(width, CODE): codes as a change of the context's first numbers, which the content block hears best as codes.

    By least squares over its keys and values, as a token's whole context would be heard; the more `quiet`, the less of
    it is heard by the style block, which a caption's look is told to at the same places.
    """
    blocks = trainee.unet.up_blocks[0].attentions
    content, style = (_keys_and_values(blocks[number]) for number in (CONTENT_BLOCK, STYLE_BLOCK))
    goal = content @ trainee.tokens.content_out.weight
    heard = torch.cat([content[:, :width], quiet**0.5 * style[:, :width]])
    asked = torch.cat([goal, goal.new_zeros(len(style), goal.shape[1])])
    return torch.linalg.lstsq(heard, asked).solution


def _keys_and_values(block: Transformer2DModel) -> torch.Tensor:
    layers = [layer.attn2 for layer in block.transformer_blocks]
    return torch.cat([weight for layer in layers for weight in (layer.to_k.weight, layer.to_v.weight)])


class NamedCodes:
    """What all places are told of each thing, and what each place is to say then.

    Attributes:
        said: By thing, all that it has to say: (PLACES, width).
        numbers: By thing, what its name is to bring to all places: (width,), of deviation TOLD.
        says: What is said for one unit of each number: (UNITS - 1, PLACES, width).
        weights: (width,), by which an error of a number counts as the error of what is said.
        size: Mean square of all that is said.
    """

    def __init__(self, codes: dict[int, np.ndarray], trainee: Trainee, width: int, device: str) -> None:
        """Work all out, of codes (PLACES, CODE) by thing and the `width` of the encoder's hidden states."""
        told_by = torch.from_numpy(np.stack(list(codes.values())))
        heard, said = told_by @ spoken(trainee, width, quiet=0.0).T, LOUDNESS * told_by @ spoken(trainee, width).T
        scores, sizes, _ = torch.linalg.svd(heard.flatten(1), full_matrices=False)
        count, things = min(UNITS - 1, len(sizes)), len(said) ** 0.5
        spread, told = torch.zeros(width), torch.zeros(len(said), width)
        self.says = said.new_zeros(UNITS - 1, *said.shape[1:])
        spread[:count] = sizes[:count] / things
        told[:, :count] = scores[:, :count] * things * TOLD
        self.says[:count] = torch.einsum("tk,tpw->kpw", scores[:, :count], said) / (things * TOLD)
        rest = spread.square().mean()  # numbers that nothing hears yet are to stay where they are
        weights = torch.where(spread > 0, spread.square(), rest)
        self.weights = (weights / weights.mean() / TOLD**2).to(device)
        self.says, self.size = self.says.to(device), float(said.square().mean())
        self.said = dict(zip(codes, said.to(device), strict=True))
        self.numbers = dict(zip(codes, told.to(device), strict=True))
