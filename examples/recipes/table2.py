"""Table 2: ResNet-50 at 224 px on CUB-200, Stanford Cars, Flowers 102, WikiArt and Sketch: classifier, all, tailored.

    python examples/recipes/table2.py --data DATA -- --precision bf16

DATA holds cub200/, stanford_cars/, flowers102/, wikiart/ and sketch/, see README.md. Three skips. Goes on where it was
stopped: the same command again. Writes OUT/table2.csv and prints measured beside published. --miniature tries the
script.
"""

from __future__ import annotations

from typing import Any

from protocol import Student, Task, beside, parser, plan_of, row_of_teacher, rows_of_chosen, write_rows

SETS = ("cub200", "stanford_cars", "flowers102", "wikiart", "sketch")
SKIPS = "3"
CANDIDATES = tuple(range(1, 15))  # of 16 blocks


def main() -> None:
    arguments = parser(__doc__, out="runs/recipes/resnet50", backbone="resnet50", sets=SETS).parse_args()
    plan, new = plan_of(arguments, CANDIDATES)
    rows: list[dict[str, Any]] = []
    for name in arguments.sets:
        tasks = [Task(plan, name, seed, only_new=new) for seed in arguments.seeds]
        for task in tasks:
            features = task.taught(task.run / "features", "--freeze")
            rows.append(row_of_teacher(task, features, "feature extraction"))
        rows += [row_of_teacher(task, task.teacher()) for task in tasks]
        rows += rows_of_chosen([Student(task, SKIPS) for task in tasks])
        write_rows(plan.out / "table2.csv", rows)
    print(beside(rows, "2"))


if __name__ == "__main__":
    main()
