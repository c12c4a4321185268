"""The state of a pack in the middle of its training as a file, and what it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from blora.adapters.safetensors_bytes import stream_safetensors
from blora.errors import CheckpointError, TrainingDivergedError
from blora.settings.training import RECIPE_VERSION, TrainSettings
from blora.training.nan_policy import Progress
from blora.training.noise import FrontPool
from blora.training.optim import FlatFactors, PackedAdamW

__all__ = ["Checkpoint", "CheckpointCopy", "checkpoint_identity", "read_checkpoint"]

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


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that the next steps of a training depend on, bit for bit, as it is now: save or copy it before they come.

    Attributes:
        pack: The adapters.
        factors: Their weights.
        optimizer: Its state.
        step: Steps done.
        identity: What the checkpoint belongs to; reading it for something else is refused.
        pool: Draws that come again, if there are some; their fronts are not saved but computed again.
    """

    pack: Sequence[Progress]
    factors: FlatFactors
    optimizer: PackedAdamW
    step: int
    identity: str
    pool: FrontPool | None = None

    @property
    def host_bytes(self) -> int:
        """What `to_host` takes of the CPU's memory: 338 MB an adapter of SDXL at rank 64."""
        return sum(tensor.nbytes for tensor in self._matrices().values())

    def save(self, path: Path) -> None:
        """Write it to a file, from the device row by row: 113 MB of the CPU's memory at rank 64, whatever the pack."""
        self._state(self._matrices()).save(path)

    def to_host(self) -> CheckpointCopy:
        """Copy it to the CPU's memory, so that the next steps may be taken while it is written."""
        return self._state({name: matrix.to("cpu", copy=True) for name, matrix in self._matrices().items()})

    def _matrices(self) -> dict[str, Tensor]:
        """What has a row for each adapter, and lies on the device."""
        return {"values": self.factors.values, "mean": self.optimizer.mean, "square": self.optimizer.square}

    def _state(self, tensors: dict[str, Tensor]) -> CheckpointCopy:
        """These tensors, and all that is small."""
        pack = self.pack
        tensors["losses"] = torch.tensor([progress.losses for progress in pack], dtype=torch.float64)
        tensors["generators"] = torch.stack([progress.generator.get_state() for progress in pack])
        plain = [{name: getattr(progress, name) for name in _PLAIN} for progress in pack]
        errors = [progress.error.args if progress.error else None for progress in pack]
        state = {"step": self.step, "counts": self.optimizer.steps_taken(), "plain": plain, "errors": errors}
        if self.pool:
            tensors["draws"], state["turns"] = self.pool.state([progress.generator for progress in pack])
        return CheckpointCopy(tensors, {"identity": self.identity, "state": json.dumps(state)})


@dataclass(frozen=True, eq=False)
class CheckpointCopy:
    """A checkpoint as its file has it.

    Attributes:
        tensors: By name, in the file's order.
        metadata: All else.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    def save(self, path: Path) -> None:
        """Write it to a file, tensor by tensor and row by row; what lies in the CPU's memory is not copied again."""
        stream_safetensors(path, self.tensors, self.metadata)


def read_checkpoint(
    path: Path,
    pack: Sequence[Progress],
    factors: FlatFactors,
    optimizer: PackedAdamW,
    identity: str,
    pool: FrontPool | None = None,
) -> int:
    """Put a checkpoint's state into a fresh pack, row by row.

    Returns:
        Steps done.

    Raises:
        CheckpointError: Unreadable, or of other items, settings or another base.
    """
    hint = "train from the start without it"
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            metadata = file.metadata() or {}
            if metadata.get("identity") != identity:
                received, accepted = metadata.get("identity", ""), "one of the same items, settings, base and recipe"
                raise CheckpointError("checkpoint of another training", received, accepted, hint=hint)
            matrices = {"values": factors.values, "mean": optimizer.mean, "square": optimizer.square}
            for name, matrix in matrices.items():
                stored = file.get_slice(name)
                for index in range(len(matrix)):
                    matrix[index].copy_(stored[index])
            losses, generators = file.get_tensor("losses"), file.get_tensor("generators")
            draws = file.get_tensor("draws") if pool else None
    except (SafetensorError, OSError) as error:
        raise CheckpointError("unreadable checkpoint", str(error), "a whole file", hint=hint) from error
    state = json.loads(metadata["state"])
    optimizer.counts.copy_(torch.tensor(state["counts"]))
    for index, progress in enumerate(pack):
        for name in _PLAIN:
            setattr(progress, name, state["plain"][index][name])
        progress.losses = losses[index].tolist()
        if progress.reseeds:
            progress.generator = torch.Generator()  # its noise is its own since then, whomever it was shared with
        progress.generator.set_state(generators[index].clone())  # it reads from the start of the storage
        args = state["errors"][index]
        progress.error = TrainingDivergedError(*args) if args else None
    if pool and draws is not None:
        pool.restore([progress.generator for progress in pack], draws, state["turns"])
    return int(state["step"])
