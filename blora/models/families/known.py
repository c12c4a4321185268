"""The families that there are, by name; a third one is a file of this room and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import nn

from blora.bases.topology import FamilyName
from blora.errors import TopologyError
from blora.models.families.family import Family
from blora.models.families.flux import FLUX_FAMILY
from blora.models.families.sdxl import SDXL_FAMILY

__all__ = ["FAMILIES", "empty_denoiser"]

FAMILIES: Final[Mapping[FamilyName, Family]] = MappingProxyType({"sdxl": SDXL_FAMILY, "flux": FLUX_FAMILY})
"""Every family by its name."""


def empty_denoiser(config: Mapping[str, Any]) -> nn.Module:
    """Return the denoiser of a configuration without its weights: names and shapes of its layers.

    Raises:
        TopologyError: No family has such a denoiser.
    """
    kinds = {family.denoiser_class().__name__: family.denoiser_class() for family in FAMILIES.values()}
    name = str(config.get("_class_name"))
    if name not in kinds:
        raise TopologyError("a denoiser of no known family", name, " or ".join(kinds))
    with torch.device("meta"):
        denoiser: nn.Module = kinds[name].from_config(config)
    return denoiser
