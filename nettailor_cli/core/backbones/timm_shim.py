"""Importing timm, which is optional, behind the torchvision that it needs."""

from __future__ import annotations

import importlib
from types import ModuleType

from nettailor_cli.core.backbones.families import TIMM
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.errors import UsageError, did_you_mean


def import_timm() -> ModuleType:
    """The timm package. Raises UsageError when it is not installed."""
    import_torchvision()
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise UsageError(
            "timm is not installed: it has the networks timm/...", "pip install 'nettailor[timm]'"
        ) from error


def name_in_timm(arch: str) -> str:
    """timm's own name for the ARCH timm/NAME. Raises UsageError when it has none, and when it is not installed."""
    timm, name = import_timm(), arch.removeprefix(TIMM)
    if not timm.is_model(name):
        near = did_you_mean(name, timm.list_models()).replace("did you mean ", f"did you mean {TIMM}")
        raise UsageError(
            f"timm {timm.__version__} has no network {name!r}", near or "nettailor backbones list 'timm/*'"
        )
    return name
