"""Odd pictures through everything that reads pictures: is each shown right or refused by name, quickly, in bounds?

    python examples/trust/pictures.py FOLDER [--count 1000] [--seed 0] [--without KIND ...] [--without-cli]

FOLDER is made, and must not be there. First every file is decoded in a process of its own kind: what comes out is
compared with what was drawn (see odd_pictures.py); a file that takes more than a minute, more than the memory that
core/data/decode.py states (16 bytes per pixel; here and 64 MB), or ends the process, has failed. Then the folder as a
whole: read_dataset, load_pictures, find_images. Then the command line: teach and evaluate, which have to name every bad
file in one message (exit 2) and to go on with --skip-bad-images; predict, a row for each. Exits 1 when anything fails.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from odd_pictures import EITHER, KINDS, NO_HASH, REFUSED, RIGHT, Odd, odd_pictures
from PIL import Image

SECONDS = 60
PER_PIXEL, BESIDE = 16, 64 * 2**20
"""Bytes: what a picture may take while it is decoded."""
SIDE = 32
FAILED = "FAILED"


def write(odd: Sequence[Odd], root: Path) -> list[Path]:
    """Every picture in a folder of its own, of class a or b: ROOT/train/a/0000/NAME."""
    paths = []
    for number, picture in enumerate(odd):
        folder = root / "train" / "ab"[number % 2] / f"{number:04}"
        folder.mkdir(parents=True)
        path = folder / picture.name
        if callable(picture.make):
            picture.make(path)
        else:
            path.write_bytes(picture.make)
        paths.append(path)
    return paths


# decoding, in a process of its own


def judge(picture: Odd, path: Path) -> tuple[str, str, int]:
    """RIGHT, REFUSED or FAILED; why; bytes of memory that it took at most."""
    from nettailor_cli.core.data import BadImage, decode

    before = peak_from_here()
    try:
        image = decode(path)
    except BadImage as error:
        peak = memory("VmHWM") - before
        named = error.message == f"{path}: {error.reason}" and 0 < len(error.reason) < 120 and "\n" not in error.reason
        outcome = REFUSED if named and picture.expect != RIGHT else FAILED
        why = error.reason
    else:
        peak = memory("VmHWM") - before
        outcome, why = compare(picture, image)
    if peak > allowed(picture):
        outcome, why = FAILED, f"{peak / 2**20:.0f} MB, {allowed(picture) / 2**20:.0f} are allowed; {why}"
    return outcome, why, peak


def compare(picture: Odd, image: Image.Image) -> tuple[str, str]:
    if picture.shown is None or picture.expect == REFUSED:
        return FAILED, f"shown, {image.width} x {image.height}"
    if (image.height, image.width) != picture.shown.shape[:2] or image.mode != "RGB":
        return FAILED, f"{image.mode} {image.width} x {image.height}, not {picture.shown.shape}"
    if picture.expect == NO_HASH:
        return RIGHT, "some picture"
    off = difference(image, picture.shown)
    return (RIGHT if off <= picture.near else FAILED), f"{off:.3f} levels off"


def difference(image: Image.Image, shown: np.ndarray) -> float:
    """The average, in levels of 255; row by row where it is large."""
    rows = max(1, 2**22 // image.width)
    total = 0.0
    for top in range(0, image.height, rows):
        part = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height)))).astype(np.int16)
        total += float(np.abs(part - shown[top : top + rows]).sum())
    return total / (3 * image.width * image.height)


def allowed(picture: Odd) -> int:
    """What is stated; a file that claims more pixels than may be has nothing to take memory for."""
    pixels = 0 if picture.shown is None else picture.shown.shape[0] * picture.shown.shape[1]
    if picture.kind == "large" and picture.shown is None:
        pixels = 13_000 * 13_000
    return BESIDE + PER_PIXEL * pixels


def memory(line: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return 1024 * int(text.split(f"{line}:")[1].split()[0])


def peak_from_here() -> int:
    """Forgets the peak so far; the memory now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def in_process(odd: Sequence[Odd], paths: Sequence[Path]) -> list[tuple[str, str, int]]:
    """Each judged, and what hangs or kills its process is a failure of this one alone."""
    found: list[tuple[str, str, int]] = []
    fork = multiprocessing.get_context("fork")

    def work(start: int, pipe: Any) -> None:
        for picture, path in list(zip(odd, paths, strict=True))[start:]:
            try:
                pipe.send(judge(picture, path))
            except BaseException as error:  # noqa: BLE001 - the very thing that is looked for
                pipe.send((FAILED, f"{type(error).__name__}: {error}", 0))

    while len(found) < len(odd):
        ours, theirs = fork.Pipe(duplex=False)
        child = fork.Process(target=work, args=(len(found), theirs), daemon=True)
        child.start()
        theirs.close()
        try:
            while len(found) < len(odd):
                if not ours.poll(SECONDS):
                    found.append((FAILED, f"more than {SECONDS} s", 0))
                    break
                found.append(ours.recv())
        except EOFError:
            child.join()
            found.append((FAILED, f"the process ended with {child.exitcode}", 0))
        child.kill()
        child.join()
    return found


# the folder as a whole


def in_folder(root: Path, odd: Sequence[Odd], paths: Sequence[Path], outcomes: Sequence[str]) -> list[str]:
    """What read_dataset, load_pictures and find_images make of it; the failures."""
    from nettailor_cli.core.data import find_images, load_pictures, read_dataset, to_square
    from nettailor_cli.core.errors import DataError
    from nettailor_cli.core.progress import Silent

    failures = []
    dataset = read_dataset(root, seed=0)
    examples = sorted((e for split in dataset.splits.values() for e in split), key=lambda e: e.path)
    by_path = {str(path): place for place, path in enumerate(paths)}
    expected = {str(path) for path, picture in zip(paths, odd, strict=True) if picture.in_folders}
    same(failures, "read_dataset", {str(e.path) for e in examples}, expected)
    files = {str(path) for path in paths if path.is_file()}
    same(failures, "find_images", set(map(str, find_images([root]))), files)
    options: dict[str, Any] = {"workers": 4, "progress": Silent(), "memory_limit": 10**9}
    bad = {path for path in expected if outcomes[by_path[path]] == REFUSED}
    try:
        load_pictures(dataset, examples, SIDE, **options)
        failures.append("load_pictures: refused nothing")
    except DataError as error:
        named = [next((path for path in bad if line.startswith(f"  {path}: ")), line) for line in error.lines[1:]]
        same(failures, "load_pictures, the error", set(named), bad)
    loaded = load_pictures(dataset, examples, SIDE, skip_bad=True, **options)
    same(failures, "load_pictures, skipped", {str(path) for path, _ in loaded.skipped}, bad)
    pixels = loaded.take(np.arange(len(loaded))).permute(0, 2, 3, 1).numpy().astype(int)
    for example, square in zip(loaded.examples, pixels, strict=True):
        picture = odd[by_path[str(example.path)]]
        if picture.expect in (RIGHT, EITHER) and picture.shown is not None and picture.kind != "large":
            whole = to_square(Image.fromarray(np.ascontiguousarray(picture.shown)), SIDE)
            off = np.abs(square - whole).mean()
            if off > picture.near + 1:
                failures.append(f"load_pictures: {example.path!r} is {off:.2f} levels off")
    return failures


def same(failures: list[str], what: str, found: set[str], expected: set[str]) -> None:
    failures += [f"{what}: {path!r} is too much" for path in sorted(found - expected)[:9]]
    failures += [f"{what}: {path!r} is missing" for path in sorted(expected - found)[:9]]


# the command line


class CommandLine:
    """Runs the tool; keeps what was wrong with what it said."""

    def __init__(self, home: Path) -> None:
        self.environment = {**os.environ, "NETTAILOR_HOME": str(home), "COLUMNS": "200"}
        self.failures: list[str] = []

    def __call__(self, *words: object, code: int, stdin: bytes = b"") -> tuple[str, str]:
        """stdout and stderr, which hold no control character but line ends and no turning or invisible mark."""
        name = f"nettailor {words[0]}{' --skip-bad-images' if '--skip-bad-images' in words else ''}"
        command = [sys.executable, "-m", "nettailor_cli", *map(str, words)]
        began = time.monotonic()
        done = subprocess.run(
            command, input=stdin, capture_output=True, env=self.environment, timeout=1800, check=False
        )
        out, err = done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "surrogateescape")
        if done.returncode != code:
            self.failures.append(f"{name}: exit {done.returncode}, not {code}: {err[-500:]}")
        if "Traceback" in err or "a bug" in err or "Warning:" in err:
            self.failures.append(f"{name}: {err[-500:]}")
        if wrong := {c for c in out + err if c != "\n" and not c.isprintable()}:
            self.failures.append(f"{name}: shows {sorted(wrong)}")
        print(f"{name}: exit {done.returncode} after {time.monotonic() - began:.0f} s", flush=True)
        return out, err

    def expect(self, what: str, found: Iterable[str], expected: Iterable[str]) -> None:
        same(self.failures, what, set(found), set(expected))


def command_line(
    root: Path, work: Path, odd: Sequence[Odd], paths: Sequence[Path], outcomes: Sequence[str]
) -> list[str]:
    from nettailor_cli.core.printable import harmless

    run = CommandLine(work / "home")
    in_dataset = [place for place, picture in enumerate(odd) if picture.in_folders]
    bad = [harmless(paths[place]) for place in in_dataset if outcomes[place] == REFUSED]
    fast = ("--device", "cpu", "--precision", "fp32")
    teach = ("teach", "--data", root, "--run", work / "run", "--size", SIDE, "--epochs", 1, *fast)

    def listed(err: str) -> list[str]:
        """The files that one message names, each in its line."""
        lines = err.split("\n")
        if sum(line.startswith("error: ") for line in lines) != 1 or f"error: {len(bad)} of " not in err:
            run.failures.append(f"not one message: {err[:300]}")
        return [
            next((path for path in bad if line.startswith(f"  {path}: ")), line) for line in lines if line[:2] == "  "
        ]

    run.expect("teach", listed(run(*teach, code=2)[1]), bad)
    _, err = run(*teach, "--skip-bad-images", code=0)
    if f"{len(bad)} of {len(in_dataset)} images can't be read and are left out" not in err:
        run.failures.append(f"teach --skip-bad-images: does not say how many are left out: {err[-500:]}")
    model = work / "run" / "teacher.safetensors"
    evaluate = ("evaluate", model, "--data", root, "--split", "all", *fast)
    run.expect("evaluate", listed(run(*evaluate, code=2)[1]), bad)
    out, _ = run(*evaluate, "--skip-bad-images", "--json", code=0)
    found = json.loads(out)
    if (found["skipped"], found["images"]) != (len(bad), len(in_dataset) - len(bad)):
        run.failures.append(f"evaluate: {found['images']} images, {found['skipped']} skipped")

    named = [place for place, path in enumerate(paths) if not path.is_dir()]  # a folder stands for what is in it
    names = b"\0".join(os.fsencode(paths[place]) for place in named)
    predict = ("predict", model, *fast)
    out, _ = run(*predict, "-", "-0", "--format", "jsonl", code=2, stdin=names)
    rows = [json.loads(line) for line in out.splitlines()]
    run.expect("predict, jsonl", [row["image"] for row in rows], [str(paths[place]) for place in named])
    for row, place in zip(rows, named, strict=False):
        if bool(row.get("error")) != (outcomes[place] == REFUSED) or bool(row["classes"]) == bool(row.get("error")):
            run.failures.append(f"predict: {row} of {odd[place].name!r}, {outcomes[place]} before")
    out, _ = run(*predict, "-", "-0", "--format", "csv", code=2, stdin=names)
    table = list(csv.DictReader(io.StringIO(out)))
    run.expect("predict, csv", [row["image"] for row in table], [harmless(paths[place]) for place in named])
    run(*predict, "-", "-0", code=2, stdin=names)
    out, _ = run(*predict, root, "--format", "jsonl", code=2)
    images = [json.loads(line)["image"] for line in out.splitlines()]
    run.expect("predict, the folder", images, [str(path) for path in paths if path.is_file()])
    return run.failures


def table(odd: Sequence[Odd], found: Sequence[tuple[str, str, int]]) -> str:
    counts: dict[str, Counter[str]] = {name: Counter() for name in KINDS}
    peaks: Counter[str] = Counter()
    for picture, (outcome, _, peak) in zip(odd, found, strict=True):
        counts[picture.kind][outcome] += 1
        peaks[picture.kind] = max(peaks[picture.kind], peak)
    lines = [f"{'kind':28}{RIGHT:>8}{REFUSED:>9}{FAILED:>8}{'peak MB':>9}"]
    rows = [(name, count, peaks[name]) for name, count in counts.items() if count.total()]
    rows.append(("all", sum((count for _, count, _ in rows), Counter()), max(peaks.values())))
    for name, count, peak in rows:
        lines.append(f"{name:28}{count[RIGHT]:>8}{count[REFUSED]:>9}{count[FAILED]:>8}{peak / 2**20:>9.0f}")
    return "\n".join(lines)


def check(
    folder: Path, count: int, seed: int, skip: frozenset[str] = frozenset(), without_cli: bool = False,
    say: Callable[[str], None] = print,
) -> int:  # fmt: skip
    """How many failures there are; each is told."""
    odd = odd_pictures(count, seed, skip)
    folder.mkdir(parents=True)
    root = folder / "pictures"
    paths = write(odd, root)
    found = in_process(odd, paths)
    outcomes = [outcome for outcome, _, _ in found]
    failures = [
        f"{picture.kind}: {path!r} ({picture.expect}): {why}"
        for picture, path, (outcome, why, _) in zip(odd, map(str, paths), found, strict=True)
        if outcome == FAILED
    ]
    say(table(odd, found))
    if not failures:  # a picture that is wrong by itself would be so again below
        failures += in_folder(root, odd, paths, outcomes)
    if not failures and not without_cli:
        failures += command_line(root, folder, odd, paths, outcomes)
    for failure in failures:
        say(f"{FAILED}: {failure}")
    say(f"{len(odd)} files, {len(failures)} failures")
    return len(failures)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", nargs="*", choices=sorted(KINDS), default=[], metavar="KIND")
    parser.add_argument("--without-cli", action="store_true")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module="PIL")  # as the command does
    failed = check(options.folder, options.count, options.seed, frozenset(options.without), options.without_cli)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
