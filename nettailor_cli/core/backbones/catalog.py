"""The names of backbones: ARCH.TAG after torchvision's weight enums, in lower case. Needs no torch.

An ARCH is one of torchvision's; a TAG is one of torchvision's (imagenet1k_v1, ...) or any name that the user gave to an
imported file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from nettailor_cli.core.errors import UsageError, did_you_mean

DEFAULT_TAG = "imagenet1k_v1"
CUSTOM_TAG = "custom"

# Files at _SERVER. What follows the dash is the start of the file's SHA-256.
_FILES: dict[str, dict[str, str]] = {
    "resnet18": {"imagenet1k_v1": "resnet18-f37072fd.pth"},
    "resnet34": {"imagenet1k_v1": "resnet34-b627a593.pth"},
    "resnet50": {"imagenet1k_v1": "resnet50-0676ba61.pth", "imagenet1k_v2": "resnet50-11ad3fa6.pth"},
    "resnet101": {"imagenet1k_v1": "resnet101-63fe2227.pth", "imagenet1k_v2": "resnet101-cd907fc2.pth"},
    "resnet152": {"imagenet1k_v1": "resnet152-394f9c45.pth", "imagenet1k_v2": "resnet152-f82ba261.pth"},
    "resnext50_32x4d": {
        "imagenet1k_v1": "resnext50_32x4d-7cdf4587.pth",
        "imagenet1k_v2": "resnext50_32x4d-1a0047aa.pth",
    },
    "resnext101_32x8d": {
        "imagenet1k_v1": "resnext101_32x8d-8ba56ff5.pth",
        "imagenet1k_v2": "resnext101_32x8d-110c445d.pth",
    },
    "resnext101_64x4d": {"imagenet1k_v1": "resnext101_64x4d-173b62eb.pth"},
    "wide_resnet50_2": {
        "imagenet1k_v1": "wide_resnet50_2-95faca4d.pth",
        "imagenet1k_v2": "wide_resnet50_2-9ba9bcbe.pth",
    },
    "wide_resnet101_2": {
        "imagenet1k_v1": "wide_resnet101_2-32ee1156.pth",
        "imagenet1k_v2": "wide_resnet101_2-d733dc28.pth",
    },
}
_SERVER = "https://download.pytorch.org/models/"
_TAG = re.compile(r"[a-z0-9_-]+")
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")

ARCHS = tuple(_FILES)


@dataclass(frozen=True)
class BackboneName:
    """`arch` is one of ARCHS; `tag` is None when the user named the ARCH only."""

    arch: str
    tag: str | None = None

    def __str__(self) -> str:
        return self.arch if self.tag is None else f"{self.arch}.{self.tag}"


def parse_name(text: str) -> BackboneName:
    """`ARCH` or `ARCH.TAG`, in any case. Raises UsageError for an unknown ARCH and a TAG outside [a-z0-9_-]+."""
    arch, dot, tag = text.strip().lower().partition(".")
    if arch not in ARCHS:
        raise UsageError(
            f"unknown backbone {text!r}: the architecture is none of {', '.join(ARCHS)}", did_you_mean(arch, ARCHS)
        )
    if not dot:
        return BackboneName(arch)
    if not _TAG.fullmatch(tag):
        what = f"unknown backbone {text!r}: a tag is made of letters, digits, '-' and '_'"
        raise UsageError(what, f"for example {arch}.{DEFAULT_TAG}")
    return BackboneName(arch, tag)


def torchvision_tags(arch: str) -> tuple[str, ...]:
    """The tags of `arch` that torchvision offers for download, oldest first."""
    return tuple(_FILES[arch])


def download_url(name: BackboneName) -> str:
    """Where torchvision keeps the file. Raises UsageError when it has none of that name."""
    file = _FILES[name.arch].get(name.tag or DEFAULT_TAG)
    if file is None:
        offered = ", ".join(f"{name.arch}.{tag}" for tag in torchvision_tags(name.arch))
        raise UsageError(f"torchvision has no weights named {name}; it has {offered}")
    return _SERVER + file


def hash_in_url(url: str) -> str:
    """The start of the file's SHA-256 that its name gives (hexadecimal), or an empty text."""
    found = _HASH_IN_NAME.search(PurePosixPath(url).name)
    return found.group(1) if found else ""


def tag_of_file(arch: str, sha256: str) -> str | None:
    """The torchvision tag of `arch` whose file has this SHA-256 (hexadecimal), or None."""
    for tag, file in _FILES[arch].items():
        if sha256.startswith(hash_in_url(file)):
            return tag
    return None
