"""The README's table: teach, tailor, prune, finetune on four sets, three seeds; K chosen on val, test taken once.

    python examples/results/four_sets.py --data DATA --weights WEIGHTS/resnet18.safetensors --out runs/four_sets

DATA holds one folder per set, in the layout that `nettailor --data` reads. Everything runs through the command line,
one training at a time, and goes on where it was stopped: a finished file is not made again. Results: OUT/results.csv, a
row per set and seed, and the table on stdout.

The student had TEACH + TAILOR + FINETUNE epochs behind it, so it is compared with the whole network fine-tuned for as
many: the reference. For every set and seed K is the largest of the candidates (the leanest network) whose validation
accuracy is within TOLERANCE of the reference's, or within two validation images where those are more; found by
bisection. If none is, the one with the best validation accuracy.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

TEACH, TAILOR, FINETUNE = 16, 10, 14  # epochs: the defaults
REFERENCE = TEACH + TAILOR + FINETUNE
CANDIDATES = (3, 4, 5, 6)  # K
TOLERANCE = 0.5  # percentage points of validation accuracy
SEEDS = (0, 1, 2)
SETS: dict[str, list[str]] = {
    "gtsrb": ["--size", "64", "--no-flip", "--group", r"^[^/]+/\d+"],  # a track of frames stays on one side
    "flowers17": ["--size", "96"],
    "omniglot": ["--size", "64", "--no-flip"],
    "grocery": ["--size", "64"],
}


def nettailor(*words: object) -> dict[str, Any]:
    """One command under --json; its document."""
    done = subprocess.run(["nettailor", *map(str, words), "--json"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def make(file: Path, *words: object) -> dict[str, Any]:
    """`nettailor words`, unless it has written `file` before; what the file says of itself. Seconds go beside it."""
    clock = file.with_suffix(".seconds")
    if not file.exists():
        started = time.time()
        resume = ["--resume"] if words[0] in ("teach", "tailor", "finetune") else []
        nettailor(*words, *resume)
        clock.write_text(f"{time.time() - started:.1f}")
    return {**nettailor("inspect", file), "seconds": float(clock.read_text()) if clock.exists() else math.nan}


def measure(model: Path, data: Path) -> float:
    """Test accuracy, taken once: kept beside the model."""
    kept = model.with_suffix(".test.json")
    if not kept.exists():
        kept.write_text(json.dumps(nettailor("evaluate", model, "--data", data, "--split", "test")))
    return json.loads(kept.read_text())["accuracy"]


def val_accuracy(document: dict[str, Any], name: str) -> float:
    return document["metrics"][name]["accuracy"]


def one_run(
    name: str, options: list[str], seed: int, data: Path, weights: Path, out: Path, precision: str
) -> dict[str, Any]:
    run, reference_run = out / f"{name}-{seed}", out / f"{name}-{seed}-reference"
    run.mkdir(parents=True, exist_ok=True)
    reference_run.mkdir(parents=True, exist_ok=True)
    common = ["--backbone", "resnet18", "--weights", weights, "--data", data / name, "--seed", seed]
    finetuning = ["--epochs", FINETUNE, "--precision", precision]
    common += ["--precision", precision, *options]
    reference = make(
        reference_run / "teacher.safetensors", "teach", *common, "--run", reference_run, "--epochs", REFERENCE
    )
    teacher = make(run / "teacher.safetensors", "teach", *common, "--run", run, "--epochs", TEACH)
    student = make(run / "student.safetensors", "tailor", "--run", run, "--epochs", TAILOR, "--precision", precision)
    images = reference["metrics"]["teacher"]["images"]
    wanted = val_accuracy(reference, "teacher") - max(TOLERANCE, 100 * 2 / images)
    tried: dict[int, dict[str, Any]] = {}
    low, high = 0, len(CANDIDATES)  # the first candidate that may fail, and the first that is known to
    while low < high:
        k = CANDIDATES[(low + high) // 2]
        pruned, model = run / f"pruned{k}.safetensors", run / f"model{k}.safetensors"
        make(pruned, "prune", run / "student.safetensors", "--remove", k, "-o", pruned)
        tried[k] = make(model, "finetune", pruned, "-o", model, *finetuning)
        if val_accuracy(tried[k], "model") >= wanted - 1e-9:
            low = CANDIDATES.index(k) + 1
        else:
            high = CANDIDATES.index(k)
    within = low > 0
    k = CANDIDATES[low - 1] if within else max(tried, key=lambda k: val_accuracy(tried[k], "model"))
    chosen, model = tried[k], run / f"model{k}.safetensors"
    whole = chosen["backbone_totals"]
    return {
        "set": name,
        "seed": seed,
        "test_images": chosen["data"]["images"]["test"],
        "reference_val": val_accuracy(reference, "teacher"),
        "reference_test": measure(reference_run / "teacher.safetensors", data / name),
        "teacher_val": val_accuracy(teacher, "teacher"),
        "unpruned_val": val_accuracy(student, "student"),
        "k": k,
        "tried": " ".join(f"{k}:{val_accuracy(document, 'model'):.2f}" for k, document in tried.items()),
        "within_tolerance": within,
        "model_val": val_accuracy(chosen, "model"),
        "model_test": measure(model, data / name),
        "macs_share": 100 * chosen["totals"]["macs"] / whole["macs"],
        "parameters_share": 100 * chosen["totals"]["parameters"] / whole["parameters"],
        "task_parameters": chosen["totals"]["task_parameters"],
        "blocks": chosen["totals"]["blocks"],
        "file_bytes": chosen["bytes"],
        "seconds_teach": teacher["seconds"],
        "seconds_tailor": student["seconds"],
        "seconds_finetune": chosen["seconds"],
    }


def mean_and_spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f} (one seed)"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


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
    for seed in SEEDS:
        for name in arguments.sets:
            row = one_run(name, SETS[name], seed, arguments.data, arguments.weights, arguments.out, arguments.precision)
            rows.append(row)
            with (arguments.out / "results.csv").open("w", newline="") as stream:
                writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
