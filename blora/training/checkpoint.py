"""The state of a pack in the middle of its training as bytes, and what it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch
from safetensors import SafetensorError

from blora.adapters.safetensors_bytes import pack_safetensors, unpack_safetensors
from blora.errors import CheckpointError, TrainingDivergedError
from blora.settings.training import RECIPE_VERSION, TrainSettings
from blora.training.nan_policy import Progress
from blora.training.optim import FlatFactors, PackedAdamW

__all__ = ["checkpoint_identity", "read_checkpoint", "write_checkpoint"]

_PLAIN = ("rate", "loss_scale", "skipped", "streak", "reseeds", "fruitless_reseeds", "lowered")
"""What of an adapter's `Progress` is plain numbers."""


def checkpoint_identity(pictures: Sequence[tuple[str, Sequence[str]]], settings: TrainSettings, revision: str) -> str:
    """Return what a checkpoint belongs to, as a digest.

    Args:
        pictures: The key and the pictures' digests of each item, in the order of the pack.
        settings: The recipe.
        revision: Of the base model.
    """
    parts = [RECIPE_VERSION, settings.identity(), revision, [[key, sorted(digests)] for key, digests in pictures]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_checkpoint(
    pack: Sequence[Progress], factors: FlatFactors, optimizer: PackedAdamW, step: int, identity: str
) -> bytes:
    """Write all that the next steps depend on, bit for bit.

    Args:
        pack: The adapters.
        factors: Their weights.
        optimizer: Its state.
        step: Steps done.
        identity: What the checkpoint belongs to; reading it for something else is refused.
    """
    tensors = {"values": factors.values, "mean": optimizer.mean, "square": optimizer.square}
    tensors["losses"] = torch.tensor([progress.losses for progress in pack], dtype=torch.float64)
    tensors["generators"] = torch.stack([progress.generator.get_state() for progress in pack])
    plain = [{name: getattr(progress, name) for name in _PLAIN} for progress in pack]
    errors = [progress.error.args if progress.error else None for progress in pack]
    state = {"step": step, "counts": optimizer.steps_taken(), "plain": plain, "errors": errors}
    cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return pack_safetensors(cpu, {"identity": identity, "state": json.dumps(state)})


def read_checkpoint(
    data: bytes, pack: Sequence[Progress], factors: FlatFactors, optimizer: PackedAdamW, identity: str
) -> int:
    """Put a checkpoint's state into a fresh pack.

    Returns:
        Steps done.

    Raises:
        CheckpointError: Unreadable, or of other items, settings or another base.
    """
    hint = "train from the start without it"
    try:
        tensors, metadata = unpack_safetensors(data)
    except SafetensorError as error:
        raise CheckpointError("unreadable checkpoint", str(error), "a whole file", hint=hint) from error
    if metadata.get("identity") != identity:
        accepted = "one of the same items in the same order, with the same settings, base and recipe"
        raise CheckpointError("checkpoint of another training", metadata.get("identity", ""), accepted, hint=hint)
    state = json.loads(metadata["state"])
    with torch.no_grad():
        factors.values.copy_(tensors["values"])
        optimizer.mean.copy_(tensors["mean"])
        optimizer.square.copy_(tensors["square"])
        optimizer.counts.copy_(torch.tensor(state["counts"]))
    for index, progress in enumerate(pack):
        for name in _PLAIN:
            setattr(progress, name, state["plain"][index][name])
        progress.losses = tensors["losses"][index].tolist()
        if progress.reseeds:
            progress.generator = torch.Generator()  # its noise is its own since then, whomever it was shared with
        progress.generator.set_state(tensors["generators"][index].clone())  # it reads from the start of the storage
        args = state["errors"][index]
        progress.error = TrainingDivergedError(*args) if args else None
    return int(state["step"])
