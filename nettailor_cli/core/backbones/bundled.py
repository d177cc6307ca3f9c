"""A bundle's backbone: the stem and the blocks that its tasks keep, in one file without the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nettailor_cli.core.backbones.backbone import Backbone, from_state
from nettailor_cli.core.backbones.listing import SHORT
from nettailor_cli.core.errors import FileError, RunFailed
from nettailor_cli.core.files import sha256_of
from nettailor_cli.core.manifest import BACKBONE, Manifest, file_of
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import Progress
from nettailor_cli.core.sealed import read_tensors, write_sealed


def write_bundled(path: Path, backbone: Backbone, about: Mapping[str, Any], *, fp16: bool) -> None:
    """Write what there is of `backbone` to `path`, with the document `about` inside. Raises as `write_sealed` does."""
    tensors = backbone.among(backbone.state())
    write_sealed(path, {BACKBONE: about}, in_storage(tensors, fp16=fp16))


def read_bundled(folder: Path, manifest: Manifest, progress: Progress) -> Backbone:
    """The backbone of the bundle in `folder`, fp32, on the CPU, its file checked against the manifest.

    Blocks that are not in it can't run. The input size, mean and std are the tasks' own affair. Raises FileError when
    the file is missing or is not the one that the manifest lists.
    """
    path = file_of(folder, BACKBONE)
    check_file(path, manifest.file.sha256)
    backbone = from_state(
        manifest.backbone, read_tensors(path), Preprocessing(), source=str(path), blocks=manifest.blocks
    )
    backbone.fingerprint = manifest.fingerprint  # of the whole; what is here is the part that the digest vouches for
    progress.note(f"backbone {manifest.backbone}, fingerprint {manifest.fingerprint[:SHORT]}, from {path}")
    return backbone


def check_file(path: Path, sha256: str) -> None:
    """Raises FileError unless `path` is there and has this SHA-256."""
    try:
        actual = sha256_of(path)
    except OSError as error:
        raise FileError(f"{path}, which the bundle lists, can't be read: {error.strerror}") from error
    if actual != sha256:
        raise FileError(
            f"{path} is not the file that the bundle lists (its digest does not match)", "copy or make the bundle again"
        )


def in_storage(tensors: Mapping[str, Tensor], *, fp16: bool) -> dict[str, Tensor]:
    """`tensors` as they are stored: with `fp16`, matrices and convolutions in half precision.

    Batch norms, biases and attention logits stay as they are: they are few, and variances may be beyond its range.
    Raises RunFailed when others are.
    """
    if not fp16:
        return dict(tensors)
    stored = {
        name: tensor.half() if tensor.dim() >= 2 and tensor.dtype == torch.float32 else tensor
        for name, tensor in tensors.items()
    }
    for name, tensor in stored.items():
        if not bool(tensor.isfinite().all()):
            raise RunFailed(f"nothing was kept: {name} is beyond the range of half precision", "leave --fp16 out")
    return stored
