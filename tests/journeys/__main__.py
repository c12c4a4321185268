"""Write anew what the journeys are compared with: ``python -m tests.journeys``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.journeys.transcript import REMAKE

if __name__ == "__main__":
    os.environ[REMAKE] = "1"
    sys.exit(pytest.main(["-q", str(Path(__file__).parent), *sys.argv[1:]]))
