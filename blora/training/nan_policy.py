"""Where each adapter of a pack stands, what happens when its numbers stop being finite, and checkpoints.

NaN policy, for each adapter on its own: skip the step; after some skips in a row draw other noise (reseed); if that
does not help lower the learning rate and halve the update, since weights that give nothing finite would else stay
where they are; if that does not help either, the adapter is given up while the others of the pack go on.
In fp16 a gradient that overflows first halves the adapter's own loss scale, as mixed-precision training does.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from safetensors import SafetensorError

from blora.adapters.safetensors_bytes import pack_safetensors, unpack_safetensors
from blora.errors import CheckpointError, TrainingDivergedError
from blora.settings.training import RECIPE_VERSION, TrainSettings
from blora.training.optim import FlatFactors, PackedAdamW
from blora.training.photos import seeded

__all__ = ["Progress", "checkpoint_identity", "read_checkpoint", "write_checkpoint"]

_FIRST_LOSS_SCALE = 65536.0
_LOSS_TAIL = 10
"""The final loss is the mean over the last tenth of the steps: one step's loss tells mostly its timestep."""
_PLAIN = ("rate", "loss_scale", "skipped", "streak", "reseeds", "fruitless_reseeds", "lowered")

Verdict = Literal["step", "skip", "halve", "stop"]


@dataclass
class Progress:
    """One adapter on its way.

    Attributes:
        key: Names the adapter; with the settings' seed it fixes all random numbers.
        generator: Its own, on the CPU.
        rate: Its learning rate now.
        loss_scale: What its loss is multiplied by before the backward pass; 1 but for fp16.
        skipped: Steps that were not taken.
        streak: Non-finite steps in a row since the last measure.
        reseeds: Reseeds so far.
        fruitless_reseeds: Reseeds since the last finite step.
        lowered: How often the rate was lowered.
        losses: Loss of each step; NaN where it was not finite or the adapter had been given up.
        error: Set when it was given up.
    """

    key: str
    generator: torch.Generator
    rate: float
    loss_scale: float = 1.0
    skipped: int = 0
    streak: int = 0
    reseeds: int = 0
    fruitless_reseeds: int = 0
    lowered: int = 0
    losses: list[float] = field(default_factory=list)
    error: TrainingDivergedError | None = None

    @classmethod
    def start(cls, key: str, settings: TrainSettings) -> Progress:
        """Return an adapter before its first step."""
        scale = _FIRST_LOSS_SCALE if settings.precision == "fp16" else 1.0
        return cls(key, seeded(key, settings.seed), settings.learning_rate, scale)

    @property
    def final_loss(self) -> float:
        """Mean of the finite losses in the last tenth of the steps; NaN without any."""
        tail = [loss for loss in self.losses[-max(1, len(self.losses) // _LOSS_TAIL) :] if math.isfinite(loss)]
        return math.fsum(tail) / len(tail) if tail else math.nan

    def judge(self, loss: float, norm: float, loss_scale: float, settings: TrainSettings) -> Verdict:
        """Record one step's loss and gradient norm, and say what to do.

        Args:
            loss: The step's loss.
            norm: Norm of its gradient.
            loss_scale: What the loss was multiplied by in that step, which may be some steps ago.
            settings: The NaN policy.

        Returns:
            "step": take the step. "skip": leave the adapter as it is. "halve": halve its update and forget the
            optimizer's state. "stop": give it up; `error` says why.
        """
        if self.error is not None:
            self.losses.append(math.nan)
            return "stop"
        self.losses.append(loss if math.isfinite(loss) else math.nan)
        if math.isfinite(loss) and math.isfinite(norm):
            self.streak = self.fruitless_reseeds = 0
            return "step"
        self.skipped += 1
        if math.isfinite(loss) and loss_scale > 1.0:
            self.loss_scale = min(self.loss_scale, loss_scale / 2)
            return "skip"
        self.streak += 1
        return "skip" if self.streak < settings.skips_before_reseed else self._escalate(settings)

    def _escalate(self, settings: TrainSettings) -> Verdict:
        """Take the next measure after too many skips in a row."""
        self.streak = 0
        if self.fruitless_reseeds < settings.reseeds_before_lower_rate:
            self.fruitless_reseeds += 1
            self.reseeds += 1
            self.generator = seeded(self.key, settings.seed, self.reseeds)
            return "skip"
        self.fruitless_reseeds = 0
        if self.lowered < settings.max_lower_rates:
            self.lowered += 1
            self.rate *= settings.lower_rate_factor
            return "halve"
        received = (
            f"no finite loss after {self.skipped} skipped steps, {self.reseeds} reseeds, {self.lowered} lower rates"
        )
        hint = "lower train.learning_rate, or use precision bf16 or fp32"
        step = f"{self.key}, step {len(self.losses)}"
        self.error = TrainingDivergedError("training diverged", received, "finite losses", step, hint)
        return "stop"


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
    tensors["losses"] = torch.tensor([one.losses for one in pack], dtype=torch.float64)
    tensors["generators"] = torch.stack([one.generator.get_state() for one in pack])
    plain = [{name: getattr(one, name) for name in _PLAIN} for one in pack]
    errors = [one.error.args if one.error else None for one in pack]
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
    for index, one in enumerate(pack):
        for name in _PLAIN:
            setattr(one, name, state["plain"][index][name])
        one.losses = tensors["losses"][index].tolist()
        if one.reseeds:
            one.generator = torch.Generator()  # its noise is its own since then, whomever it was shared with
        one.generator.set_state(tensors["generators"][index].clone())  # it reads from the start of the storage
        args = state["errors"][index]
        one.error = TrainingDivergedError(*args) if args else None
    return int(state["step"])
