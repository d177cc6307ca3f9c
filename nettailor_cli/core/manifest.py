"""A bundle: a folder with the deltas of several tasks, the parts of the one backbone that they need, and a manifest.

    FOLDER/bundle.json            the manifest: readable JSON, what is there, with digests
    FOLDER/backbone.safetensors   the stem and every universal block that some task keeps, under torchvision's names
    FOLDER/TASK.safetensors       the delta of each task, a model file like any other

A task of a bundle is named by its file: whoever loads a delta looks for a bundle beside it. No torch here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nettailor_cli._version import __version__
from nettailor_cli.core.delta import STAGES
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.files import read_small, write_text
from nettailor_cli.core.sealed import digest_of
from nettailor_cli.core.strict import LARGEST_JSON, parse_json
from nettailor_cli.core.validation import MOST_BLOCKS, fingerprint, one_of, table, text, whole

FORMAT = 1
"""Version of the manifest: its key "bundle"."""

MANIFEST = "bundle.json"
SUFFIX = ".safetensors"
BACKBONE = "backbone"
RESERVED = (BACKBONE, "teacher")
"""No task may be called so: the first is the backbone's file, the second what `benchmark` looks for beside a model."""

PRECISIONS = ("fp32", "fp16")

_NAME = re.compile(r"\w[\w.+@%-]*")
_LONGEST = 100
_MADE_AGAIN = "make the bundle again: nettailor bundle"


@dataclass(frozen=True)
class StoredFile:
    """The SHA-256 of a file, in hex, and its size."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class BundledTask:
    """One task: its model's stage, how many classes it tells apart, which universal blocks it keeps, its file."""

    stage: str
    classes: int
    blocks: tuple[int, ...]
    file: StoredFile


@dataclass(frozen=True)
class Manifest:
    """What is in a bundle.

    backbone, fingerprint: ARCH.TAG and the whole backbone's fingerprint. blocks: those that are stored. precision:
    "fp32", or "fp16" where weights are stored in half precision. file: the backbone's.
    """

    backbone: str
    fingerprint: str
    blocks: tuple[int, ...]
    precision: str
    file: StoredFile
    tasks: dict[str, BundledTask]
    package: str = field(default=__version__)

    @property
    def bytes(self) -> int:
        """Of the backbone and all deltas; the manifest itself is a few hundred more."""
        return self.file.bytes + sum(task.file.bytes for task in self.tasks.values())

    def keepers(self, block: int) -> tuple[str, ...]:
        """The tasks that keep `block`."""
        return tuple(name for name, task in self.tasks.items() if block in task.blocks)

    def alone(self, task: str) -> tuple[int, ...]:
        """The blocks that nobody else keeps."""
        return tuple(block for block in self.tasks[task].blocks if self.keepers(block) == (task,))

    def serves(self, fingerprint: str, blocks: Collection[int]) -> bool:
        """Whether the backbone with this fingerprint is here, with these of its blocks."""
        return fingerprint == self.fingerprint and set(blocks) <= set(self.blocks)

    def to_json(self) -> dict[str, Any]:
        return {
            "bundle": FORMAT,
            "package": self.package,
            "precision": self.precision,
            "backbone": {
                "name": self.backbone,
                "fingerprint": self.fingerprint,
                "blocks": list(self.blocks),
                **_file_to_json(BACKBONE, self.file),
            },
            "tasks": {
                name: {
                    "stage": task.stage,
                    "classes": task.classes,
                    "blocks": list(task.blocks),
                    **_file_to_json(name, task.file),
                }
                for name, task in self.tasks.items()
            },
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Manifest:
        """Raises KeyError, TypeError, ValueError or UsageError when the document is not one that `to_json` wrote."""
        own, entries = table(document["backbone"], "backbone"), table(document["tasks"], "tasks")
        check_names(entries)
        tasks = {name: _task_from_json(name, table(entry, f"tasks.{name}")) for name, entry in entries.items()}
        one_of(document["precision"], "precision", PRECISIONS)
        fingerprint(own["fingerprint"], "backbone.fingerprint")
        blocks = _blocks(own["blocks"])
        if set(blocks) != {block for task in tasks.values() for block in task.blocks}:
            raise ValueError("the backbone's blocks are not those of the tasks")
        return cls(
            backbone=text(own["name"], "backbone.name"),
            fingerprint=own["fingerprint"],
            blocks=blocks,
            precision=document["precision"],
            file=_file_from_json(BACKBONE, own),
            tasks=tasks,
            package=text(document["package"], "package"),
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of the bundle in `folder`. Raises as `files.write_atomically` does."""
    document = manifest.to_json()
    write_text(folder / MANIFEST, json.dumps({**document, "digest": digest_of(document)}, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`; the files that it lists are not looked at.

    Raises UsageError when there is no bundle, FileError when the manifest is damaged or of a newer format.
    """
    path = folder / MANIFEST
    try:
        document = parse_json(read_small(path, LARGEST_JSON))
        claimed = document.pop("digest", None)
        actual = digest_of(document)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"{folder} is no bundle: there is no {MANIFEST} in it", "nettailor bundle makes one"
        ) from error
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise FileError(f"{path} is damaged: it is not a manifest", _MADE_AGAIN) from error
    version = document.get("bundle")
    if type(version) is int and version > FORMAT:
        raise FileError(f"{path} has format {version}; this nettailor ({__version__}) reads up to {FORMAT}", "upgrade")
    if claimed != actual:
        raise FileError(f"{path} is damaged or was edited: its digest does not match", _MADE_AGAIN)
    try:
        return Manifest.from_json(document)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise FileError(f"{path} makes no sense: {error}", _MADE_AGAIN) from error


def manifest_beside(path: Path) -> Manifest | None:
    """The manifest of the bundle that the file `path` lies in; None when it lies in none. Raises FileError."""
    return read_manifest(path.parent) if (path.parent / MANIFEST).exists() else None


def file_of(folder: Path, name: str) -> Path:
    """Where the bundle in `folder` has the task `name`, or BACKBONE."""
    return folder / f"{name}{SUFFIX}"


def name_of(path: Path) -> str:
    """What a task is called if nobody says otherwise: its file's name, or its run's where the file is a stage's.

    runs/flowers/model.safetensors -> flowers, signs.safetensors -> signs
    """
    own = path.name.removesuffix(SUFFIX)
    return path.parent.resolve().name if own in STAGES else own


def check_names(names: Iterable[str]) -> None:
    """Raises UsageError for a name that can't be a task's, and for two that some file systems can't tell apart."""
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _LONGEST:
            raise UsageError(
                f"{name!r} can't be a task's name: letters, digits and _ . + @ % - are", "name the model: NAME=FILE"
            )
        if name.casefold() in RESERVED:
            raise UsageError(f"no task can be called {name}", "name the model otherwise: NAME=FILE")
        other = seen.setdefault(name.casefold(), name)
        if other is not name:
            raise UsageError(f"two tasks are called {other} and {name}", "name one of them otherwise: NAME=FILE")


def _task_from_json(name: str, entry: Mapping[str, Any]) -> BundledTask:
    one_of(entry["stage"], "stage", STAGES)
    return BundledTask(entry["stage"], _count(entry, "classes"), _blocks(entry["blocks"]), _file_from_json(name, entry))


def _blocks(value: Any) -> tuple[int, ...]:
    numbers = isinstance(value, list) and all(type(block) is int and 0 < block <= MOST_BLOCKS for block in value)
    if not numbers or value != sorted(set(value)):
        raise ValueError("blocks are not the numbers of blocks")
    return tuple(value)


def _count(place: Mapping[str, Any], key: str) -> int:
    """A whole number that has to be there."""
    if place[key] is None:
        raise KeyError(key)
    whole(place, key, "a task or file", 0)
    count: int = place[key]
    return count


def _file_to_json(name: str, file: StoredFile) -> dict[str, Any]:
    return {"file": f"{name}{SUFFIX}", "bytes": file.bytes, "sha256": file.sha256}


def _file_from_json(name: str, document: Mapping[str, Any]) -> StoredFile:
    if document["file"] != f"{name}{SUFFIX}":
        raise ValueError(f"the file of {name} is not described as one")
    fingerprint(document["sha256"], f"the SHA-256 of {name}")
    return StoredFile(document["sha256"], _count(document, "bytes"))
