"""The backbone that comes with the package: a file in this folder, in the form of those in the home folder.

README.md beside it tells what it was trained on, how, and under which licence.
"""

from __future__ import annotations

from pathlib import Path

from nettailor_cli.core.backbones.listing import StoredBackbone, listed

DEFAULT = "resnet18.tiny_imagenet"
"""What the absence of --backbone means."""

FOLDER = Path(__file__).parent


def embedded() -> list[StoredBackbone]:
    """The backbones in the package. Needs no torch."""
    return listed(FOLDER)
