"""The paper's procedure on the command line, which the scripts of its tables and figures share.

    OUT/SET-SEED/teacher.safetensors                                the whole network, fine-tuned
    OUT/SET-SEED/3-skips/student.safetensors                        tailored under it (3-skips-no-teacher: without)
    OUT/SET-SEED/3-skips/prunedK.safetensors, modelK.safetensors    K blocks removed, retrained

Settings: --preset paper, configs/SET.toml, the set's own words, then what is typed after --. A finished file is not
made again, an interrupted one goes on; tables and figures with the same OUT share what they have in common.

K, the number of removed blocks, is the largest whose accuracy on VAL is within TOLERANCE of the fine-tuned network's,
found by bisection. Test is looked at for the chosen network, and in the figures for every one, but nothing is chosen
there. The paper judged on test, and so chose better than one can who does not know it: no equal comparison.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "results"))
from tool import leanest, make, mean_and_spread, nettailor, on_test, val_accuracy

HERE = Path(__file__).resolve().parent
TOLERANCE = 0.5  # percentage points of validation accuracy
FINE_TUNED, AVERAGE = "fine-tuned", "average"


@dataclass(frozen=True)
class Plan:
    """What is the same for all sets of a table.

    out: the folder of all runs. data: the folder of the sets. backbone: ARCH.TAG; weights: its file, if it has to be
    imported. candidates: numbers of blocks to remove, ascending. words: options of every training, last of all.
    """

    out: Path
    data: Path
    backbone: str
    weights: Path | None
    candidates: tuple[int, ...]
    words: tuple[str, ...] = ()

    @property
    def start(self) -> list[object]:
        """The options of a new run."""
        return ["--backbone", self.backbone, *([] if self.weights is None else ["--weights", self.weights])]


@dataclass(frozen=True)
class Task:
    """One set with one seed. words: the set's own options; config: of configs/, by default the one of its name.

    only_new: options that a new run alone takes (--size, --mean). preset: "" is none. teacher_at: a fine-tuned network
    that is there already.
    """

    plan: Plan
    name: str
    seed: int
    config: str = ""
    words: tuple[object, ...] = ()
    only_new: tuple[object, ...] = ()
    preset: str = "paper"
    teacher_at: Path | None = None

    @property
    def data(self) -> Path:
        return self.plan.data / self.name

    @property
    def run(self) -> Path:
        return self.plan.out / f"{self.name}-{self.seed}"

    def taught(self, run: Path, *words: object) -> Path:
        """The file of a teacher of this set's pictures."""
        return self.made(run / "teacher.safetensors", "teach", "--run", run, *self.new(), *words)

    def teacher(self) -> Path:
        """The file of the fine-tuned network."""
        return self.teacher_at or self.taught(self.run)

    def settings(self) -> list[object]:
        """The options of every training."""
        config = HERE / "configs" / f"{self.config or self.name}.toml"
        preset = ["--preset", self.preset] if self.preset else []
        return ["--data", self.data, *preset, "--config", config, "--seed", self.seed, *self.words]

    def new(self) -> list[object]:
        """The options of a training that begins a run."""
        return [*self.plan.start, *self.settings(), *self.only_new]

    def made(self, file: Path, *words: object) -> Path:
        """`file`, made by a training if it is not there."""
        file.parent.mkdir(parents=True, exist_ok=True)
        make(file, *words, *self.plan.words)
        return file


@dataclass
class Student:
    """A student of a task, tailored with `skips` under the task's teacher or without, and what pruning made of it."""

    task: Task
    skips: str
    with_teacher: bool = True
    models: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        return self.task.run / (f"{self.skips}-skips" + ("" if self.with_teacher else "-no-teacher"))

    @property
    def network(self) -> str:
        """As in published.csv."""
        name = {"dense": "dense", "1": "1 skip"}.get(self.skips, f"{self.skips} skips")
        return name if self.with_teacher else f"{name}, no teacher"

    def file(self, k: int) -> Path:
        return self.run / f"model{k}.safetensors"

    def model(self, k: int) -> dict[str, Any]:
        """What the retrained network with `k` blocks removed says of itself."""
        if k not in self.models:
            task, student, pruned = self.task, self.run / "student.safetensors", self.run / f"pruned{k}.safetensors"
            hint = ["--teacher", task.teacher()] if self.with_teacher else ["--no-teacher"]
            task.made(student, "tailor", "--run", self.run, "--skips", self.skips, *hint, *task.new())
            make(pruned, "prune", student, "--remove", k, "-o", pruned)
            task.made(self.file(k), "finetune", pruned, "-o", self.file(k), *hint, *task.settings())
            self.models[k] = nettailor("inspect", self.file(k))
        return self.models[k]


def chosen(students: Sequence[Student]) -> int:
    """K for the seeds of one set together, from validation accuracies alone."""
    fine_tuned = [nettailor("inspect", student.task.teacher()) for student in students]

    def accuracy(k: int) -> float:
        return statistics.mean(val_accuracy(student.model(k), "model") for student in students)

    least = statistics.mean(val_accuracy(document, "teacher") for document in fine_tuned) - TOLERANCE
    return leanest(students[0].task.plan.candidates, accuracy, least)


# rows


def row_of_teacher(task: Task, file: Path, network: str = FINE_TUNED) -> dict[str, Any]:
    """`network` is the name in published.csv."""
    return {**_row(task, network, nettailor("inspect", file), "teacher"), "test": on_test(file, task.data)}


def row_of_model(student: Student, k: int) -> dict[str, Any]:
    row = _row(student.task, student.network, student.model(k), "model")
    tried = " ".join(f"{k}:{val_accuracy(document, 'model'):.2f}" for k, document in sorted(student.models.items()))
    return {**row, "k": k, "tried": tried, "test": on_test(student.file(k), student.task.data)}


def rows_of_chosen(students: Sequence[Student]) -> list[dict[str, Any]]:
    """A row per seed, for the K of all."""
    k = chosen(students)
    return [row_of_model(student, k) for student in students]


def _row(task: Task, network: str, document: dict[str, Any], metric: str) -> dict[str, Any]:
    totals = document["totals"]
    return {
        "set": task.name,
        "network": network,
        "seed": task.seed,
        "k": "",
        "tried": "",
        "val": val_accuracy(document, metric),
        "test": "",
        "parameters_m": totals["parameters"] / 1e6,
        "task_parameters_m": totals["task_parameters"] / 1e6,
        "gmacs": totals["macs"] / 1e9,
        "blocks": totals["blocks"],
    }


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """All rows so far: after every new one, so that a look at the file tells how far it is."""
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


# beside what was published


def published(table: str) -> list[dict[str, str]]:
    """The rows of one table in published.csv (source: README.md)."""
    with (HERE / "published.csv").open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["table"] == table]


def beside(rows: Sequence[dict[str, Any]], table: str) -> str:
    """Markdown: a line per set and network, measured (mean ± standard deviation over the seeds) / published.

    Where all sets of the table were measured, and it has an average, so are their averages.
    """
    theirs = {(row["set"], row["network"]): row for row in published(table)}
    if {AVERAGE, *(row["set"] for row in rows)} == {name for name, _ in theirs}:
        rows = [*rows, *averages(rows)]
    lines = [
        "| set | network | test accuracy, % | M parameters | G multiply-adds | blocks | K |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["set"] for row in rows):
        measured = dict.fromkeys(row["network"] for row in rows if row["set"] == name)
        others = dict.fromkeys(network for of, network in theirs if of == name)
        for network in measured | others:
            own = [row for row in rows if (row["set"], row["network"]) == (name, network)]
            lines.append(_line(name, network, own, theirs.get((name, network), {})))
    return "\n".join(
        [
            *lines,
            "",
            "measured / published. K was chosen on val; the paper judged on test. Blocks: residual ones; the paper's",
            "count seems to have stem and classifier in it. Published FLOPs count the stem smaller than it is.",
        ]
    )


def averages(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For every network and seed the means over the sets, as rows of a set AVERAGE."""
    found = []
    for network, seed in dict.fromkeys((row["network"], row["seed"]) for row in rows):
        own = [row for row in rows if (row["network"], row["seed"]) == (network, seed)]
        means = {key: statistics.mean(row[key] for row in own) for key in ("test", "parameters_m", "gmacs", "blocks")}
        found.append({**own[0], **means, "set": AVERAGE, "k": ""})
    return found


def _line(name: str, network: str, own: Sequence[dict[str, Any]], other: dict[str, str]) -> str:
    measured = ["-"] * 4
    if own:
        measured = [
            mean_and_spread([row["test"] for row in own]),
            *(f"{statistics.mean(row[key] for row in own):.2f}" for key in ("parameters_m", "gmacs")),
            f"{statistics.mean(row['blocks'] for row in own):g}",
        ]
    columns = ("accuracy", "parameters_m", "gflops", "blocks")
    cells = [f"{ours} / {other.get(column) or '-'}" for ours, column in zip(measured, columns, strict=True)]
    return f"| {name} | {network} | {' | '.join(cells)} | {', '.join(dict.fromkeys(str(row['k']) for row in own))} |"


# the command line


@dataclass(frozen=True)
class Miniature:
    """What --miniature puts in place of a table's own: drawn pictures, a small network, one epoch.

    lay_out: which function of miniature.py makes the data; size: None for the sets' own.
    """

    lay_out: str = "lay_out_sets"
    backbone: str = "resnet18.tiny_imagenet"
    candidates: tuple[int, ...] = (2, 4)
    size: int | None = 32
    words: str = "--epochs 1 --batch-size 8 --lr 0.01 --device cpu --precision fp32"


def parser(doc: str | None, *, out: str, backbone: str, sets: Sequence[str]) -> argparse.ArgumentParser:
    """The options that all tables have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, help="the folder with the sets, each as its reader laid it out")
    made.add_argument("--out", type=Path, default=Path(out), help=f"where all runs are ({out})")
    made.add_argument("--backbone", default=backbone, help=f"({backbone})")
    made.add_argument("--weights", type=Path, help="the backbone's file, where it has to be imported")
    made.add_argument("--sets", nargs="+", default=list(sets), choices=list(sets))
    made.add_argument("--seeds", nargs="+", type=int, default=[0])
    made.add_argument("--miniature", action="store_true", help="try the script: a few drawn pictures, tiny settings")
    made.add_argument("words", nargs="*", metavar="-- WORDS", help="further options of every training")
    return made


def plan_of(
    arguments: argparse.Namespace, candidates: Sequence[int], miniature: Miniature = Miniature()
) -> tuple[Plan, tuple[str, ...]]:
    """The plan that was typed, and options for new runs. --miniature's data is made first, in OUT/miniature."""
    own = arguments
    if own.miniature:
        import miniature as drawn

        out = own.out / "miniature"
        getattr(drawn, miniature.lay_out)(out / "source", out / "data", own.sets, miniature.size)
        words = (*miniature.words.split(), *own.words)
        plan = Plan(out, out / "data", miniature.backbone, None, miniature.candidates, words)
        return plan, () if miniature.size is None else ("--size", str(miniature.size))
    if own.data is None:
        raise SystemExit("--data DIR is missing: the folder with the sets (--miniature does without)")
    for name in own.sets:
        if not (own.data / name).is_dir():
            raise SystemExit(f"{own.data / name} is missing: README.md says how to make it; --sets can leave it out")
    own.out.mkdir(parents=True, exist_ok=True)
    return Plan(own.out, own.data, own.backbone, own.weights, tuple(candidates), tuple(own.words)), ()
