"""What the scripts in this folder share: the command line as functions, and a test accuracy that is taken once."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nettailor_cli.core.files import sha256_of


def nettailor(*words: object, may_miss: bool = False) -> dict[str, Any]:
    """One command under --json; its document. `may_miss`: exit code 3, a gate that was not met, is no failure."""
    with subprocess.Popen(["nettailor", *map(str, words), "--json"], stdout=subprocess.PIPE, text=True) as process:
        try:
            printed, _ = process.communicate()
        except KeyboardInterrupt:
            process.wait()  # the command has been told as well, and saves its state
            raise SystemExit(f"nettailor {words[0]}: stopped; the same command goes on") from None
    if process.returncode != 0 and not (may_miss and process.returncode == 3):
        raise SystemExit(f"nettailor {words[0]}: exit {process.returncode}")
    return json.loads(printed)


def make(file: Path, *words: object) -> dict[str, Any]:
    """`nettailor words`, unless it has written `file` before; what the file says of itself. Seconds go beside it."""
    clock = file.with_suffix(".seconds")
    if not file.exists():
        started = time.time()
        resume = ["--resume"] if words[0] in ("teach", "tailor", "finetune") else []
        nettailor(*words, *resume)
        clock.write_text(f"{time.time() - started:.1f}")
    return {**nettailor("inspect", file), "seconds": float(clock.read_text()) if clock.exists() else math.nan}


def val_accuracy(document: dict[str, Any], name: str) -> float:
    return document["metrics"][name]["accuracy"]


def on_test(model: Path, data: Path) -> float:
    """Percent on test, taken once for every network: kept beside the model, with the digest of what was measured."""
    kept, digest = model.with_suffix(".test.json"), sha256_of(model)
    known = json.loads(kept.read_text()) if kept.exists() else {}
    if known.get("sha256") != digest:
        known = {**nettailor("evaluate", model, "--data", data, "--split", "test"), "sha256": digest}
        kept.write_text(json.dumps(known))
    return float(known["accuracy"])


def leanest(candidates: Sequence[int], accuracy: Callable[[int], float], least: float) -> int:
    """The largest of `candidates`, numbers of removed blocks in ascending order, with `least` percent on val or more.

    By bisection, as if accuracy only fell; where none has as much, the best of those that were tried.
    """
    found: dict[int, float] = {}
    low, high = 0, len(candidates)  # the first candidate that may fail, and the first that is known to
    while low < high:
        middle = (low + high) // 2
        found[candidates[middle]] = accuracy(candidates[middle])
        within = found[candidates[middle]] >= least - 1e-9
        low, high = (middle + 1, high) if within else (low, middle)
    return candidates[low - 1] if low > 0 else max(found, key=lambda k: found[k])


def mean_and_spread(values: Sequence[float], sign: str = "", *, digits: int = 1) -> str:
    """Mean ± standard deviation, over the seeds for instance."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.{digits}f}{spread}"
