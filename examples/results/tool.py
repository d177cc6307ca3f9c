"""What the scripts in this folder share: the command line as functions, and a test accuracy that is taken once."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def nettailor(*words: object, may_miss: bool = False) -> dict[str, Any]:
    """One command under --json; its document. `may_miss`: exit code 3, a gate that was not met, is no failure."""
    done = subprocess.run(["nettailor", *map(str, words), "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0 and not (may_miss and done.returncode == 3):
        raise SystemExit(f"nettailor {words[0]}: exit {done.returncode}")
    return json.loads(done.stdout)


def on_test(model: Path, data: Path) -> float:
    """Percent on test, taken once: kept beside the model."""
    kept = model.with_suffix(".test.json")
    if not kept.exists():
        kept.write_text(json.dumps(nettailor("evaluate", model, "--data", data, "--split", "test")))
    return float(json.loads(kept.read_text())["accuracy"])


def mean_and_spread(values: Sequence[float], sign: str = "") -> str:
    """Mean ± standard deviation over the seeds."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.1f}{spread}"
