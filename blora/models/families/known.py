"""The families that there are, by name; a third one is a file of this room and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from blora.bases.topology import FamilyName
from blora.models.families.family import Family
from blora.models.families.flux import FLUX_FAMILY
from blora.models.families.sdxl import SDXL_FAMILY

__all__ = ["FAMILIES"]

FAMILIES: Final[Mapping[FamilyName, Family]] = MappingProxyType({"sdxl": SDXL_FAMILY, "flux": FLUX_FAMILY})
"""Every family by its name."""
