"""The command line's fixtures, and the scripts of examples/trust."""

import sys
from pathlib import Path

from tests.cli.conftest import run, shop, surroundings

__all__ = ["run", "shop", "surroundings"]

SCRIPTS = Path(__file__).parents[2] / "examples" / "trust"
sys.path.insert(0, str(SCRIPTS))
