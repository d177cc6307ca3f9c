"""Writing a backbone into the home folder, once and for good."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.backbones.catalog import parse_name
from nettailor_cli.core.backbones.listing import SHORT, StoredBackbone, described, folder
from nettailor_cli.core.errors import RunFailed, UsageError
from nettailor_cli.core.files import write_bytes

_HALVES = (torch.float16, torch.bfloat16)


def keep(backbone: Backbone, state: Mapping[str, Tensor], *, source: str, home: Path) -> StoredBackbone:
    """Store `state`, the torchvision-keyed tensors that `backbone` was loaded from, with the backbone's description.

    Half precision stays half (it takes half the disk, and the fingerprint is over the fp32 values). The classifier is
    left out: two files of one fingerprint hold the same tensors. Raises UsageError or RunFailed when it can't be
    written.
    """
    tensors = {
        # Fresh copies: a .pth may hold views into one another, which the format refuses.
        key: value.to(value.dtype if value.dtype in _HALVES else torch.float32, copy=True).contiguous()
        for key, value in backbone.among(state).items()
    }
    path = folder(home) / f"{parse_name(backbone.name).as_file}-{backbone.fingerprint[:SHORT]}.safetensors"
    entry = described(
        path,
        name=backbone.name,
        fingerprint=backbone.fingerprint,
        preprocessing=backbone.preprocessing,
        source=source,
    )
    data = safetensors.torch.save(tensors, metadata=entry.metadata())
    try:
        write_bytes(path, data)
    except (UsageError, RunFailed) as error:
        raise type(error)(error.message, cannot_write_hint(home)) from error
    return entry


def cannot_write_hint(home: Path) -> str:
    """What to do when the home folder refuses a file."""
    return f"backbones are kept in {folder(home)}: make room there, or set NETTAILOR_HOME to another folder"
