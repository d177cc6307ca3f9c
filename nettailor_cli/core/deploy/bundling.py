"""Several deltas and the parts of their backbone that they need, as one folder: see `core.manifest`.

Before the folder is kept, every task is loaded from it and compared with the original.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.backbones.bundled import in_storage, read_bundled, write_bundled
from nettailor_cli.core.backbones.listing import SHORT
from nettailor_cli.core.backbones.store import find_by_fingerprint
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.deploy.bundle import load_bundle
from nettailor_cli.core.deploy.checking import LIMITS, Difference, Sample, compare, runner_of_model
from nettailor_cli.core.deploy.plan import LOGITS
from nettailor_cli.core.errors import FileError, RunFailed, UsageError
from nettailor_cli.core.files import check_place, sha256_of, write_folder
from nettailor_cli.core.folding import fold_proxies
from nettailor_cli.core.manifest import (
    BACKBONE,
    MANIFEST,
    BundledTask,
    Manifest,
    StoredFile,
    check_names,
    file_of,
    manifest_beside,
    read_manifest,
    write_manifest,
)
from nettailor_cli.core.models import Model, student_among
from nettailor_cli.core.progress import SILENT, Progress
from nettailor_cli.core.sharing import macs_together

_BYTES = {"fp32": 4, "fp16": 2}


@dataclass(frozen=True)
class Bundled:
    """What was written.

    differences: task -> how far it is from the original, on `pictures`; `limit` was allowed. finetuned_bytes: of as
    many fine-tuned networks, in the same precision, parameters alone. macs, macs_together: of all tasks on one picture,
    one by one and with what they have in common computed once.
    """

    folder: Path
    manifest: Manifest
    differences: dict[str, Difference]
    pictures: str
    limit: float
    finetuned_bytes: int
    macs: int
    macs_together: int


@dataclass(frozen=True)
class _Source:
    """One of the models that go in."""

    path: Path
    document: ModelDocument
    tensors: dict[str, Tensor]


def write_bundle(
    models: Mapping[str, Path],
    folder: Path,
    *,
    home: Path,
    progress: Progress = SILENT,
    fp16: bool = False,
    data: Path | None = None,
    force: bool = False,
) -> Bundled:
    """Write the deltas in `models` (task -> file) and their backbone to the bundle `folder`, whole or not at all.

    The backbone is the one of the bundle that all of them lie in, if they lie in one, else found under `home`. With
    `fp16` weights are stored in half precision, and computed with in fp32 all the same. Every task is compared with the
    original on pictures from the folder `data`, or on drawn ones. `force` replaces a bundle, and nothing else.

    Raises UsageError for names and places that can't be, FileError when a model is a teacher or stands on another
    backbone, and RunFailed when a task differs by more than LIMITS (nothing is kept).
    """
    if not models:
        raise UsageError("a bundle needs models")
    check_names(models)
    _check_folder(folder, force)
    sources = {name: _read(path) for name, path in models.items()}
    _check_backbones(sources)
    documents = [source.document for source in sources.values()]
    blocks = sorted({block for document in documents for block in document.graph.blocks_kept})
    backbone = _backbone(sources, home, progress).only(blocks)
    precision = "fp16" if fp16 else "fp32"
    pictures = Sample(data, progress)
    differences: dict[str, Difference] = {}

    def write(temporary: Path) -> None:
        manifest = _write_files(temporary, sources, backbone, blocks, precision)
        write_manifest(temporary, manifest)
        bundle = load_bundle(temporary)
        for name, source in sources.items():
            network = fold_proxies(student_among(source.document, source.tensors, backbone))
            original = Model(source.document, network)
            squares = pictures.squares(source.document.preprocessing)
            found = compare(original, squares, runner_of_model(bundle.switch(name)), LOGITS)
            _refuse(name, found, precision)
            differences[name] = found

    if fp16:
        progress.note(
            "fp16: convolutions and classifiers are rounded and take half the bytes; batch norms, biases and attention "
            "stay as they are, and everything is computed in fp32"
        )
    progress.note(f"checking {len(sources)} tasks against the originals on {pictures.text}")
    write_folder(folder, write)
    return Bundled(
        folder=folder,
        manifest=read_manifest(folder),
        differences=differences,
        pictures=pictures.text,
        limit=LIMITS[precision],
        finetuned_bytes=_BYTES[precision] * sum(document.graph.backbone.parameters for document in documents),
        macs=sum(document.graph.cost.macs for document in documents),
        macs_together=macs_together(documents),
    )


def _check_folder(folder: Path, force: bool) -> None:
    """Raises UsageError unless `folder` can be written: what isn't a bundle is never replaced."""
    if folder.is_dir() and any(folder.iterdir()):
        if not force:
            raise UsageError(f"{folder} is there already", "--force replaces a bundle; -o writes somewhere else")
        try:
            manifest = read_manifest(folder)
        except (UsageError, FileError) as error:
            raise UsageError(f"{folder} is there already and is no bundle, so --force does not replace it") from error
        own = {MANIFEST, *(file_of(folder, name).name for name in (BACKBONE, *manifest.tasks))}
        for file in sorted(folder.iterdir()):
            if file.name not in own:
                raise UsageError(f"{file} is not the bundle's: --force would delete it", "move it elsewhere first")
    elif folder.exists() and not folder.is_dir():
        raise UsageError(f"can't write {folder}: it is a file", "choose another place to write to")
    check_place(folder / MANIFEST)
    check_place(folder.resolve().parent / f"{folder.name}.json")


def _read(path: Path) -> _Source:
    document, tensors = delta.read(path)
    if document.stage == delta.TEACHER:
        raise FileError(
            f"{path} is a teacher, a whole network of its own: it shares no backbone",
            "bundle what tailor, prune or finetune wrote",
        )
    return _Source(path, document, tensors)


def _check_backbones(sources: Mapping[str, _Source]) -> None:
    (first, one), *others = sources.items()
    for name, other in others:
        if other.document.fingerprint != one.document.fingerprint:
            here, there = (f"{d.backbone} {d.fingerprint[:SHORT]}" for d in (one.document, other.document))
            raise FileError(
                f"a bundle has one backbone: {first} ({one.path}) stands on {here}, {name} ({other.path}) on {there}",
                "make a bundle for each",
            )


def _backbone(sources: Mapping[str, _Source], home: Path, progress: Progress) -> Backbone:
    one = next(iter(sources.values()))
    if len({source.path.parent.resolve() for source in sources.values()}) == 1:
        bundle = manifest_beside(one.path)
        blocks = {block for source in sources.values() for block in source.document.graph.blocks_kept}
        if bundle is not None and bundle.serves(one.document.fingerprint, blocks):
            return read_bundled(one.path.parent, bundle, progress)
    return find_by_fingerprint(one.document.fingerprint, name=one.document.backbone, home=home, progress=progress)


def _write_files(
    folder: Path, sources: Mapping[str, _Source], backbone: Backbone, blocks: list[int], precision: str
) -> Manifest:
    """Everything but the manifest, which is returned."""
    fp16 = precision == "fp16"
    one = next(iter(sources.values())).document
    about = {"name": one.backbone, "fingerprint": one.fingerprint, "blocks": blocks, "precision": precision}
    write_bundled(file_of(folder, BACKBONE), backbone, about, fp16=fp16)
    tasks = {}
    for name, source in sources.items():
        path, document = file_of(folder, name), source.document
        if fp16:
            delta.write(path, document, in_storage(source.tensors, fp16=True))
        else:
            shutil.copyfile(source.path, path)
        kept = document.graph.blocks_kept
        tasks[name] = BundledTask(document.stage, len(document.classes), kept, _stored(path))
    return Manifest(
        backbone=one.backbone,
        fingerprint=one.fingerprint,
        blocks=tuple(blocks),
        precision=precision,
        file=_stored(file_of(folder, BACKBONE)),
        tasks=tasks,
    )


def _stored(path: Path) -> StoredFile:
    return StoredFile(sha256_of(path), path.stat().st_size)


def _refuse(name: str, found: Difference, precision: str) -> None:
    limit = LIMITS[precision]
    if found.largest <= limit:
        return
    hint = "half precision is too coarse for it: leave --fp16 out" if precision == "fp16" else "please report it"
    raise RunFailed(
        f"nothing was kept: {name} differs from the original by {found.probabilities:.2g} in probabilities and "
        f"{found.logits:.2g} of the largest logit; {limit:g} is allowed",
        hint,
    )
