"""Beside `nine_sets.py`: the rival, channels pruned by Torch-Pruning, at the MACs that `fit` came down to.

    python examples/results/channels.py --data DATA --out runs/nine_sets

For every row of nine_sets.csv whose run is in OUT: that run's teacher, pruned to the chosen network's MACs and
fine-tuned again, for as many epochs in all (examples/benchmarks/channel_pruning.py, with Torch-Pruning: pip install
'.[benchmarks]'). Test accuracy taken once. What has its row in channels.csv is not measured again. The table of all
rows on stdout: fit's network less the rival, in points of test accuracy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from nine_sets import keep, measured
from tool import mean_and_spread, nettailor

RIVAL = Path(__file__).parents[1] / "benchmarks" / "channel_pruning.py"
ALIKE = ("set", "seed", "arch", "size", "precision")
"""Columns that tell a row from others, in both files."""


def pruned(run: Path, data: Path, row: dict[str, Any], epochs: int) -> dict[str, Any]:
    """What the rival's script says for the row of `run`; kept beside it."""
    kept = run.with_name(f"{run.name}-channels-{row['macs']:.1f}-{epochs}.json")
    if not kept.exists():
        words = [
            "--run", run, "--data", data, "--macs", row["macs"] / 100, "--epochs", epochs,
            "--precision", row["precision"],
        ]  # fmt: skip
        printed = subprocess.run(
            [sys.executable, RIVAL, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True
        )
        kept.write_text(printed.stdout)
    return json.loads(kept.read_text())


def epochs_left(run: Path, row: dict[str, Any]) -> int | None:
    """After those of the teacher, of what the chosen network has behind it.

    None where `run` did not choose the network of the `row`, as far as its size tells.
    """
    if not (run / "model.safetensors").exists():
        return None
    model = nettailor("inspect", run / "model.safetensors")
    if abs(100 * model["totals"]["macs"] / model["backbone_totals"]["macs"] - row["macs"]) >= 1e-6:
        return None
    rows = json.loads((run / "fit.json").read_text())["rows"]
    chosen = next(tried for tried in rows if tried["kind"] == "candidate" and tried["macs"] == model["totals"]["macs"])
    return round(chosen["epochs"]) - int(model["settings"]["teach"]["epochs"])


def show(rows: list[dict[str, Any]]) -> None:
    """The table: means over the seeds ± standard deviation."""
    columns = ["fit", "channels pruned", "difference", "MACs of these", "parameters of these"]
    print("| set | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        fit, channels = (mean_and_spread([row[key] for row in own]) for key in ("model", "channels"))
        differences = mean_and_spread([row["model"] - row["channels"] for row in own], "+")
        macs, parameters = (statistics.mean(row[key] for row in own) for key in ("macs", "parameters"))
        print(f"| {name} | {fit} | {channels} | {differences} | {macs:.0f} % | {parameters:.0f} % |")
    if rows:
        mean = statistics.mean(row["model"] - row["channels"] for row in rows)
        print(f"mean difference of {len(rows)} rows {mean:+.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/nine_sets"))
    parser.add_argument("--nine-sets", type=Path, default=Path(__file__).with_name("nine_sets.csv"))
    parser.add_argument("--results", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--sets", nargs="+", help="only these")
    arguments = parser.parse_args()
    for row in measured(arguments.nine_sets):
        own = {key: row[key] for key in ALIKE}
        run = arguments.out / f"{row['set']}-{row['seed']}"
        wanted = arguments.sets is None or row["set"] in arguments.sets
        known = any(own.items() <= earlier.items() for earlier in measured(arguments.results))
        if wanted and not known and (epochs := epochs_left(run, row)) is not None:
            found = pruned(run, arguments.data / row["set"], row, epochs)
            shares = {"macs": 100 * found["macs_share"], "parameters": 100 * found["parameters_share"]}
            keep(
                {**own, **shares, "val": found["val"], "channels": found["test"], "model": row["model"]},
                arguments.results,
            )
    show(measured(arguments.results))


if __name__ == "__main__":
    main()
