"""How fit searches: gradually or by the published sweep, and by which ranking. Val only; no test picture is looked at.

    python examples/studies/searches.py --data DATA --weights WEIGHTS/resnet18.safetensors --sets flowers102 gtsrb

All searches of a set and seed start from the same teacher and student (those of screen.py in the same --out, if it
was there before). A row has what was chosen, its accuracy and MACs, and the work of retraining: pictures that
went through it, in those of one full retraining. The sweep trains every number of blocks in full. Goes on where it was
stopped. Results: OUT/searches.csv, and a table on stdout.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from screen import DEFAULT, Place, study_parser, write_rows
from tool import nettailor, val_accuracy

SEARCHES: dict[str, tuple[str, ...]] = {
    "sweep-alpha": ("--search", "sweep", "--ranking", "alpha"),
    "gradual-loss": (),
    "gradual-alpha": ("--ranking", "alpha"),
    "gradual-loss-cost": ("--ranking", "loss-cost"),
    "gradual-alpha-cost": ("--ranking", "alpha-cost"),
}


def searched(place: Place, search: str, tolerance: float) -> dict[str, Any]:
    """What this search chose, as a row."""
    run = place.out / f"search-{search}"
    kept = run / "fitted.json"
    if not kept.exists():
        run.mkdir(parents=True, exist_ok=True)
        for name in ("teacher.safetensors", "student.safetensors"):
            if not (run / name).exists():
                shutil.copy(place.out / DEFAULT / name, run / name)
        fitted = nettailor(
            "fit", *place.words, "--run", run, "--folds", 1, "--tolerance", tolerance, "--precision", place.precision,
            *SEARCHES[search], "--resume", may_miss=True,
        )  # fmt: skip
        kept.write_text(json.dumps(fitted))
    fitted = json.loads(kept.read_text())
    own, whole = fitted["totals"], fitted["backbone_totals"]
    return {
        "set": place.name,
        "seed": place.seed,
        "search": search,
        "met": fitted["met"],
        "blocks": " ".join(str(p["sink"]) for p in fitted["graph"]["paths"] if p["kind"] == "universal"),
        "macs": 100 * own["macs"] / whole["macs"],
        "parameters": 100 * own["parameters"] / whole["parameters"],
        "teacher": fitted["teacher_accuracy"],
        "accuracy": val_accuracy(fitted, "model"),
        "images": fitted["metrics"]["model"]["images"],
        "candidates": sum(row["kind"] == "candidate" for row in fitted["candidates"]),
        "retrainings": retraining(run / "log.jsonl"),
    }


def retraining(log: Path) -> float:
    """Pictures that went through retraining, in those of one of the full ones, the longest."""
    pictures: dict[str, float] = {}
    for line in log.read_text().splitlines():
        record = json.loads(line)
        if record["stage"] == "finetune":
            seen = record["images_per_second"] * record["seconds"]
            pictures[record["file"]] = pictures.get(record["file"], 0.0) + seen
    return sum(pictures.values()) / max(pictures.values())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line per search: means over sets and seeds."""
    lines = ["| search | accuracy, val | MACs | parameters | full retrainings |", "|---|---|---|---|---|"]
    for search in dict.fromkeys(row["search"] for row in rows):
        own = [row for row in rows if row["search"] == search]
        means = {key: statistics.mean(row[key] for row in own) for key in ("accuracy", "macs", "parameters")}
        lines.append(
            f"| {search} | {means['accuracy']:.1f} % | {means['macs']:.0f} % | {means['parameters']:.0f} % "
            f"| {statistics.mean(row['retrainings'] for row in own):.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = study_parser(__doc__, ("flowers102", "gtsrb", "flowers17"))
    parser.add_argument("--only", nargs="+", choices=list(SEARCHES), default=list(SEARCHES), help="some searches")
    parser.add_argument("--tolerance", type=float, default=0.5)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.sets:
        for seed in arguments.seeds:
            place = Place.of(arguments, name, seed)
            list(place.candidates(None, ()))  # teacher and student
            rows += [searched(place, search, arguments.tolerance) for search in arguments.only]
            write_rows(arguments.out / "searches.csv", rows)
    print(table(rows))


if __name__ == "__main__":
    main()
