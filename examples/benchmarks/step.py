"""How fast a training step is: teach, tailor and finetune, the pictures in memory, against a plain implementation.

    python examples/benchmarks/step.py --size 64 --batch-size 32 --precision bf16

Medians over rounds in which all take turns, so that noise hits all alike; ratios are to the plain implementation of the
published step (see plain.py) and, as "of the machine", to the rate of a large matrix multiplication in the same
arithmetic: a step's multiply-adds are counted as forward 1, backward to the inputs 1, to trained weights 1. Peak memory
is that of a process of its own per step. --json prints everything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import plain
import torch

from nettailor_cli.core.backbones.backbone import Backbone, build_random
from nettailor_cli.core.complexity import ExpectedComplexity, student_graph
from nettailor_cli.core.data import Batch
from nettailor_cli.core.deploy.timing import peak_memory
from nettailor_cli.core.presets import resolve
from nettailor_cli.core.pruning import prune
from nettailor_cli.core.settings import FINETUNE, TAILOR, TEACH
from nettailor_cli.core.stages.tailor import TailorTrainee
from nettailor_cli.core.stages.teach import TeachTrainee
from nettailor_cli.core.student import Student
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training.frozen import quick, quick_twin
from nettailor_cli.core.training.precision import Machine, choose_machine, to_machine
from nettailor_cli.core.training.taps import go_tapwise
from nettailor_cli.core.training.trainee import Trainee

CLASSES = 100
STEPS = ("plain", "teach", "tailor", "finetune")
Step = Callable[[], None]


def own_step(trainee: Trainee, batch: Batch, machine: Machine) -> Step:
    """As `training.loop.Training` does it."""
    groups = [
        {"params": list(g.parameters.values()), "lr": 1e-4, "weight_decay": g.weight_decay} for g in trainee.groups()
    ]
    optimiser = torch.optim.SGD(groups, momentum=0.9)
    trainee.module.train()

    def step() -> None:
        with machine.autocast():
            losses = trainee.losses(batch, 0.5)
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        optimiser.step()

    return step


def make(name: str, arch: str, size: int, batch_size: int, machine: Machine) -> Step:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, size, size, generator=generator).to(machine.device)
    labels = torch.randint(CLASSES, (batch_size,), generator=generator).to(machine.device)
    if name == "plain":
        step = plain.Step(arch, CLASSES, machine.device)
        return lambda: step(images, labels)
    batch = Batch(images.contiguous(memory_format=torch.channels_last), labels)
    teacher = Teacher(backbone(arch, size), CLASSES)
    to_machine(teacher, machine)
    if name == "teach":
        go_tapwise(teacher, machine)
        return own_step(TeachTrainee(teacher, resolve(TEACH, flags={})), batch, machine)
    frozen = backbone(arch, size)
    graph = student_graph(frozen, CLASSES, skips=3)
    if name == "finetune":
        graph = prune(graph, len(graph.blocks) // 2, 0.05).graph
    student = Student(frozen, graph, CLASSES)
    student.start_fresh(generator)
    to_machine(student, machine)
    quick(teacher, machine)
    complexity = ExpectedComplexity(graph).to(machine.device) if name == "tailor" else None
    # nodes and logits in both, as in the plain step
    settings = resolve(TAILOR if name == "tailor" else FINETUNE, flags={"hint_weights": "equal"})
    return own_step(TailorTrainee(student, teacher, complexity, settings, quick_twin(student, machine)), batch, machine)


def backbone(arch: str, size: int) -> Backbone:
    found = build_random(arch, 0)
    found.preprocessing = replace(found.preprocessing, size=size)
    return found


def seconds(step: Step, device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def matmul_rate(machine: Machine) -> float:
    """Multiply-adds per second of a large product in the machine's arithmetic: the median of ten."""
    n = 2048 if machine.device.type == "cpu" else 8192
    dtype = torch.bfloat16 if machine.bf16 else torch.float32
    a, b = (torch.randn(n, n, device=machine.device).to(dtype) for _ in range(2))
    times = [seconds(lambda: torch.mm(a, b), machine.device) for _ in range(12)]
    return n**3 / statistics.median(times[2:])


def peak_megabytes(name: str, arguments: argparse.Namespace) -> float:
    """Of a process that does five such steps and nothing else."""
    words = [sys.executable, __file__, "--only", name, "--arch", arguments.arch, "--size", arguments.size]
    words += ["--batch-size", arguments.batch_size, "--device", arguments.device, "--precision", arguments.precision]
    done = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    machine = choose_machine(arguments.device, arguments.precision)
    if arguments.only:
        step = make(arguments.only, arguments.arch, arguments.size, arguments.batch_size, machine)
        for _ in range(5):
            step()
        print((torch.cuda.max_memory_allocated() if machine.device.type == "cuda" else peak_memory()) / 1e6)
        return
    steps = {name: make(name, arguments.arch, arguments.size, arguments.batch_size, machine) for name in STEPS}
    for step in steps.values():
        step(), step()
    times: dict[str, list[float]] = {name: [] for name in STEPS}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            times[name].append(seconds(step, machine.device))
    rate = matmul_rate(machine)
    macs = student_graph(backbone(arguments.arch, arguments.size), CLASSES, skips=3).backbone.macs
    result = {
        name: {
            "images_per_second": arguments.batch_size / statistics.median(found),
            "spread_percent": 100 * statistics.pstdev(found) / statistics.median(found),
            "to_plain": statistics.median(p / t for p, t in zip(times["plain"], found, strict=True)),
            "peak_megabytes": peak_megabytes(name, arguments),
        }
        for name, found in times.items()
    }
    # forward and backward of everything; teacher forward, student forward and backward to the inputs
    result["teach"]["of_the_machine"] = 3 * macs * result["teach"]["images_per_second"] / rate
    result["tailor"]["of_the_machine"] = 3 * macs * result["tailor"]["images_per_second"] / rate
    if arguments.json:
        print(json.dumps({"machine": machine.reason, "matmul_macs_per_second": rate, "steps": result}))
        return
    print(f"{arguments.arch}, {arguments.size} px, batch {arguments.batch_size}, {machine.reason}")
    print(f"matrix multiplication: {rate / 1e9:.0f} G multiply-adds/s")
    for name, found in result.items():
        share = f", {found['of_the_machine']:.0%} of the machine" if "of_the_machine" in found else ""
        print(
            f"{name:9} {found['images_per_second']:7.1f} images/s ± {found['spread_percent']:.0f} %, "
            f"{found['to_plain']:.2f}x plain, {found['peak_megabytes']:.0f} MB{share}"
        )


if __name__ == "__main__":
    main()
