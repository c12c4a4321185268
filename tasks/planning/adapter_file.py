"""An adapter's file wherever it lies, with the configuration that PEFT keeps beside it, which says how strong it is."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blora.adapters.alphas import PEFT_CONFIG
from manifests import ids
from manifests.errors import Missing
from manifests.schema.addresses import shown_address
from manifests.store.address import is_bucket
from manifests.store.files import read_address

if TYPE_CHECKING:
    from torch import nn

    from blora.adapters.adapter import Adapter

MAX_ADAPTER_BYTES = 2 * 2**30
"""Size of an adapter's file (2 GiB): SDXL's of rank 64 has 113 MB in fp32."""

_MAX_CONFIG_BYTES = 2**20


@dataclass(frozen=True, eq=False)
class AdapterFile:
    """What was read.

    Attributes:
        address: where it lies.
        data: the file.
        config: ``adapter_config.json`` of the same folder, if there is one.
    """

    address: str
    data: bytes
    config: bytes | None

    @classmethod
    def read(cls, address: str) -> AdapterFile:
        """Read a file.

        Raises:
            StoreError: it cannot be read, or is too large.
        """
        return cls(address, read_address(address, MAX_ADAPTER_BYTES), _config_beside(address))

    @property
    def adapter_id(self) -> str:
        """The id of its bytes, wherever it lies and whatever it is called."""
        parts = [self.data] if self.config is None else [self.data, self.config]
        return ids.digest("finished adapter", *(hashlib.sha256(part).hexdigest() for part in parts))

    def load(self, unet: nn.Module | None) -> Adapter:
        """Make an adapter of it.

        Args:
            unet: what it must fit, if that is known.

        Raises:
            KeyMismatchError: it is none, or does not fit.
        """
        from blora.adapters.load import load_adapter  # with torch

        return load_adapter(self.data, unet, name=shown_address(self.address), config=self.config)


def _config_beside(address: str) -> bytes | None:
    """The configuration in an adapter's folder; None where there is none, or a link that leads elsewhere."""
    folder = address.rpartition("/")[0]
    config = f"{folder}/{PEFT_CONFIG}"
    if not is_bucket(address) and os.path.realpath(config) != config:
        return None
    try:
        return read_address(config, _MAX_CONFIG_BYTES)
    except Missing:
        return None
