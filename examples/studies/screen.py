"""One factor at a time: what each setting in factors.toml does to accuracy at equal MACs, on any folder of sets.

    python examples/studies/screen.py --data DATA --weights WEIGHTS/resnet18.safetensors --sets flowers17 gtsrb

Each level is tailored, pruned by several numbers K of blocks and retrained. The default is, too, by more of them:
between its candidates lies the line of accuracy over MACs that a level's candidates are compared with, at their own
MACs. Everything is measured on val, which chooses; no test picture is looked at. Goes on where it was stopped. Results:
OUT/results.csv, a row per candidate, and a table on stdout, a line per level.

To confirm what stood out: --only FACTOR.LEVEL ... --seeds 0 1 2. A seed draws its own val, so differences are taken
within a seed, and mean and spread are over sets and seeds.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from nettailor_cli.core.presets import resolve
from nettailor_cli.core.settings import STAGES, to_document

sys.path.append(str(Path(__file__).resolve().parents[1] / "results"))
from tool import make, mean_and_spread, val_accuracy

DEFAULTS = {stage: to_document(resolve(stage, flags={}), stage) for stage in STAGES}
"""Of this version: a level is compared with no other's."""

SETS: dict[str, list[str]] = {
    "dtd10": ["--size", "64"],
    "fashion_mnist": ["--size", "64", "--no-flip"],
    "flowers17": ["--size", "64"],
    "flowers102": ["--size", "64"],
    "grocery": ["--size", "64"],
    "gtsrb": ["--size", "64", "--no-flip", "--group", r"^[^/]+/\d+"],  # a track of frames stays on one side
    "omniglot": ["--size", "64", "--no-flip"],
    "signdigits": ["--size", "64", "--no-flip"],
    "svhn_mini": ["--size", "64", "--no-flip"],
}
LINE, LEVEL = (3, 4, 5, 6, 7), (4, 6)  # K of the default and of every level
DEFAULT = "default"


@dataclass(frozen=True)
class Level:
    """A setting of `factor`, as tables by stage."""

    factor: str
    name: str
    settings: dict[str, dict[str, Any]]

    @property
    def label(self) -> str:
        return f"{self.factor}.{self.name}"


def read_levels(file: Path) -> list[Level]:
    document = tomllib.loads(file.read_text())
    return [Level(factor, name, stages) for factor, levels in document.items() for name, stages in levels.items()]


@dataclass(frozen=True)
class Place:
    """One set and seed: what all its levels have in common."""

    out: Path
    name: str
    seed: int
    words: tuple[object, ...]
    precision: str

    @classmethod
    def of(cls, arguments: argparse.Namespace, name: str, seed: int) -> Place:
        """Under --out, with the backbone and data of the command line."""
        weights = ["--weights", arguments.weights] if arguments.weights else []
        words = ("--backbone", arguments.backbone, *weights, "--data", arguments.data / name, "--seed", seed)
        return cls(arguments.out / f"{name}-{seed}", name, seed, (*words, *SETS[name]), arguments.precision)

    @property
    def teacher(self) -> Path:
        return self.out / DEFAULT / "teacher.safetensors"

    def candidates(self, level: Level | None, removals: Sequence[int]) -> Iterator[dict[str, Any]]:
        """A row for every number of removed blocks. `level` None: the default."""
        run = self.out / (level.label if level else DEFAULT)
        run.mkdir(parents=True, exist_ok=True)
        settings = level.settings if level else {}
        config = run / "level.toml"
        words = " ".join(map(str, (*self.words, self.precision)))
        asked = f"# {words}\n# on top of {DEFAULTS}\n{tomli_w.dumps(settings)}"
        if config.exists() and config.read_text() != asked:
            raise SystemExit(f"{config} was measured with other settings: remove {run}, or choose another --out")
        config.write_text(asked)
        training = ("--config", config, "--precision", self.precision)
        common = (*self.words, *training)
        teacher = self.teacher
        if level is None or "teach" in settings:
            teacher = run / "teacher.safetensors"
            make(teacher, "teach", *common, "--run", run)
        tailored = run if level is None or {"teach", "tailor"} & set(settings) else self.out / DEFAULT
        student = tailored / "student.safetensors"
        make(student, "tailor", *common, "--run", tailored, "--teacher", teacher)
        for k in removals:
            pruned, model = tailored / f"pruned{k}.safetensors", run / f"model{k}.safetensors"
            make(pruned, "prune", student, "--remove", k, "-o", pruned)
            made = make(model, "finetune", pruned, "-o", model, *training, "--teacher", teacher)
            own, whole = made["totals"], made["backbone_totals"]
            yield {
                "set": self.name,
                "seed": self.seed,
                "factor": level.factor if level else DEFAULT,
                "level": level.name if level else "",
                "k": k,
                "blocks": " ".join(str(p["sink"]) for p in made["graph"]["paths"] if p["kind"] == "universal"),
                "macs": 100 * own["macs"] / whole["macs"],
                "parameters": 100 * own["parameters"] / whole["parameters"],
                "task_parameters": own["task_parameters"],
                "teacher": val_accuracy(made, "teacher"),
                "unpruned": val_accuracy(made, "student"),
                "accuracy": val_accuracy(made, "model"),
                "loss": made["metrics"]["model"]["loss"],
                "images": made["metrics"]["model"]["images"],
            }


def between(line: Sequence[tuple[float, float]], x: float) -> float:
    """The value at `x` of the line through the points (x, y); left and right of it as at its ends."""
    points = sorted(dict(sorted(line, reverse=True)).items())  # of points at the same x the lowest counts
    return float(np.interp(x, *zip(*points, strict=True)))


def compared(row: dict[str, Any], line: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`row` with its differences to the default's `line` at equal MACs: points of accuracy, and loss."""
    return {
        **row,
        **{
            f"{what}_difference": row[what] - between([(other["macs"], other[what]) for other in line], row["macs"])
            for what in ("accuracy", "loss")
        },
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line per level, the largest gain of loss first: mean ± standard deviation over sets, seeds and K."""
    lines = [
        "| factor | level | accuracy, points | loss | better in | MACs |",
        "|---|---|---|---|---|---|",
    ]
    levels: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["factor"] != DEFAULT:
            levels.setdefault((row["factor"], row["level"]), []).append(row)

    def mean(own: Sequence[dict[str, Any]], what: str) -> float:
        return statistics.mean(row[what] for row in own)

    for (factor, level), own in sorted(levels.items(), key=lambda item: mean(item[1], "loss_difference")):
        points, losses = ([row[f"{what}_difference"] for row in own] for what in ("accuracy", "loss"))
        better = sum(point > 0 for point in points)
        lines.append(
            f"| {factor} | {level} | {mean_and_spread(points, '+')} | {mean_and_spread(losses, '+', digits=3)} "
            f"| {better} of {len(own)} | {mean(own, 'macs'):.0f} % |"
        )
    return "\n".join(lines)


def study_parser(about: str | None, sets: Sequence[str]) -> argparse.ArgumentParser:
    """What all studies are asked: see `Place.of`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="see nettailor teach")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--out", type=Path, default=Path("runs/screen"))
    parser.add_argument("--sets", nargs="+", default=list(sets), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--precision", default="auto")
    return parser


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = study_parser(__doc__, ("flowers17", "gtsrb"))
    parser.add_argument("--factors", type=Path, default=Path(__file__).with_name("factors.toml"))
    parser.add_argument("--only", nargs="+", metavar="FACTOR.LEVEL", help="some of the levels")
    arguments = parser.parse_args()
    levels = read_levels(arguments.factors)
    if unknown := {*(arguments.only or [])} - {level.label for level in levels}:
        parser.error(f"no level is called {', '.join(sorted(unknown))}: see {arguments.factors}")
    levels = [level for level in levels if not arguments.only or level.label in arguments.only]
    places = [Place.of(arguments, name, seed) for name in arguments.sets for seed in arguments.seeds]
    lines = {place: list(place.candidates(None, LINE)) for place in places}
    rows = [compared(row, line) for line in lines.values() for row in line]
    for level in levels:
        for place, line in lines.items():
            rows += [compared(row, line) for row in place.candidates(level, LEVEL)]
        write_rows(arguments.out / "results.csv", rows)
    print(table(rows))


if __name__ == "__main__":
    main()
