"""Layers put into a text encoder by which a name, heard at a few places, is told all places of the padding.

Two listen to the words; the last hands on what they heard, the same few numbers to every place, and says at each place
what a thing looks like there. `blora.embedded.training.names` trains them.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPTextModel

from blora.embedded.words.clip import CONFIG, PADS

ADDED, WIDE = 3, 1024
"""Layers put in, and the width inside them while they learn: two listen to the words, the last tells all places."""
UNITS = 64
"""Units inside that last layer for each place: all but one say a component of the codes."""
OPEN = 12.0
"""What the units of a place are raised by there, and lowered by at all others."""
TOLD = 0.6
"""Deviation of the numbers that a thing comes to the places by; the places' own have 1."""


def lengthened(plain: CLIPTextModel, wide: int = WIDE) -> CLIPTextModel:
    """The same encoder with ADDED layers before its last, which as yet add nothing; they alone are to be trained."""
    config = copy.deepcopy(plain.config)
    config.num_hidden_layers, config.intermediate_size = plain.config.num_hidden_layers + ADDED, wide
    model = CLIPTextModel(config).float().requires_grad_(False)
    own = {_moved(name, plain): value.float() for name, value in plain.state_dict().items()}
    copy_narrow(own, model)
    for name, weight in model.named_parameters():
        if name not in own:
            weight.requires_grad_()
            if "out_proj" in name or "fc2" in name:
                nn.init.zeros_(weight)
    for part in (model.encoder.layers[-2].mlp, model.encoder.layers[-2].layer_norm2):
        part.requires_grad_(False)  # see `share_out_places`
    return model


@torch.no_grad()
def copy_narrow(weights: dict[str, torch.Tensor], model: CLIPTextModel) -> None:
    """Take weights whose layers may be narrower inside; the width beyond theirs says nothing."""
    state = model.state_dict()
    for name, value in weights.items():
        state[name].zero_()
        state[name][tuple(slice(n) for n in value.shape)] = value


def _moved(name: str, plain: CLIPTextModel) -> str:
    """A weight's name in the longer encoder: the last layer comes after those put in."""
    last = plain.config.num_hidden_layers - 1
    return name.replace(f"layers.{last}.", f"layers.{last + ADDED}.")


def plain_encoder(folder: Path) -> CLIPTextModel:
    """The encoder of a folder, without layers that an earlier call has put in."""
    model = CLIPTextModel.from_pretrained(folder)
    layers, inner = CONFIG["text_cfg"]["layers"], 4 * CONFIG["text_cfg"]["width"]
    if model.config.num_hidden_layers == layers:
        return model
    config = copy.deepcopy(model.config)
    config.num_hidden_layers, config.intermediate_size = layers, inner
    plain = CLIPTextModel(config)
    long = model.state_dict()
    for name, value in plain.state_dict().items():
        value.copy_(long[_moved(name, plain)][tuple(slice(n) for n in value.shape)])
    return plain


def heard(model: CLIPTextModel, ids: torch.Tensor) -> torch.Tensor:
    """(N, places, width): what SDXL takes from an encoder, of ids (N, places)."""
    return model(ids, output_hidden_states=True).hidden_states[-2].float()


@torch.no_grad()
def share_out_places(model: CLIPTextModel, plain: CLIPTextModel, ids: torch.Tensor, says: torch.Tensor) -> None:
    """Make the last of the layers put in a map from a few numbers of a thing to what is said at each place.

    A plain layer would have to find out that what it hears, the same at every place, is to be said differently at each.
    So its units are shared out: those of a place are shut everywhere else, by the padding's own vectors, which
    are orthogonal. Each hears one number of what attention brings there, and says one component of what things have
    to say; the place's last unit takes away what the others say because they are open.

    Args:
        model: With a width inside of UNITS for every place of the padding.
        plain: The encoder without the layers.
        ids: (1, 77) a prompt that names nothing, by which B-LoRAs are trained: its padding stays as it was.
        says: (UNITS - 1, PLACES, width) what to say for one unit of each number.
    """
    mlp, norm = model.encoder.layers[-2].mlp, model.encoder.layers[-2].layer_norm2
    for weight in (*mlp.parameters(), norm.bias):
        weight.zero_()
    norm.weight.fill_(1)
    hidden, wanted = (heard(one, ids)[0, PADS:] for one in (model, plain))
    places = nn.functional.layer_norm(hidden, hidden.shape[-1:])
    own = 2 * OPEN * torch.linalg.pinv(places, rtol=1e-3).T  # (PLACES, width): 2 OPEN at the place, about 0 elsewhere
    hears = torch.eye(UNITS, hidden.shape[-1], device=hidden.device)
    hears[-1] = 0
    mlp.fc1.weight.copy_((own[:, None] + hears).flatten(0, 1))
    mlp.fc1.bias.copy_(-OPEN - (places @ hears.T).flatten())  # a place's own vector is not taken for a thing's numbers
    every = torch.arange(len(places), device=hidden.device)
    open_by = nn.functional.gelu(mlp.fc1(places)).unflatten(1, (len(places), UNITS))[every, every]
    told = says.transpose(0, 1) - torch.eye(UNITS - 1, hidden.shape[-1], device=hidden.device)  # what was heard goes
    last = ((wanted - hidden)[:, None] - (told * open_by[:, :-1, None]).sum(1, keepdim=True)) / open_by[:, -1:, None]
    mlp.fc2.weight.copy_(torch.cat([told, last], 1).flatten(0, 1).T)
