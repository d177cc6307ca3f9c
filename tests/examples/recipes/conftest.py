"""The recipes are scripts that import each other: their folder is on the path, as it is for python examples/..."""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "examples"

for folder in ("recipes", "results", "pretrain"):
    if str(EXAMPLES / folder) not in sys.path:
        sys.path.append(str(EXAMPLES / folder))
