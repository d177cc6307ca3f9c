"""The README's table of three seeds: teach, tailor, prune, finetune on four sets; K chosen on val, test taken once.

    python examples/results/four_sets.py --data DATA --weights WEIGHTS/resnet18.safetensors --out runs/four_sets

DATA holds one folder per set, in the layout that `nettailor --data` reads. Everything runs through the command line,
one training at a time, and goes on where it was stopped: a finished file is not made again. Results: OUT/results.csv, a
row per set and seed, and the table on stdout.

The student had TEACH + TAILOR + FINETUNE epochs behind it, so it is compared with the whole network fine-tuned for as
many: the reference. Every set gets one K: the largest of the candidates (the leanest network) whose validation
accuracy, averaged over the seeds, is within TOLERANCE of the better of two networks that are at hand: the reference and
the unpruned student. Found by bisection; if none is, the best average counts.
Averaged, because one seed's val is 120 to 440 pictures, too few to tell a point from noise; the seeds draw different
validation splits (but for Grocery, which brings its own), so the average sees three times as many.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tool import leanest, make, mean_and_spread, on_test, val_accuracy

TEACH, TAILOR, FINETUNE = 16, 10, 14  # epochs: the defaults of the time, as is the hint of retraining below
REFERENCE = TEACH + TAILOR + FINETUNE
CANDIDATES = (3, 4, 5, 6, 7)  # K
TOLERANCE = 0.5  # percentage points of validation accuracy
SEEDS = (0, 1, 2)
SETS: dict[str, list[str]] = {
    "grocery": ["--size", "96"],
    "gtsrb": ["--size", "64", "--no-flip", "--group", r"^[^/]+/\d+"],  # a track of frames stays on one side
    "flowers17": ["--size", "96"],
    "omniglot": ["--size", "64", "--no-flip"],
}


@dataclass
class Runs:
    """One set and seed: its two run directories, and what was made in them."""

    run: Path
    reference_run: Path
    reference: dict[str, Any]
    teacher: dict[str, Any]
    student: dict[str, Any]
    finetuning: list[object]
    tried: dict[int, dict[str, Any]]  # K -> the finetuned model

    def try_out(self, k: int) -> None:
        pruned, model = self.run / f"pruned{k}.safetensors", self.run / f"model{k}.safetensors"
        make(pruned, "prune", self.run / "student.safetensors", "--remove", k, "-o", pruned)
        self.tried[k] = make(model, "finetune", pruned, "-o", model, *self.finetuning)


def before_pruning(
    name: str, options: list[str], seed: int, data: Path, weights: Path, out: Path, precision: str
) -> Runs:
    run, reference_run = out / f"{name}-{seed}", out / f"{name}-{seed}-reference"
    run.mkdir(parents=True, exist_ok=True)
    reference_run.mkdir(parents=True, exist_ok=True)
    common = ["--backbone", "resnet18", "--weights", weights, "--data", data / name, "--seed", seed]
    common += ["--precision", precision, *options]
    teach = ("teach", *common, "--run")
    return Runs(
        run,
        reference_run,
        make(reference_run / "teacher.safetensors", *teach, reference_run, "--epochs", REFERENCE),
        make(run / "teacher.safetensors", *teach, run, "--epochs", TEACH),
        make(run / "student.safetensors", "tailor", "--run", run, "--epochs", TAILOR, "--precision", precision),
        ["--epochs", FINETUNE, "--hint-weights", "equal", "--precision", precision],
        {},
    )


def choose(seeds: list[Runs]) -> int:
    """K, from validation accuracies alone."""

    def accuracy(k: int) -> float:
        for runs in seeds:
            runs.try_out(k)
        return statistics.mean(val_accuracy(runs.tried[k], "model") for runs in seeds)

    at_hand = max(
        statistics.mean(val_accuracy(runs.reference, "teacher") for runs in seeds),
        statistics.mean(val_accuracy(runs.student, "student") for runs in seeds),
    )
    return leanest(CANDIDATES, accuracy, at_hand - TOLERANCE)


def row(name: str, seed: int, runs: Runs, k: int, data: Path) -> dict[str, Any]:
    """The row of results.csv; takes the two test accuracies."""
    chosen = runs.tried[k]
    whole = chosen["backbone_totals"]
    return {
        "set": name,
        "seed": seed,
        "test_images": chosen["data"]["images"]["test"],
        "val_images": chosen["data"]["images"]["val"],
        "reference_val": val_accuracy(runs.reference, "teacher"),
        "reference_test": on_test(runs.reference_run / "teacher.safetensors", data / name),
        "teacher_val": val_accuracy(runs.teacher, "teacher"),
        "unpruned_val": val_accuracy(runs.student, "student"),
        "k": k,
        "tried": " ".join(f"{k}:{val_accuracy(document, 'model'):.2f}" for k, document in sorted(runs.tried.items())),
        "model_val": val_accuracy(chosen, "model"),
        "model_test": on_test(runs.run / f"model{k}.safetensors", data / name),
        "macs_share": 100 * chosen["totals"]["macs"] / whole["macs"],
        "parameters_share": 100 * chosen["totals"]["parameters"] / whole["parameters"],
        "task_parameters": chosen["totals"]["task_parameters"],
        "blocks": chosen["totals"]["blocks"],
        "file_bytes": chosen["bytes"],
        "seconds_teach": runs.teacher["seconds"],
        "seconds_tailor": runs.student["seconds"],
        "seconds_finetune": chosen["seconds"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one line per set: means over the seeds ± standard deviation; medians of the seconds."""
    lines = [
        "| set (test images) | reference, test | student, test | difference | MACs | parameters | of them the task's"
        " | blocks kept (K) | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        numbers = [key for key in own[0] if key not in ("set", "tried")]
        mean = {key: statistics.mean(float(row[key]) for row in own) for key in numbers}
        seconds = [
            statistics.median(float(row[f"seconds_{stage}"]) for row in own)
            for stage in ("teach", "tailor", "finetune")
        ]
        kept = ", ".join(f"{row['blocks']} ({row['k']})" for row in own)
        lines.append(
            f"| {name} ({own[0]['test_images']}) | {mean_and_spread([float(row['reference_test']) for row in own])} "
            f"| {mean_and_spread([float(row['model_test']) for row in own])} "
            f"| {mean_and_spread([float(row['model_test']) - float(row['reference_test']) for row in own])} "
            f"| {mean['macs_share']:.0f} % | {mean['parameters_share']:.0f} % | {mean['task_parameters'] / 1e6:.2f} M "
            f"| {kept} | {' + '.join(f'{value:.0f}' for value in seconds)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/four_sets"))
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.sets:
        seeds = [
            before_pruning(
                name, SETS[name], seed, arguments.data, arguments.weights, arguments.out, arguments.precision
            )
            for seed in SEEDS
        ]
        k = choose(seeds)
        rows += [row(name, seed, runs, k, arguments.data) for seed, runs in zip(SEEDS, seeds, strict=True)]
        with (arguments.out / "results.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
