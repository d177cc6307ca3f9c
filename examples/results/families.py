"""teach, tailor, prune, finetune with backbones of several families on one set: the README's table of families.

    python examples/results/families.py --data DATA/gtsrb mobilenet_v3_small.tiny=FILE timm/efficientnet_lite0=FILE

Every backbone is ARCH.TAG=FILE, or ARCH.TAG alone for one that nettailor finds or downloads itself. One seed, default
settings (or those of --config) at --size; `prune` as by default, to 60 % of the MACs or less. Accuracy on test is taken
once, of teacher and model. Goes on where it was stopped. Results: OUT/results.csv, and a table on stdout.

The rows with adapters had a --config with `adapter_rank = 8` under [tailor]. The README's Tiny-ImageNet weights are the
teacher.safetensors of this command, with 14 epochs for RegNet in bf16 and 9 for MobileNetV2 in fp32; DIR comes from
examples/pretrain/tiny_imagenet.py, RANDOM from `random_weights(ARCH, 0, RANDOM)` in examples/pretrain/pretrain.py:

    nettailor teach --backbone ARCH.random --weights RANDOM --data DIR --size 64 --batch-size 64 --epochs N --lr 0.1 \\
        --warmup 0.1 --label-smoothing 0.1 --precision bf16
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from tool import make, on_test


def row(backbone: str, weights: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What became of one backbone."""
    run = arguments.out / backbone.replace("/", "-")
    run.mkdir(parents=True, exist_ok=True)
    common = ["--backbone", backbone, "--data", arguments.data, "--size", arguments.size, "--seed", arguments.seed]
    common += ["--weights", weights] if weights else []
    common += [f"--{name}={value}" for name, value in (("group", arguments.group),) if value]
    common += ["--no-flip"] if arguments.no_flip else []
    precision = ["--precision", arguments.precision]
    precision += ["--config", arguments.config] if arguments.config else []
    teacher, student = run / "teacher.safetensors", run / "student.safetensors"
    pruned, model = run / "pruned.safetensors", run / "model.safetensors"
    taught = make(teacher, "teach", *common, *precision, "--run", run)
    make(student, "tailor", "--run", run, *precision)
    make(pruned, "prune", student)
    made = make(model, "finetune", pruned, *precision)
    whole, own = made["backbone_totals"], made["totals"]
    return {
        "backbone": backbone,
        "teacher_test": on_test(teacher, arguments.data),
        "model_test": on_test(model, arguments.data),
        "macs": 100 * own["macs"] / whole["macs"],
        "parameters": 100 * own["parameters"] / whole["parameters"],
        "task_parameters": own["task_parameters"],
        "blocks": own["blocks"],
        "of_blocks": taught["totals"]["blocks"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="+", metavar="ARCH.TAG[=FILE]")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--group", help="see nettailor teach")
    parser.add_argument("--no-flip", action="store_true", help="see nettailor teach")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--config", type=Path, help="settings other than the defaults, see nettailor teach")
    arguments = parser.parse_args()
    rows = [row(*backbone.partition("=")[::2], arguments) for backbone in arguments.backbones]
    with (arguments.out / "results.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print("| backbone | teacher, test | model, test | MACs | parameters | of them the task's | blocks kept |")
    print("|---|---|---|---|---|---|---|")
    for made in rows:
        print(
            f"| {made['backbone']} | {made['teacher_test']:.1f} | {made['model_test']:.1f} | {made['macs']:.0f} % "
            f"| {made['parameters']:.0f} % | {made['task_parameters'] / 1e6:.2f} M "
            f"| {made['blocks']} of {made['of_blocks']} |"
        )


if __name__ == "__main__":
    main()
