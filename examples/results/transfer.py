"""What the pretrained backbone is worth: fine-tuned on other sets, against the same network from random weights.

    python examples/results/transfer.py --data DATA --out runs/transfer

For every set and seed `nettailor teach` at 64 px with its defaults, from either start; test accuracy, taken once.
Results: OUT/results.csv and a table on stdout. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import safetensors.torch
from tool import mean_and_spread, nettailor, on_test

from nettailor_cli.core.backbones.backbone import build_random

SEEDS = (0, 1, 2)
SETS: dict[str, list[str]] = {
    "gtsrb": ["--no-flip", "--group", r"^[^/]+/\d+"],  # a track of frames stays on one side
    "flowers17": [],
    "dtd10": [],
}
STARTS = ("pretrained", "random")


def accuracy(name: str, seed: int, start: str, data: Path, out: Path, precision: str) -> float:
    """Percent on test."""
    run = out / f"{name}-{seed}-{start}"
    teacher = run / "teacher.safetensors"
    if not teacher.exists():
        weights: list[object] = []
        if start == "random":
            run.mkdir(parents=True, exist_ok=True)
            file = run / "random.safetensors"
            safetensors.torch.save_file(build_random("resnet18", seed).state(), file)
            weights = ["--backbone", f"resnet18.random{seed}", "--weights", file]
        common = ["--data", data / name, "--run", run, "--size", 64, "--seed", seed, "--precision", precision]
        nettailor("teach", *weights, *common, *SETS[name], "--resume")
    return on_test(teacher, data / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    found = {
        (name, start): [
            accuracy(name, seed, start, arguments.data, arguments.out, arguments.precision) for seed in SEEDS
        ]
        for name in SETS
        for start in STARTS
    }
    with (arguments.out / "results.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["set", "start", *(f"seed {seed}" for seed in SEEDS)])
        writer.writerows([name, start, *values] for (name, start), values in found.items())
    print("| set | pretrained | random weights | difference |\n|---|---|---|---|")
    for name in SETS:
        rows = [found[name, start] for start in STARTS]
        rows.append([a - b for a, b in zip(*rows, strict=True)])
        print(f"| {name} | " + " | ".join(map(mean_and_spread, rows)) + " |")


if __name__ == "__main__":
    main()
