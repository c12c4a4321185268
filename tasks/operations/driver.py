"""The driver of NVIDIA's GPUs: its version, the CUDA that it is for, and whether torch's is too new for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.devices import driver_table

# The head of what nvidia-smi prints; drivers from 610 on speak of their parts in the kernel (KMD) and beside it (UMD).
_DRIVER = re.compile(r"(?:Driver|KMD) Version:\s*(\d[\d.]*)")
_CUDA = re.compile(r"CUDA (?:UMD )?Version:\s*(\d+)\.(\d+)")


@dataclass(frozen=True)
class Driver:
    """What nvidia-smi says of the driver.

    Attributes:
        version: such as "580.65.06"; empty where it does not say.
        cuda: the newest CUDA that it is for, such as (13, 0); None where it does not say.
    """

    version: str
    cuda: tuple[int, int] | None

    @property
    def told(self) -> str:
        """Both in words."""
        newest = f"CUDA up to {self.cuda[0]}.{self.cuda[1]}" if self.cuda else "it does not say which CUDA it is for"
        return f"{self.version or 'of an unknown version'}, {newest}"

    def is_too_old(self, built_for: str | None) -> bool:
        """Whether programs built for a CUDA such as "13.0" do not run on it.

        Those of a newer minor version do, from CUDA 11 on, and those of a newer major one do not: NVIDIA's "CUDA
        Compatibility", section "Minor Version Compatibility".
        """
        found = re.match(r"\d+", built_for or "")
        return bool(found and self.cuda and self.cuda[0] < int(found[0]))


def read_driver(table: str) -> Driver | None:
    """Read what nvidia-smi prints without arguments; None where it says nothing of a driver."""
    version, cuda = _DRIVER.search(table), _CUDA.search(table)
    if not version and not cuda:
        return None
    return Driver(version[1] if version else "", (int(cuda[1]), int(cuda[2])) if cuda else None)


def driver_here() -> Driver | None:
    """The driver of this machine; None where nvidia-smi is not here, or finds none.

    Raises:
        TimeoutError: nvidia-smi gives no answer.
    """
    return read_driver(driver_table())
