"""Table 3, the Visual Decathlon: a wide ResNet-26 taught on its ImageNet, tailored to each of the ten sets, the score.

    python examples/recipes/table3.py --data DATA -- --precision bf16

DATA is what decathlon.py made: a folder per set and statistics.json. First the backbone is taught from random weights
on imagenet12 (configs/decathlon_pretrain.toml; --weights FILE takes one that is there), which is the teacher for
imagenet12 as well; then every set is taught, tailored with three skips, pruned and retrained, with the mean and
standard deviation of its own pictures. Goes on where it was stopped: the same command again. Writes OUT/table3.csv and
prints measured beside published, mean and score. --miniature tries the script.

Without the test labels (see decathlon.py) "test" is the challenge's val, and training has a fifth of train less.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from decathlon import SIZES
from decathlon_score import BASELINE, score
from protocol import (
    AVERAGE,
    Miniature,
    Plan,
    Student,
    Task,
    beside,
    parser,
    plan_of,
    published,
    row_of_teacher,
    rows_of_chosen,
    write_rows,
)

sys.path.append(str(Path(__file__).resolve().parents[1] / "pretrain"))
from pretrain import random_weights

PRETRAINED_ON = "imagenet12"
NO_FLIP = ("gtsrb", "omniglot", "svhn")  # signs, characters, digits
SKIPS, TAILORED = "3", "3 skips"
CANDIDATES = tuple(range(1, 11))  # of 12 blocks
TAG = "decathlon"


def task_of(plan: Plan, name: str, seed: int) -> Task:
    statistics_of = json.loads((plan.data / "statistics.json").read_text())[name]
    normalised = (f"--{what}={','.join(f'{value:.6f}' for value in statistics_of[what])}" for what in ("mean", "std"))
    no_flip = ("--no-flip",) if name in NO_FLIP else ()
    return Task(plan, name, seed, f"decathlon_{SIZES[name]}", no_flip, tuple(normalised))


def pretrained(plan: Plan) -> Path:
    """The backbone's file, taught on the decathlon's ImageNet."""
    arch, run = plan.backbone.split(".")[0], plan.out / "pretrain"
    start = run / "random.safetensors"
    if not start.exists():
        random_weights(arch, 0, start)
    plan = replace(plan, backbone=f"{arch}.random", weights=start)
    return replace(task_of(plan, PRETRAINED_ON, 0), config="decathlon_pretrain", preset="").taught(run)


def main() -> None:
    options = parser(__doc__, out="runs/recipes/decathlon", backbone=f"decathlon_wrn26.{TAG}", sets=tuple(SIZES))
    arguments = options.parse_args()
    miniature = Miniature("lay_out_decathlon", backbone=f"decathlon_wrn26.{TAG}", size=None)
    plan, _ = plan_of(arguments, CANDIDATES, miniature)
    ours = plan.weights is None
    if ours:
        plan = replace(plan, weights=pretrained(plan))
    rows: list[dict[str, Any]] = []
    for name in arguments.sets:
        tasks = [task_of(plan, name, seed) for seed in arguments.seeds]
        if ours and name == PRETRAINED_ON:
            tasks = [replace(task, teacher_at=plan.weights) for task in tasks]
        rows += [row_of_teacher(task, task.teacher()) for task in tasks]
        rows += rows_of_chosen([Student(task, SKIPS) for task in tasks])
        write_rows(plan.out / "table3.csv", rows)
    print(beside(rows, "3"))
    print(scores(rows))


def scores(rows: list[dict[str, Any]]) -> str:
    """Mean accuracy and score of the tailored networks, and of what was published."""
    own = {
        name: statistics.mean(row["test"] for row in rows if row["set"] == name and row["network"] == TAILORED)
        for name in dict.fromkeys(row["set"] for row in rows)
    }
    theirs: dict[str, dict[str, float]] = {}
    for row in published("3"):
        if row["set"] != AVERAGE:
            theirs.setdefault(row["network"], {})[row["set"]] = float(row["accuracy"])
    lines = ["| | sets | mean | score |", "|---|---|---|---|"]
    for network, accuracies in {"measured": own, **theirs}.items():
        total = score({name: 100 - accuracy for name, accuracy in accuracies.items()})
        mean = statistics.mean(accuracies.values())
        lines.append(f"| {network} | {len(accuracies)} of {len(BASELINE)} | {mean:.2f} | {total:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
