"""Table 1: ResNet-34 at 224 px on SVHN, Flowers 102 and VOC 2012, fine-tuned and with proxies over 1, 3, 5, all nodes.

    python examples/recipes/table1.py --data DATA -- --precision bf16

DATA holds svhn/, flowers102/ and voc2012/, see README.md. Goes on where it was stopped: the same command again. Writes
OUT/table1.csv, a row per set, network and seed, and prints measured beside published. --miniature tries the script.
"""

from __future__ import annotations

from typing import Any

from protocol import Student, Task, beside, parser, plan_of, row_of_teacher, rows_of_chosen, write_rows

SETS = ("svhn", "flowers102", "voc2012")
SKIPS = ("1", "3", "5", "dense")
CANDIDATES = tuple(range(1, 15))  # of 16 blocks


def main() -> None:
    options = parser(__doc__, out="runs/recipes/resnet34", backbone="resnet34", sets=SETS)
    options.add_argument("--skips", nargs="+", default=list(SKIPS), choices=SKIPS)
    arguments = options.parse_args()
    plan, new = plan_of(arguments, CANDIDATES)
    rows: list[dict[str, Any]] = []
    for name in arguments.sets:
        tasks = [Task(plan, name, seed, only_new=new) for seed in arguments.seeds]
        rows += [row_of_teacher(task, task.teacher()) for task in tasks]
        for skips in arguments.skips:
            rows += rows_of_chosen([Student(task, skips) for task in tasks])
            write_rows(plan.out / "table1.csv", rows)
    print(beside(rows, "1"))


if __name__ == "__main__":
    main()
