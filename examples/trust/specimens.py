"""A small whole file of every kind that nettailor reads, and how it is read: what mutations.py mutates.

All is drawn from one seed; nothing is downloaded, and no data are needed. The backbone is a random resnet18, of which
the teacher and the imported files keep the stem and the first block, so that a file has some 300 kB at most.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import Backbone, build_random, from_state
from nettailor_cli.core.backbones.weights_file import read_weights
from nettailor_cli.core.complexity import student_graph
from nettailor_cli.core.data.cache import Cache, Keep
from nettailor_cli.core.data.cache_file import entry, footer, stem
from nettailor_cli.core.delta import MODEL, TEACHER, ModelDocument
from nettailor_cli.core.deploy.latency_table import LatencyTable
from nettailor_cli.core.deploy.spread import Spread
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.graph import untouched
from nettailor_cli.core.manifest import BundledTask, Manifest, StoredFile, read_manifest, write_manifest
from nettailor_cli.core.models import load_model, student_among
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import SILENT
from nettailor_cli.core.pruning import prune
from nettailor_cli.core.run import RunDirectory
from nettailor_cli.core.student import Student
from nettailor_cli.core.task_tensors import tensors_for
from nettailor_cli.core.training import checkpoint

ARCH, NAME = "resnet18", "resnet18.mutated"
SIZE = 32
CLASSES = ("a", "b", "c")
SIDE = 8
KEYS = [hashlib.sha256(bytes([n])).hexdigest() for n in range(5)]
MEASURED = {"split": "val", "accuracy": 50.0, "loss": 1.5, "images": 4}


@dataclass(frozen=True)
class Specimen:
    """A kind of file. `read` gives a digest of what was in it, or raises what refuses it.

    file: its name. faithful: no change of a byte goes unnoticed, so that what is read is what was written; of the
    others (which people may edit) it has to be read without a fault. sealed: a safetensors file with our digests.
    """

    kind: str
    file: str
    data: bytes
    read: Callable[[Path], str]
    faithful: bool = True
    sealed: bool = False


def digest(*parts: Any) -> str:
    """Of texts and tensors by name."""
    whole = hashlib.sha256()
    for part in parts:
        if isinstance(part, dict) and all(isinstance(value, Tensor) for value in part.values()):
            for name in sorted(part):
                tensor = part[name].detach().contiguous()
                whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode("utf-8", "backslashreplace"))
                whole.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            whole.update(repr(part).encode("utf-8", "backslashreplace"))
    return whole.hexdigest()


def make_backbone(seed: int = 0) -> Backbone:
    """A random one, which values go through unharmed."""
    backbone = build_random(ARCH, seed)
    backbone.name, backbone.preprocessing = NAME, Preprocessing(SIZE)
    return backbone


def specimens(folder: Path, backbone: Backbone) -> list[Specimen]:
    """One of each kind; `folder` is for whatever has to lie somewhere to be made."""
    first = first_block(backbone.state())
    known = from_state(NAME, first, Preprocessing(SIZE), last=1).fingerprint
    zipped, plain, halves = io.BytesIO(), io.BytesIO(), {name: tensor.half() for name, tensor in first.items()}
    torch.save(halves, zipped)
    torch.save(halves, plain, _use_new_zipfile_serialization=False)

    def import_known(path: Path) -> str:
        """As the home folder's files are read: by content."""
        read = import_one(path)
        if read != known:
            raise FileError(f"{path} has the fingerprint {read[:12]}, not {known[:12]}")
        return read

    known = import_one(_written(folder / "w.pth", zipped.getvalue()))
    return [
        Specimen("model", "model.safetensors", model_file(folder, backbone), model_reader(backbone), sealed=True),
        Specimen("teacher", "teacher.safetensors", teacher_file(folder, backbone), read_teacher, sealed=True),
        Specimen("checkpoint", "teach-x.safetensors", checkpoint_file(folder), read_checkpoint, sealed=True),
        Specimen("cache", f"{stem(SIDE)}-0.pixels", cache_file(), read_cache),
        Specimen("manifest", "bundle.json", manifest_file(folder), lambda path: digest(read_manifest(path.parent))),
        Specimen("backbone .pth", "w.pth", zipped.getvalue(), import_one),
        Specimen("backbone .pth, old", "w.pth", plain.getvalue(), import_known),
        Specimen(
            "backbone .safetensors",
            "w.safetensors",
            safetensors.torch.save(halves, {"mean": "[0, 0, 0]"}),
            import_known,
        ),
        Specimen(
            "run.toml", "run.toml", run_file(folder), lambda path: digest(RunDirectory(path.parent).read()), False
        ),
        Specimen("latency table", "latency.toml", latency_file(), read_latencies, False),
    ]


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# a model


def model_document(backbone: Backbone, **changes: Any) -> ModelDocument:
    """Of a student with all blocks and one proxy."""
    graph = student_graph(backbone, len(CLASSES), skips=1)
    graph = graph.keeping(lambda path: path.is_universal or path.sink == 1)
    given: dict[str, Any] = {
        "stage": MODEL, "backbone": backbone.name, "fingerprint": backbone.fingerprint, "graph": graph,
        "classes": CLASSES, "preprocessing": backbone.preprocessing,
        "student": {"bn_stats": "frozen", "proxy_width": None, "shared_prefix": 0},
        "data": {"name": "d", "images": {"train": 4}, "digest": "0", "split_seed": 0, "val_fraction": 0.2},
        "settings": {"tailor": {"seed": 0, "epochs": 1, "skips": 1, "teacher": False}}, "metrics": {"model": MEASURED},
    }  # fmt: skip
    return ModelDocument(**{**given, **changes})


def model_file(folder: Path, backbone: Backbone) -> bytes:
    document = model_document(backbone)
    student = Student(backbone, document.graph, len(CLASSES))
    student.start_fresh(torch.Generator().manual_seed(1))
    delta.write(folder / "m", document, student.task_state())
    return (folder / "m").read_bytes()


def model_reader(backbone: Backbone) -> Callable[[Path], str]:
    """As evaluate and prune do, on a backbone that is in memory."""

    def read(path: Path) -> str:
        document, tensors = delta.read(path)
        if document.stage == TEACHER:
            load_model(path, home=path.parent)
        else:
            if document.fingerprint != backbone.fingerprint:
                raise FileError("another backbone")
            student_among(document, tensors, backbone)
            smaller = prune(document.graph, 0, 0.05, document.shared_prefix).graph
            tensors_for(smaller, [(document.graph, tensors)])
        return digest(document.to_json(), tensors)

    return read


# a teacher


def first_block(state: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = ("conv1.", "bn1.", "layer1.0.")
    return {n: t for n, t in state.items() if n.startswith(kept) and not n.endswith("num_batches_tracked")}


def teacher_file(folder: Path, backbone: Backbone) -> bytes:
    whole = model_document(backbone)
    graph = untouched(whole.graph.blocks[:1], whole.graph.stem, whole.graph.head)
    document = model_document(backbone, stage=TEACHER, graph=graph, student={}, settings={"teach": {"cut": 1}})
    head = {"fc.weight": torch.ones(len(CLASSES), 64), "fc.bias": torch.zeros(len(CLASSES))}
    delta.write(folder / "t", document, {**first_block(backbone.state()), **head})
    return (folder / "t").read_bytes()


def read_teacher(path: Path) -> str:
    model = load_model(path, home=path.parent)
    return digest(model.document.to_json(), model.network.state_dict())


# a checkpoint


def checkpoint_file(folder: Path) -> bytes:
    groups = [{f"layer{n}.weight": torch.full((4, 4), float(n)) for n in range(3)} for _ in range(3)]
    model, best, momentum = groups
    position = checkpoint.Position(2, 1, {"loss": 1.5, "images": 8.0}, 1, 50.0)
    identity = {"stage": "teach", "lr": 0.1, "data": "0"}
    checkpoint.save(folder / "c", identity=identity, position=position, model=model, best=best, momentum=momentum)
    return (folder / "c").read_bytes()


def read_checkpoint(path: Path) -> str:
    identity = checkpoint.read(path)["identity"]
    position, groups = checkpoint.load(path, identity=identity)
    return digest(identity, position, *groups.values())


# the cache


def pictures() -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in KEYS]


def cache_file() -> bytes:
    table = b"".join(map(entry, KEYS, pictures()))
    return b"".join(picture.tobytes() for picture in pictures()) + table + footer(SIDE, table)


def read_cache(path: Path) -> str:
    """What is damaged is decoded again: the pixels are the same whatever happens."""
    home = path.parent / "home"
    (home / "cache").mkdir(parents=True, exist_ok=True)
    path.rename(home / "cache" / path.name)

    def decode(positions: Sequence[int], keep: Keep) -> None:
        for position in positions:
            keep(position, pictures()[position])

    rows = Cache(home, 2**30).rows(KEYS, SIDE, decode, workers=1, progress=SILENT)
    found = [rows[key][0].pixels[rows[key][1]].tobytes() for key in KEYS]
    for file in (home / "cache").iterdir():
        file.unlink()
    return digest(found)


# backbones of others


def import_one(path: Path) -> str:
    """The fingerprint of a backbone that is imported."""
    tensors, _ = read_weights(path)
    return from_state(NAME, tensors, Preprocessing(SIZE), source=str(path), last=1).fingerprint


# what people may edit


def manifest_file(folder: Path) -> bytes:
    file = StoredFile("ab" * 32, 20)
    tasks = {"flowers": BundledTask("model", 3, (1, 2), file), "signs": BundledTask("model", 2, (1, 4), file)}
    write_manifest(folder, Manifest(NAME, "cd" * 32, (1, 2, 4), "fp32", file, tasks))
    return (folder / "bundle.json").read_bytes()


def run_file(folder: Path) -> bytes:
    run = RunDirectory(folder)
    about = {"backbone": NAME, "fingerprint": "ab" * 32, "data": "d", "preprocessing": Preprocessing(SIZE).to_json()}
    run.record({"run": about, "machine": {"device": "cpu", "threads": 2}, "teach": {"epochs": 2, "lr": 0.1}})
    return run.toml.read_bytes()


def latency_file() -> bytes:
    machine: dict[str, str | int] = {"name": "m", "device": "cpu", "threads": 1, "precision": "fp32", "torch": "2"}
    timings = {1: {"stem": Spread(2.0, 1.0, 3.0), "universal 1": Spread(5.0, 4.0, 6.0)}}
    return LatencyTable(ARCH, SIZE, None, False, machine, timings).to_toml().encode()


def read_latencies(path: Path) -> str:
    table = LatencyTable.from_toml(path.read_bytes(), str(path))
    return digest(table.to_json(), table.summary())
