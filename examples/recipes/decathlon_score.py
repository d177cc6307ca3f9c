"""The decathlon score from the errors, or accuracies, of the ten sets.

    python examples/recipes/decathlon_score.py results.csv        # or .json

    score = sum over the sets of 1000 * (max(0, E_max - E) / E_max)^2      E the test error, E_max twice the baseline's

A CSV has a header with `set` and `error` or `accuracy`, in percent, and a row per set; a JSON file is
{"errors": {set: percent}} or {"accuracies": {set: percent}}. A set that is missing counts nothing, and is named.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

BASELINE = {
    "imagenet12": 59.87, "aircraft": 60.34, "cifar100": 82.12, "daimlerpedcls": 92.82, "dtd": 55.53, "gtsrb": 97.53,
    "vgg-flowers": 81.41, "omniglot": 87.69, "svhn": 96.55, "ucf101": 51.20,
}  # fmt: skip
"""The baseline's accuracies in percent (fully fine-tuned networks), as the paper's table takes them."""


def points(name: str, error: float) -> float:
    """What one set gives, at most 1000; `error` in percent."""
    most = 2 * (100 - BASELINE[name])
    return float(1000 * (max(0.0, most - error) / most) ** 2)


def score(errors: Mapping[str, float]) -> float:
    """The sum over the sets; `errors` in percent. Raises ValueError for an unknown set or a figure that is none."""
    for name, error in errors.items():
        if name not in BASELINE:
            raise ValueError(f"there is no set {name}: the decathlon has {', '.join(BASELINE)}")
        if not (math.isfinite(error) and 0 <= error <= 100):
            raise ValueError(f"the error of {name} is {error}: percent are needed, 0 to 100")
    return sum(points(name, error) for name, error in errors.items())


def read_errors(file: Path) -> dict[str, float]:
    """Set -> error in percent. Raises ValueError and OSError."""
    if file.suffix.lower() == ".json":
        document = json.loads(file.read_text())
        if not isinstance(document, dict) or not {"errors", "accuracies"} & set(document):
            raise ValueError(f'{file} needs "errors" or "accuracies"')
        if "errors" in document:
            return {name: float(value) for name, value in document["errors"].items()}
        return {name: 100 - float(value) for name, value in document["accuracies"].items()}
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    key = next((key for key in ("error", "accuracy") if rows and key in rows[0]), None)
    if key is None or "set" not in rows[0]:
        raise ValueError(f"{file} needs the columns set, and error or accuracy")
    names = [row["set"] for row in rows]
    if len(set(names)) < len(names):
        raise ValueError(f"{file} has a set twice")
    return {row["set"]: float(row[key]) if key == "error" else 100 - float(row[key]) for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="FILE.csv|.json")
    file = parser.parse_args().results
    try:
        errors = read_errors(file)
        total = score(errors)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for name, error in errors.items():
        print(f"{name:14} error {error:6.2f} %  {points(name, error):7.1f}")
    missing = [name for name in BASELINE if name not in errors]
    if missing:
        print(f"missing, counted as 0: {', '.join(missing)}")
    print(f"score {total:.1f}")


if __name__ == "__main__":
    main()
