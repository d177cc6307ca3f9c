"""Several tasks on one backbone: bundled, served from one process, exported to ONNX; every picture compared.

    python examples/deploy/served.py --out runs/served NAME MODEL PICTURES [NAME MODEL PICTURES ...]

PICTURES is a folder. Three times the same pictures: by each model on its own (`nettailor predict MODEL`), by all tasks
of the bundle in this process, and by run_onnx.py, which has onnxruntime, numpy and Pillow alone. Prints how many
pictures have the same best class, and the largest difference of a probability; then what a switch of tasks takes, and
the memory of it all.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nettailor_cli import Bundle, choose_machine, find_images, load_bundle, predict
from nettailor_cli.core.deploy.timing import Stopwatch, peak_memory

RUN_ONNX = Path(__file__).with_name("run_onnx.py")
ALONE = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
CHECKED = f"import sys\ntry:\n    {ALONE}\nfinally:\n    assert not {{'torch', 'nettailor_cli'}} & {{*sys.modules}}"
Found = dict[str, tuple[str, float]]  # picture -> best class and its probability


def rows(*words: object) -> Found:
    """What a command's CSV says."""
    done = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, text=True, check=True)
    return {
        row["image"]: (row["class_1"], float(row["probability_1"])) for row in csv.DictReader(io.StringIO(done.stdout))
    }


def compared(expected: Found, found: Found) -> str:
    assert expected.keys() == found.keys()
    same = sum(expected[image][0] == found[image][0] for image in expected)
    worst = max(abs(expected[image][1] - found[image][1]) for image in expected)
    return f"{same} of {len(expected)} alike, probabilities to {worst:.0e}"


def switching(bundle: Bundle) -> float:
    """Milliseconds that a switch to another task takes: the median of 30."""
    turn = itertools.cycle(bundle.tasks)
    stopwatch = Stopwatch(seconds=0, least=30, most=30)
    taken = stopwatch.time({"switch": lambda: bundle.switch(next(turn))}, choose_machine("cpu", "fp32"))
    return statistics.median(taken["switch"]) / 1e3


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/served"))
    parser.add_argument("tasks", nargs="+", metavar="NAME MODEL PICTURES")
    arguments = parser.parse_args(words)
    if len(arguments.tasks) % 3:
        parser.error("NAME MODEL PICTURES for every task")
    tasks = {
        name: (model, Path(pictures))
        for name, model, pictures in zip(*(iter(arguments.tasks),) * 3, strict=True)  # in threes
    }
    folder = arguments.out / "bundle"
    named = [f"{name}={model}" for name, (model, _) in tasks.items()]
    subprocess.run(["nettailor", "bundle", *named, "-o", str(folder), "--force"], check=True)
    bundle, machine = load_bundle(folder), choose_machine("cpu", "fp32")
    for name, (model, pictures) in tasks.items():
        expected = rows("nettailor", "predict", model, pictures, "--format", "csv", "--device", "cpu")
        paths = find_images([pictures])
        served: Found = {str(p.path): p.classes[0] for p in predict(bundle.model(name), paths, machine, top_k=1)}
        file = arguments.out / f"{name}.onnx"
        export = ["nettailor", "export", folder / f"{name}.safetensors", "--format", "onnx", "-o", file, "--force"]
        subprocess.run([*map(str, export), "--quiet"], check=True)
        exported = rows(sys.executable, "-c", CHECKED, RUN_ONNX, file, *paths)
        size = f"{file.stat().st_size / 1e6:.1f} MB"
        print(f"{name}: served {compared(expected, served)}; ONNX ({size}) {compared(expected, exported)}", flush=True)
    print(f"switch: {switching(bundle):.1f} ms; this process took {peak_memory() / 1e6:.0f} MB at most")


if __name__ == "__main__":
    main()
