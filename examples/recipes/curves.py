"""What Figures 5 and 6 share: accuracy against the number of removed blocks, for several ways to make a student."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from protocol import Student, Task, parser, plan_of, published, row_of_model, row_of_teacher, write_rows

SETS = ("svhn", "flowers102", "voc2012")
REMOVED = tuple(range(1, 15))  # of ResNet-34's 16 blocks
Students = Callable[[Task], Sequence[Student]]


def main(doc: str | None, figure: str, students_of: Students, finding: str) -> None:
    """The whole command. students_of: the students of a task; finding: what the paper says of this figure."""
    options = parser(doc, out="runs/recipes/resnet34", backbone="resnet34", sets=SETS)
    options.add_argument("--removed", nargs="+", type=int, default=None, metavar="K", help="(1 to 14)")
    arguments = options.parse_args()
    plan, new = plan_of(arguments, arguments.removed or REMOVED)
    removed = arguments.removed or plan.candidates
    rows: list[dict[str, Any]] = []
    for name in arguments.sets:
        for seed in arguments.seeds:
            task = Task(plan, name, seed, only_new=new)
            rows.append(row_of_teacher(task, task.teacher()))
            for student in students_of(task):
                for k in removed:
                    rows.append(row_of_model(student, k))
                    write_rows(plan.out / f"{figure}.csv", rows)
        print(curves([row for row in rows if row["set"] == name]), flush=True)
    print(f"published: {finding}")


def curves(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown for one set: a line per K, a column per network, test accuracy over the seeds; then published points."""
    name = rows[0]["set"]
    networks = list(dict.fromkeys(row["network"] for row in rows))[1:]
    fine_tuned = statistics.mean(row["test"] for row in rows if row["k"] == "")
    lines = [f"| {name}: K | {' | '.join(networks)} |", "|---|" + "---|" * len(networks)]
    for k in dict.fromkeys(row["k"] for row in rows if row["k"] != ""):
        cells = (
            f"{statistics.mean(row['test'] for row in rows if (row['network'], row['k']) == (network, k)):.2f}"
            for network in networks
        )
        lines.append(f"| {k} | {' | '.join(cells)} |")
    lines.append(f"test accuracy in percent; fine-tuned {fine_tuned:.2f}")
    points = {row["network"]: row for row in published("1") if row["set"] == name}
    lines += [
        f"published, Table 1, {network}: {points[network]['accuracy']} with {points[network]['blocks']} of 18 blocks"
        for network in ("fine-tuned", *networks)
        if network in points
    ]
    return "\n".join([*lines, ""])
