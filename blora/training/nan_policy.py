"""Where each adapter of a pack stands, and what happens when its numbers stop being finite.

For each adapter on its own: skip the step; after some skips in a row draw other noise (reseed); if that does not help
lower the learning rate and halve the update, since weights that give nothing finite would else stay where they are; if
that does not help either, the adapter is given up while the others of the pack go on.
In fp16 a gradient that overflows first halves the adapter's own loss scale, as mixed-precision training does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from blora.errors import TrainingDivergedError
from blora.settings.training import TrainSettings
from blora.training.noise import seeded

__all__ = ["Progress"]

_FIRST_LOSS_SCALE = 65536.0
_LOSS_TAIL = 10
"""The final loss is the mean over the last tenth of the steps: one step's loss tells mostly its timestep."""
Measure = Literal["step", "skip", "halve", "stop"]


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

    def judge(self, loss: float, norm: float, loss_scale: float, settings: TrainSettings) -> Measure:
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

    def _escalate(self, settings: TrainSettings) -> Measure:
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
        finer = {"fp16": ", or use precision bf16 or fp32", "bf16": ", or use precision fp32"}
        hint = "lower train.learning_rate" + finer.get(settings.precision, "")
        step = f"{self.key}, step {len(self.losses)}"
        self.error = TrainingDivergedError("training diverged", received, "finite losses", step, hint)
        return "stop"
