"""What a shared prefix costs in accuracy and saves in arithmetic: tasks on the same picture, `tailor --shared-prefix`.

    python examples/results/shared_prefix.py --data DATA --weights WEIGHTS/resnet18.safetensors --out runs/prefix

Three sets at 64 px, three seeds; for every length N of the prefix a student, the same number of blocks removed
(--remove; blocks of the prefix are not among them), fine-tuned; and a bundle of the three, which tells the MACs of all
on one picture. Test accuracy is taken once. Goes on where it was stopped. Results: OUT/results.csv, and a table on
stdout.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path
from typing import Any

from tool import mean_and_spread, nettailor, on_test

SEEDS = (0, 1, 2)
SETS: dict[str, list[str]] = {"flowers17": [], "signdigits": [], "dtd10": []}
SIZE = 64


def model(name: str, seed: int, prefix: int, arguments: argparse.Namespace) -> Path:
    """The fine-tuned network of one set, seed and prefix."""
    teacher = arguments.out / f"{name}-{seed}" / "teacher.safetensors"
    run = arguments.out / f"{name}-{seed}-prefix-{prefix}"
    student, pruned, file = (run / f"{stage}.safetensors" for stage in ("student", "pruned", "model"))
    start = ["--backbone", "resnet18", "--weights", arguments.weights, "--size", SIZE, "--data", arguments.data / name]
    start += ["--seed", seed, "--precision", arguments.precision, *SETS[name]]
    if not teacher.exists():
        nettailor("teach", *start, "--run", teacher.parent, "--resume")
    if not student.exists():
        nettailor("tailor", *start, "--teacher", teacher, "--shared-prefix", prefix, "--run", run, "--resume")
    if not file.exists():
        nettailor("prune", student, "--remove", arguments.remove, "--force")
        nettailor("finetune", pruned, "--teacher", teacher, "--resume")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/prefix"))
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--remove", type=int, default=3)
    parser.add_argument("--prefixes", type=int, nargs="+", default=[0, 2, 4])
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in SEEDS:
        for prefix in arguments.prefixes:
            models = {name: model(name, seed, prefix, arguments) for name in SETS}
            named = [f"{name}={file}" for name, file in models.items()]
            folder = arguments.out / f"bundle-{seed}-{prefix}"
            macs = nettailor("bundle", *named, "-o", folder, "--force")["macs"]
            accuracies = {name: on_test(file, arguments.data / name) for name, file in models.items()}
            rows.append({"seed": seed, "prefix": prefix, **accuracies, **macs})
            print(rows[-1], flush=True)
            with (arguments.out / "results.csv").open("w", newline="") as stream:
                writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    print("| N | " + " | ".join(SETS) + " | MACs, one by one | together |\n|---" + "|---" * (len(SETS) + 2) + "|")
    for prefix in arguments.prefixes:
        own = [row for row in rows if row["prefix"] == prefix]
        cells = [mean_and_spread([row[name] for row in own]) for name in SETS]
        apart, together = (statistics.mean(row[key] for row in own) for key in ("one_by_one", "together"))
        share = f"{together / 1e6:.0f} M ({together / apart:.0%})"
        print(f"| {prefix} | " + " | ".join(cells) + f" | {apart / 1e6:.0f} M | {share} |")


if __name__ == "__main__":
    main()
