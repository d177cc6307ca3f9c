"""`nettailor fit` on nine sets, three seeds: the README's first table. Test accuracy taken once.

    python examples/results/nine_sets.py --data DATA --weights WEIGHTS/resnet18.safetensors --out runs/nine_sets

Each fit is run again with --baselines: all of them, fine-tuned for the same number of epochs, are measured on test as
well. With --reference-alone it is the whole network alone, which is two fifths of that work. A set and seed that has
its row in --results is not measured again, on whatever machine that was; several of these can share OUT and
--results, each with other --sets. Goes on where it was stopped. The table of all rows on stdout, with the rank
correlation between the kept MACs and the error of the classifier on frozen features.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import json
import statistics
from pathlib import Path
from typing import Any

from tool import mean_and_spread, nettailor, on_test

SEEDS = (0, 1, 2)
WORDS = ("set", "arch", "precision", "blocks", "met")
"""Columns of results that are no numbers."""

KINDS = ("reference", "model", "unpruned", "classifier", "cut", "random")
"""Networks that are measured on test."""

SETS: dict[str, list[str]] = {
    "omniglot": ["--no-flip"],
    "gtsrb": ["--no-flip", "--group", r"^[^/]+/\d+"],  # a track of frames stays on one side
    "svhn_mini": ["--no-flip"],
    "fashion_mnist": [],
    "signdigits": [],
    "dtd10": [],
    "grocery": [],
    "flowers17": [],
    "flowers102": [],
}


def asked(name: str, seed: int, arguments: argparse.Namespace) -> tuple[object, ...]:
    """What every training of a row is told."""
    return (
        "--backbone", arguments.arch, "--weights", arguments.weights, "--data", arguments.data / name, "--seed", seed,
        "--size", arguments.size, "--precision", arguments.precision, *SETS[name], "--resume",
    )  # fmt: skip


def fit(name: str, seed: int, arguments: argparse.Namespace, *, baselines: bool = False) -> dict[str, Any]:
    """What `nettailor fit` says."""
    kept = arguments.out / f"{name}-{seed}{'-baselines' if baselines else ''}.json"
    if not kept.exists():
        run, more = arguments.out / f"{name}-{seed}", ["--baselines"] if baselines else []
        fitted = nettailor("fit", "--run", run, *asked(name, seed, arguments), *more, may_miss=True)
        kept.write_text(json.dumps(fitted))
    return json.loads(kept.read_text())


def teach_reference(name: str, seed: int, arguments: argparse.Namespace, fitted: dict[str, Any]) -> None:
    """What --baselines has under that name, where `fit` looks for it."""
    (chosen,) = (row for row in fitted["candidates"] if row["name"] == fitted["chosen"])
    epochs = round(chosen["epochs"])
    run = arguments.out / f"{name}-{seed}" / "baselines" / f"reference-{epochs}"
    nettailor("teach", "--run", run, *asked(name, seed, arguments), "--epochs", epochs, "--min-steps", 0)


def key(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """What tells a row from others."""
    return {
        "set": name, "seed": seed, "arch": arguments.arch, "size": arguments.size, "precision": arguments.precision
    }  # fmt: skip


def measure(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """A row: what fit chose, and the test accuracy of it and of what it is compared with."""
    fitted = fit(name, seed, arguments)
    run = arguments.out / f"{name}-{seed}"
    seconds = seconds_of_training(run)
    if arguments.reference_alone:
        teach_reference(name, seed, arguments, fitted)
    else:
        fit(name, seed, arguments, baselines=True)
    accuracies = {kind: on_test(file, arguments.data / name) for kind, file in networks(run).items()}
    totals, whole = fitted["totals"], fitted["backbone_totals"]
    return {
        **key(name, seed, arguments), "met": fitted["met"], "blocks": str(totals["blocks"]),
        "macs": 100 * totals["macs"] / whole["macs"], "parameters": 100 * totals["parameters"] / whole["parameters"],
        "task_parameters": totals["task_parameters"],
        "candidates": len([c for c in fitted["candidates"] if c["kind"] == "candidate"]),
        "seconds": seconds, "teacher_val": fitted["teacher_accuracy"],
        **{kind: accuracies.get(kind, "") for kind in KINDS},
    }  # fmt: skip


def seconds_of_training(run: Path) -> float:
    """Of the steps of the fit so far, in all folds, by its logs; validation, scoring of blocks and start-up aside.

    Of an epoch that was stopped within and went on, what came after.
    """
    logs = [run / "log.jsonl", *run.glob("folds/*/log.jsonl")]
    records = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return float(sum(record["seconds"] for record in records if not record["file"].startswith("random-")))


def networks(run: Path) -> dict[str, Path]:
    """What is measured on test."""
    found = {"model": run / "model.safetensors", "unpruned": run / "student.safetensors"}
    found |= {path.parent.name.split("-")[0]: path for path in run.glob("baselines/*/teacher.safetensors")}
    found |= {path.name.split("-")[0]: path for path in run.glob("search/random-*.safetensors")}
    return found


def spearman(a: list[float], b: list[float]) -> float:
    """Rank correlation, equal values sharing their mean rank."""

    def ranks(values: list[float]) -> list[float]:
        order = sorted(values)
        return [order.index(v) + (order.count(v) - 1) / 2 for v in values]

    return statistics.correlation(ranks(a), ranks(b))


def measured(results: Path) -> list[dict[str, Any]]:
    """The rows that are there, their figures as numbers."""
    if not results.exists():
        return []
    with results.open(newline="") as stream:
        return [
            {key: text if key in WORDS or not text else number(text) for key, text in row.items()}
            for row in csv.DictReader(stream)
        ]


def number(text: str) -> float:
    """A whole one stays whole, so that a row that is written again looks the same."""
    return int(text) if text.isdecimal() else float(text)


def keep(row: dict[str, Any], results: Path) -> None:
    """One more line at the end, so that several of these can write, in turn."""
    with results.open("a", newline="") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        writer = csv.DictWriter(stream, fieldnames=list(row))
        if stream.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def known(column: str, rows: list[dict[str, Any]]) -> list[float]:
    """Of the rows for which it was measured."""
    return [row[column] for row in rows if row[column] != ""]


def show(rows: list[dict[str, Any]]) -> None:
    """The table: means over the seeds ± standard deviation."""
    columns = [
        "reference",
        "model",
        "difference",
        "MACs",
        "parameters",
        "blocks",
        "classifier",
        "cut",
        "random",
        "seconds",
    ]
    print("| set | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    sets = list(dict.fromkeys(row["set"] for row in rows))
    mean: dict[str, dict[str, float]] = {}
    for name in sets:
        own = [row for row in rows if row["set"] == name]
        numbers = [column for column in own[0] if column not in WORDS]
        mean[name] = {column: statistics.mean(values) for column in numbers if (values := known(column, own))}
        differences = [row["model"] - row["reference"] for row in own]
        mean[name]["difference"] = statistics.mean(differences)

        def pm(key: str, own: list[dict[str, Any]] = own) -> str:
            values = known(key, own)
            return mean_and_spread(values) if values else ""

        print(
            f"| {name} | {pm('reference')} | {pm('model')} | {mean_and_spread(differences, '+')} "
            f"| {mean[name]['macs']:.0f} % | {mean[name]['parameters']:.0f} % | {', '.join(r['blocks'] for r in own)} "
            f"| {pm('classifier')} | {pm('cut')} | {pm('random')} "
            f"| {statistics.median(r['seconds'] for r in own):.0f} |"
        )
    print(
        f"mean difference {statistics.mean(mean[name]['difference'] for name in sets):+.2f}, "
        f"mean MACs {statistics.mean(mean[name]['macs'] for name in sets):.1f} %, "
        f"mean parameters {statistics.mean(mean[name]['parameters'] for name in sets):.1f} %"
    )
    told = [name for name in sets if "classifier" in mean[name]]
    if len(told) > 2:
        error = [100 - mean[name]["classifier"] for name in told]
        print(f"rank correlation of kept MACs and the classifier's error: "
              f"{spearman([mean[name]['macs'] for name in told], error):.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--out", type=Path, default=Path("runs/nine_sets"))
    parser.add_argument("--results", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--reference-alone", action="store_true", help="without the other baselines")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for name in arguments.sets:
            own = key(name, seed, arguments)
            if not any(own.items() <= row.items() for row in measured(arguments.results)):
                keep(measure(name, seed, arguments), arguments.results)
    alike = {name: value for name, value in key("", 0, arguments).items() if name not in ("set", "seed")}
    show([row for row in measured(arguments.results) if alike.items() <= row.items()])


if __name__ == "__main__":
    main()
