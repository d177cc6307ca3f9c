"""What many tasks take on one backbone: a switch between them, their memory, and several of them on one picture.

    python examples/benchmarks/tasks.py --size 224 --tasks 1 10 50 --threads 1

Everything is made here with random weights, in a temporary folder: students of a random backbone with `--remove` of
its blocks pruned, other ones for each task, and a fine-tuned network as large as the backbone.

switch     another task on a backbone that is in memory, against loading a delta with its backbone, and a whole network.
           Files are warm in the page cache.
memory     peak resident set of a process that has T tasks ready and ran each once, with one backbone, and as T whole
           networks; what the process takes without any is told beside it.
together   `--together` tasks on the same picture, what they have in common computed once, against one by one and as so
           many whole networks; for several lengths of the shared prefix. MACs beside it.

Medians with quartiles over rounds in which all take turns. --json prints everything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import Backbone, build_random, from_state
from nettailor_cli.core.backbones.keeping import keep
from nettailor_cli.core.complexity import student_graph, untouched_graph
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.deploy.bundle import load_bundle
from nettailor_cli.core.deploy.bundling import write_bundle
from nettailor_cli.core.deploy.spread import Spread
from nettailor_cli.core.deploy.timing import Stopwatch, describe, on_machine, peak_memory, some_images, threads
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.models import load_model
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.pruning import prune
from nettailor_cli.core.sharing import macs_together
from nettailor_cli.core.student import Student
from nettailor_cli.core.task_tensors import tensors_for
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training.precision import Machine, choose_machine

CLASSES = 20
BUNDLE, NETWORKS, NOTHING = "bundle", "networks", "nothing"


class Maker:
    """Writes model files of one random backbone into `folder`."""

    def __init__(self, folder: Path, arch: str, size: int) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.backbone = from_state(f"{arch}.made", build_random(arch, 0).state(), Preprocessing(size))
        keep(self.backbone, self.backbone.state(), source="random", home=self.home)
        self._graphs: dict[int, Graph] = {}

    def network(self) -> Path:
        """A fine-tuned network, as `teach` writes it."""
        path = self.folder / "network.safetensors"
        own = from_state(self.backbone.name, self.backbone.state(), self.backbone.preprocessing)
        graph = untouched_graph(own, CLASSES)
        delta.write(path, self._document(delta.TEACHER, graph), Teacher(own, CLASSES).state())
        return path

    def task(self, number: int, remove: int, shared_prefix: int = 0) -> Path:
        """A pruned student with blocks of its own."""
        if shared_prefix not in self._graphs:
            self._graphs[shared_prefix] = student_graph(self.backbone, CLASSES, skips=3, shared_prefix=shared_prefix)
        generator = torch.Generator().manual_seed(number)
        whole = Student(self._fresh(), self._graphs[shared_prefix], CLASSES)
        whole.start_fresh(generator)
        with torch.no_grad():
            whole.attention.logits.normal_(generator=generator)
        graph = whole.attended_graph()
        small = prune(graph, remove, 0.05, shared_prefix).graph
        path = self.folder / f"tasks-{shared_prefix}" / f"task{number}.safetensors"
        tensors = tensors_for(small, [(graph, whole.task_state())])
        delta.write(path, self._document(delta.MODEL, small, shared_prefix), tensors)
        return path

    def bundle(self, name: str, files: Sequence[Path]) -> Path:
        folder = self.folder / name
        write_bundle({file.stem: file for file in files}, folder, home=self.home)
        return folder

    def _fresh(self) -> Backbone:
        return self.backbone.with_own_statistics()

    def _document(self, stage: str, graph: Graph, shared_prefix: int = 0) -> ModelDocument:
        return ModelDocument(
            stage=stage,
            backbone=self.backbone.name,
            fingerprint=self.backbone.fingerprint,
            graph=graph,
            classes=tuple(f"class {number}" for number in range(CLASSES)),
            preprocessing=self.backbone.preprocessing,
            student={"bn_stats": "frozen", "proxy_width": None, "shared_prefix": shared_prefix},
            data={},
            settings={},
            metrics={},
        )


def measure_switch(folder: Path, network: Path, home: Path, rounds: int) -> dict[str, Any]:
    bundle = load_bundle(folder)
    turn = iter(bundle.tasks * (rounds + 1))
    taken = Stopwatch(seconds=0, least=rounds, most=rounds, warm_up=1).time(
        {
            "switch": lambda: bundle.switch(next(turn)),
            "delta with its backbone": lambda: load_model(folder / f"{bundle.tasks[0]}.safetensors", home=home),
            "whole network": lambda: load_model(network, home=home),
        },
        choose_machine("cpu", "fp32"),
    )
    return {name: milliseconds(found).to_json() for name, found in taken.items()}


def milliseconds(taken: Sequence[float]) -> Spread:
    """Of so many microseconds."""
    return Spread.of([time / 1e3 for time in taken])


def hold(what: str, count: int, path: Path, size: int) -> float:
    """The peak resident set, in MB, of this process once it has `count` tasks ready and ran each on one picture."""
    if what == NOTHING:
        models = []
    elif what == BUNDLE:
        bundle = load_bundle(path)
        models = [bundle.model(task) for task in bundle.tasks[:count]]
    else:
        models = [load_model(path, home=path.parent) for _ in range(count)]
    images = some_images(1, size, choose_machine("cpu", "fp32"))
    with torch.inference_mode():
        for model in models:
            model.logits(images)
    return peak_memory() / 1e6


def held(what: str, count: int, path: Path, arguments: argparse.Namespace) -> float:
    """`hold` in a process of its own."""
    words = [sys.executable, __file__, "--hold", what, count, path, "--size", arguments.size]
    words += ["--threads", arguments.threads] if arguments.threads else []
    return float(subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, text=True, check=True).stdout)


def measure_together(folder: Path, network: Path, home: Path, machine: Machine, seconds: float) -> dict[str, Any]:
    bundle = load_bundle(folder)
    models = {task: on_machine(bundle.model(task).network, machine) for task in bundle.tasks}
    whole = [on_machine(load_model(network, home=home).network, machine) for _ in models]
    documents = [bundle.model(task).document for task in bundle.tasks]
    images = some_images(1, documents[0].preprocessing.size, machine)
    taken = Stopwatch(seconds).time(
        {
            "together": lambda: bundle.logits(images),
            "one by one": lambda: [model(images).logits for model in models.values()],
            "whole networks": lambda: [model(images).logits for model in whole],
        },
        machine,
    )
    macs = {
        "together": macs_together(documents),
        "one by one": sum(document.graph.cost.macs for document in documents),
        "whole networks": sum(document.graph.backbone.macs for document in documents),
    }
    return {
        name: {
            "ms": milliseconds(found).to_json(),
            "of_one_by_one": Spread.of([t / o for t, o in zip(found, taken["one by one"], strict=True)]).to_json(),
            "macs": macs[name],
        }
        for name, found in taken.items()
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 10, 50], help="how many, for the memory")
    parser.add_argument("--together", type=int, default=3, help="how many on one picture")
    parser.add_argument("--prefixes", type=int, nargs="+", default=[0, 2, 4], help="lengths of the shared prefix")
    parser.add_argument("--remove", type=int, default=4, help="how many blocks each task lacks")
    parser.add_argument("--rounds", type=int, default=20, help="of switching")
    parser.add_argument("--seconds", type=float, default=5.0, help="for the tasks on one picture")
    parser.add_argument("--device", default="cpu", help="of the tasks on one picture; the rest is on the CPU")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--hold", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    with threads(arguments.threads):
        if arguments.hold:
            what, count, path = arguments.hold
            print(hold(what, int(count), Path(path), arguments.size))
            return
        with tempfile.TemporaryDirectory() as temporary:
            result = measure(Path(temporary), arguments)
    show(result, as_json=arguments.json)


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    machine = choose_machine(arguments.device, "fp32")
    make = Maker(folder, arguments.arch, arguments.size)
    network = make.network()
    most = max(arguments.tasks)
    many = make.bundle("many", [make.task(number, arguments.remove) for number in range(max(2, most))])
    memory = {
        str(count): {
            "one backbone": held(BUNDLE, count, many, arguments),
            "whole networks": held(NETWORKS, count, network, arguments),
        }
        for count in arguments.tasks
    }
    together = {}
    for prefix in arguments.prefixes:
        files = [make.task(number, arguments.remove, prefix) for number in range(arguments.together)]
        several = make.bundle(f"prefix-{prefix}", files)
        together[str(prefix)] = measure_together(several, network, make.home, machine, arguments.seconds)
    return {
        "arch": arguments.arch,
        "size": arguments.size,
        "removed": arguments.remove,
        "machine": describe(machine),
        "bytes": {
            "network": network.stat().st_size,
            "bundle of": max(2, most),
            "bundle": sum(file.stat().st_size for file in many.iterdir()),
        },
        "switch_ms": measure_switch(many, network, make.home, arguments.rounds),
        "memory_mb": {"without any": held(NOTHING, 0, many, arguments), **memory},
        "together": together,
    }


def show(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=1))
        return
    machine = result["machine"]
    print(f"{result['arch']}, {result['size']} px, {machine['name']}, {machine['threads']} threads")
    for name, spread in result["switch_ms"].items():
        print(f"{name:24} {_spread(spread)} ms")
    memory = dict(result["memory_mb"])
    print(f"a process without any task: {memory.pop('without any'):.0f} MB")
    for count, peak in memory.items():
        print(f"{count:>3} tasks: {peak['one backbone']:.0f} MB, as whole networks {peak['whole networks']:.0f} MB")
    for prefix, rows in result["together"].items():
        print(f"shared prefix {prefix}:")
        for name, row in rows.items():
            share = _spread(row["of_one_by_one"], 2)
            print(f"  {name:15} {_spread(row['ms'])} ms, {share} of one by one, {row['macs'] / 1e6:.0f} M MACs")


def _spread(spread: dict[str, Any], digits: int = 1) -> str:
    low, high = spread["quartiles"]
    return f"{spread['median']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    main()
