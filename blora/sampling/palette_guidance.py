"""Lead the sampling towards a palette: at every step the predicted picture gets the target's mean and covariance.

A step's prediction says what the picture will be, x0. Its latent channels are moved an ``amount`` of the way to the
values that the Monge-Kantorovich map (`colour_transfer.linear_map`) gives them, so that mean and covariance over all
places become those of the target picture's own latents; then the prediction is written in the base's own terms again:

    epsilon   x0 = (x - sqrt(1 - a) eps) / sqrt(a)        eps' = eps - sqrt(a / (1 - a)) (x0' - x0)
    v         x0 = sqrt(a) x - sqrt(1 - a) v              v'   = v - (x0' - x0) / sqrt(1 - a)
    flow      x0 = x - s v                                v'   = v - (x0' - x0) / s
    sample    x0 itself

with ``a`` the share of signal at the step, ``s = sqrt(1 - a) / (sqrt(a) + sqrt(1 - a))`` that of noise in a flow,
and ``x`` the latents as the denoiser sees them. No gradient is needed: the map is known in closed form. It is a
statement about latents, whose channels carry colour and light but are no colour space.
Places are free to change, and the next steps answer to the new colours, which a transfer on the result cannot do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blora.sampling.colour_transfer import Palette, Values, linear_map, moments

if TYPE_CHECKING:
    from blora.models.model import Base
    from blora.settings.sampling import SampleSettings

__all__ = ["Steering", "steering_of"]

_NO_NOISE = 1e-4  # share of noise below which a prediction cannot be rewritten, and need not be


class Steering:
    """The palettes of one batch: for each picture its target's moments and amount, or None."""

    def __init__(self, targets: Sequence[tuple[Values, Values, float] | None], prediction_type: str) -> None:
        """Keep what each picture is led to.

        Args:
            targets: Mean (channels,), covariance (channels, channels) and amount, one a picture.
            prediction_type: "epsilon", "v_prediction", "flow" or "sample".
        """
        self._targets, self._kind = list(targets), prediction_type

    def __call__(self, prediction: Tensor, seen: Tensor, signal: float) -> Tensor:
        """Return the prediction (pictures, channels, height, width) as it would be of the recoloured picture.

        Args:
            prediction: Of this step, after guidance.
            seen: The latents as the denoiser sees them, of the same shape.
            signal: Share of signal a in ``seen``, 0 to 1.
        """
        if 1 - signal < _NO_NOISE:
            return prediction
        root, noise = signal**0.5, (1 - signal) ** 0.5
        if self._kind == "epsilon":
            clean, factor = (seen - noise * prediction) / max(root, 1e-6), -root / noise
        elif self._kind == "v_prediction":
            clean, factor = root * seen - noise * prediction, -1 / noise
        elif self._kind == "flow":
            share = noise / (root + noise)
            clean, factor = seen - share * prediction, -1 / share
        else:
            clean, factor = prediction, 1.0
        rows = [
            row if target is None else row + factor * _change(picture, *target)
            for row, picture, target in zip(prediction, clean, self._targets, strict=True)
        ]
        return torch.stack(rows)


def _change(clean: Tensor, target_mean: Values, target_covariance: Values, amount: float) -> Tensor:
    """How far each place of one picture (channels, height, width) moves."""
    values = clean.permute(1, 2, 0).double().cpu().numpy()
    if not np.isfinite(values).all():
        return torch.zeros_like(clean)  # there is no map for it; the picture is lost, and only this one
    mean, covariance = moments(values)
    mapped = (values - mean) @ linear_map(covariance, target_covariance).T + target_mean
    return torch.from_numpy(amount * (mapped - values)).permute(2, 0, 1).to(clean.device, clean.dtype)


def steering_of(base: Base, palettes: Sequence[Palette | None], settings: SampleSettings) -> Steering | None:
    """Encode the palettes that guide a batch; None where there is none."""
    guiding = [
        palette if palette is not None and palette.by == "guidance" and palette.amount else None for palette in palettes
    ]
    if not any(guiding):
        return None
    known: dict[int, tuple[Values, Values]] = {}
    for palette in guiding:
        if palette is not None and id(palette.picture) not in known:
            picture = Image.fromarray(palette.picture).resize((settings.width_px, settings.height_px))
            latents = base.encode_image_moments(picture)[0][0].permute(1, 2, 0).double().cpu().numpy()
            known[id(palette.picture)] = moments(np.asarray(latents))
    targets = [None if palette is None else (*known[id(palette.picture)], palette.amount) for palette in guiding]
    return Steering(targets, base.prediction_type)
