"""A pretrained backbone from a folder of labelled pictures: `nettailor teach` on random weights, twice, then fp16.

    python examples/pretrain/pretrain.py --data runs/tiny_imagenet/data --name resnet18.tiny_imagenet

Goes on where it was stopped. Writes RUN/NAME-<fingerprint>.safetensors: torchvision's keys, the classifier included,
with the metadata of a stored backbone; and prints the accuracy on val of that very file, after rounding to fp16. The
recipe is in PHASES, for batches of 256 at 64 px: long with hard crops, then short with crops like those of evaluation,
from a fresh classifier; their weights are averaged. Further options of `nettailor teach` can be given after --.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

import safetensors.torch
import torch

from nettailor_cli.core.backbones.backbone import build_random, from_state
from nettailor_cli.core.backbones.listing import SHORT, described
from nettailor_cli.core.data import evaluation_batches, load_pictures, read_dataset, select
from nettailor_cli.core.delta import read
from nettailor_cli.core.models import load_teacher
from nettailor_cli.core.progress import Silent
from nettailor_cli.core.settings import MEMORY_LIMIT
from nettailor_cli.core.training.evaluate import Score, evaluate
from nettailor_cli.core.training.precision import choose_machine

COMMON = ("--batch-size", "256", "--weight-decay", "5e-4", "--label-smoothing", "0.1")
PHASES = {
    "first": "--epochs 14 --lr 0.2 --warmup 0.2 --augment resized-crop --min-crop 0.35",
    "second": "--epochs 7 --lr 0.1 --warmup 0.15 --augment crop",
}
FIRST = 0.2
"""The weight of the first phase in the average: the best on val of 0, 0.1, ... 0.4, by a quarter of a point."""


def random_weights(arch: str, seed: int, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(build_random(arch, seed).state(), file)


def averaged(first: Path, second: Path, name: str, source: str, folder: Path) -> Path:
    """The backbone file made of two teachers, in `folder`."""
    (_, before), (document, tensors) = read(first), read(second)
    halves = {key: torch.lerp(tensor, before[key], FIRST).half().contiguous() for key, tensor in tensors.items()}
    backbone = from_state(name, halves, document.preprocessing)
    file = folder / f"{name}-{backbone.fingerprint[:SHORT]}.safetensors"
    entry = described(
        file, name=name, fingerprint=backbone.fingerprint, preprocessing=document.preprocessing, source=source
    )
    safetensors.torch.save_file(halves, file, metadata=entry.metadata())
    return file


def score(file: Path, name: str, teacher: Path, data: Path) -> Score:
    """Accuracy of the network in `file` on val."""
    document, _ = read(teacher)
    network, _ = load_teacher(file, name, document.preprocessing, document.classes)
    dataset = read_dataset(data, seed=0, classes=document.classes)
    machine = choose_machine("auto", "fp32")
    pictures = load_pictures(
        dataset, select(dataset, "val"), document.preprocessing.resize, workers=os.cpu_count() or 1, progress=Silent(),
        memory_limit=MEMORY_LIMIT, skip_bad=False,
    )  # fmt: skip
    network.to(machine.device, memory_format=torch.channels_last)
    batches = evaluation_batches(pictures, document.preprocessing, machine.device)
    return evaluate(lambda images: network(images).logits, network, batches, machine, top_k=(5,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", default="resnet18.tiny_imagenet", metavar="ARCH.TAG")
    parser.add_argument("--run", type=Path, default=Path("runs/tiny_imagenet"))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help="further options of nettailor teach")
    arguments = parser.parse_args()
    arch = arguments.name.split(".")[0]
    before = arguments.run / "random.safetensors"
    if not before.exists():
        random_weights(arch, arguments.seed, before)
    teachers = [arguments.run / phase / "teacher.safetensors" for phase in PHASES]
    for number, (teacher, (phase, recipe)) in enumerate(zip(teachers, PHASES.items(), strict=True)):
        subprocess.run(
            ["nettailor", "teach", "--backbone", f"{arch}.before_{phase}", "--weights", before,
             "--data", arguments.data, "--run", teacher.parent, "--size", str(arguments.size),
             "--seed", str(arguments.seed + number), *COMMON, *recipe.split(), *arguments.options, "--resume"],
            check=True, env={**os.environ, "NETTAILOR_HOME": str(arguments.run / "home")},
        )  # fmt: skip
        before = teacher
    source = f"trained on {arguments.data.resolve().name} from random weights"
    file = averaged(*teachers, arguments.name, source, arguments.run)
    result = score(file, arguments.name, teachers[-1], arguments.data)
    print(f"wrote {file}, {file.stat().st_size / 1e6:.1f} MB")
    print(f"val: top-1 {result.accuracy:.2f} %, top-5 {result.top_k[5]:.2f} % of {result.images} images")


if __name__ == "__main__":
    main()
