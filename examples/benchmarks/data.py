"""What pictures cost: decoded from their files against mapped from the cache, and the share of an epoch that they take.

    python examples/benchmarks/data.py FOLDER --size 64 > data.json

FOLDER is one that `nettailor --data` reads; all of its pictures are used. Nothing of yours is cached or removed: the
cache lies in a temporary folder (--home chooses where, which matters where disks differ in speed).

evaluate   all that `nettailor evaluate` does about pictures, from the folder's name to the last normalised batch:
           from the files; with an empty cache, which is filled; from the cache, its files hashed and its rows checked.
epoch      an epoch of `teach` (random weights). The share of data is the time that the step waits for its next batch,
           augmentation included, from the files and from the cache. What is done once per command is not in it.

Medians over --repeats, the ways taking turns, in images per second. The files are in the system's cache after a first
round that is not counted, as they are after a download or for whoever has enough memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nettailor_cli import Silent, choose_machine
from nettailor_cli.core.backbones.backbone import build_random
from nettailor_cli.core.data import (
    Augmentation,
    Batches,
    Cache,
    Pictures,
    cores,
    evaluation_batches,
    load_pictures,
    read_dataset,
    select,
)
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.settings import CACHE_LIMIT, MEMORY_LIMIT
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training.precision import Machine


def pictures_of(folder: Path, size: int, cache: Cache | None, memory_limit: int = MEMORY_LIMIT) -> Pictures:
    """As a command finds them: from the folder's name on."""
    dataset = read_dataset(folder, seed=0)
    return load_pictures(
        dataset,
        select(dataset, "all"),
        Preprocessing(size=size).resize,
        workers=cores(),
        progress=Silent(),
        memory_limit=memory_limit,
        cache=cache,
    )


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def evaluate(folder: Path, size: int, machine: Machine, repeats: int, home: Path) -> dict[str, float]:
    """Images per second, way by way."""
    count = len(pictures_of(folder, size, None))  # the round that is not counted
    taken: dict[str, list[float]] = {"files": [], "filling": [], "cache": []}
    for repeat in range(repeats):
        filled = Cache(home / str(repeat), CACHE_LIMIT)
        for way, cache in (("files", None), ("filling", filled), ("cache", filled)):

            def work(cache: Cache | None = cache) -> None:
                pictures = pictures_of(folder, size, cache)
                for batch in evaluation_batches(pictures, Preprocessing(size=size), machine.device).epoch(0):
                    wait_for(batch.images)

            taken[way].append(seconds(work))
    return {way: count / statistics.median(times) for way, times in taken.items()}


def epochs(
    folder: Path, size: int, machine: Machine, repeats: int, home: Path, arch: str, batch_size: int
) -> dict[str, dict[str, float]]:
    """Way -> seconds of an epoch, images per second, and the share of the epoch that the step waited for data."""
    ways = {
        "files": pictures_of(folder, size, None, memory_limit=0),
        "cache": pictures_of(folder, size, Cache(home / "epochs", CACHE_LIMIT)),
    }
    teacher = Teacher(build_random(arch, 0), 1 + int(ways["files"].labels.max()))
    teacher.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(teacher.train().parameters(), lr=1e-3, momentum=0.9)
    whole: dict[str, list[float]] = {way: [] for way in ways}
    share: dict[str, list[float]] = {way: [] for way in ways}
    for epoch in range(repeats + 1):
        for way, pictures in ways.items():
            batches = Batches(
                pictures, Preprocessing(size=size), batch_size=batch_size, seed=0, augmentation=Augmentation(),
                shuffle=True, device=machine.device,
            )  # fmt: skip
            started, waited = time.perf_counter(), 0.0
            following = batches.epoch(epoch)
            for _ in range(len(batches)):
                asked = time.perf_counter()
                batch = next(following)
                wait_for(batch.images)
                waited += time.perf_counter() - asked
                with machine.autocast():
                    logits = teacher(batch.images).logits
                optimiser.zero_grad()
                F.cross_entropy(logits.float(), batch.labels).backward()
                optimiser.step()
                wait_for(logits)
            taken = time.perf_counter() - started
            if epoch:  # the first one warms up
                whole[way].append(taken)
                share[way].append(waited / taken)
    return {
        way: {
            "seconds": statistics.median(whole[way]),
            "images_per_second": len(ways[way]) / statistics.median(whole[way]),
            "share_of_data": statistics.median(share[way]),
        }
        for way in ways
    }


def wait_for(tensor: Tensor) -> None:
    """Until an accelerator has computed it."""
    if tensor.device.type == "cuda":
        torch.cuda.synchronize(tensor.device)


def measure(options: argparse.Namespace) -> dict[str, object]:
    machine = choose_machine(options.device, options.precision)
    with tempfile.TemporaryDirectory(dir=options.home, prefix="nettailor-benchmark-") as temporary:
        home = Path(temporary)
        common = (options.folder, options.size, machine, options.repeats, home)
        speeds = evaluate(*common)
        epoch = epochs(*common, options.backbone, options.batch_size)
    return {
        "folder": str(options.folder),
        "images": len(select(read_dataset(options.folder, seed=0), "all")),
        "size": options.size,
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": str(machine.device),
        "precision": machine.precision,
        "repeats": options.repeats,
        "evaluate_images_per_second": speeds,
        "evaluate_speed_up": speeds["cache"] / speeds["files"],
        "epoch": {"backbone": options.backbone, "batch_size": options.batch_size, **epoch},
    }


def table(result: dict) -> str:
    speeds, epoch = result["evaluate_images_per_second"], result["epoch"]
    rows = [("", "evaluate's pictures", "epoch", "of it data")]
    for way in ("files", "filling", "cache"):
        trained = epoch.get(way)
        rows.append(
            (
                way,
                f"{speeds[way]:.0f} images/s",
                f"{trained['images_per_second']:.0f} images/s" if trained else "",
                f"{100 * trained['share_of_data']:.1f} %" if trained else "",
            )
        )
    lines = ["".join(cell.ljust(width) for cell, width in zip(row, (9, 21, 16, 10), strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in [*lines, f"from the cache {result['evaluate_speed_up']:.1f}x"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=64, help="input size of the network, in pixels (64)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count (5)")
    parser.add_argument("--backbone", default="resnet18", help="what is trained (resnet18)")
    parser.add_argument("--batch-size", type=int, default=32, help="images per step (32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16 (auto)")
    parser.add_argument("--home", type=Path, help="where the temporary cache lies (the system's temporary folder)")
    result = measure(parser.parse_args(arguments))
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
