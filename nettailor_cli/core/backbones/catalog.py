"""The names of backbones: ARCH.TAG after torchvision's weight enums, in lower case. Needs no torch, but for timm's.

An ARCH is one of torchvision's, decathlon_wrn26, or timm/NAME, which only timm itself knows; a TAG is one of
torchvision's (imagenet1k_v1, ...) or timm's, or any name that the user gave to an imported file.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nettailor_cli.core.backbones.families import TIMM, family_of, why_refused
from nettailor_cli.core.errors import UsageError, did_you_mean
from nettailor_cli.core.preprocessing import Preprocessing

DEFAULT_TAG = "imagenet1k_v1"
CUSTOM_TAG = "custom"
_LIST = "nettailor backbones list shows them all"

SERVER = "https://download.pytorch.org/models/"
TABLE = Path(__file__).with_name("networks.json")
"""Every ARCH with what is known of it; made by examples/backbones/table.py from the installed torchvision."""

_TAG = re.compile(r"[a-z0-9_-]+")
_TIMMS = re.compile(re.escape(TIMM) + r"[a-z0-9_]+")
_SLASH = "--"  # for the slash in the names of files and folders
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")

_NETWORKS: dict[str, dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))
ARCHS = tuple(_NETWORKS)


@dataclass(frozen=True)
class Network:
    """One of the networks: residual blocks or the like, parameters and MACs with 1000 classes at `size` px.

    classifier: the name of its linear layer in its weights' keys, which sees `features` numbers.
    """

    arch: str
    family: str
    size: int
    blocks: int
    parameters: int
    macs: int
    features: int
    classifier: str


def network(arch: str) -> Network:
    """What is known of the ARCH `arch`."""
    row = _NETWORKS[arch]
    counts = {key: row[key] for key in ("blocks", "parameters", "macs", "features", "classifier")}
    return Network(arch, family_of(arch) or "", preprocessing(arch).size, **counts)


def preprocessing(arch: str, tag: str | None = None) -> Preprocessing:
    """What pictures have to look like for torchvision's weights `tag`; for others as for the first of `arch`."""
    if arch.startswith(TIMM):
        return _timms().preprocessing(arch, tag)
    offered = _NETWORKS[arch]["weights"]
    own = offered.get(tag) or offered.get(default_tag(arch)) or _NETWORKS[arch]["pictures"]
    given: dict[str, Any] = {
        key: value if key == "size" else tuple(value) for key, value in own.items() if key != "file"
    }
    return Preprocessing(**given)


def default_tag(arch: str) -> str:
    """What a bare ARCH means: DEFAULT_TAG, where torchvision has it; CUSTOM_TAG where it has none."""
    tags = offered_tags(arch)
    return DEFAULT_TAG if DEFAULT_TAG in tags else (*tags, CUSTOM_TAG)[0]


@dataclass(frozen=True)
class BackboneName:
    """`arch` is one of ARCHS or timm/NAME; `tag` is None when the user named the ARCH only."""

    arch: str
    tag: str | None = None

    def __str__(self) -> str:
        return self.arch if self.tag is None else f"{self.arch}.{self.tag}"

    @property
    def as_file(self) -> str:
        """For the names of files and folders."""
        return str(self).replace("/", _SLASH)


def parse_name(text: str) -> BackboneName:
    """`ARCH` or `ARCH.TAG`, in any case. Raises UsageError for an unknown ARCH and a TAG outside [a-z0-9_-]+.

    Whether timm has a network of a name that starts with timm/ is found out when it is made.
    """
    arch, dot, tag = text.strip().lower().partition(".")
    if arch not in ARCHS and not _TIMMS.fullmatch(arch):
        reason = why_refused(arch)
        if reason:
            raise UsageError(f"{arch} can't be tailored: {reason}", _LIST)
        raise UsageError(f"unknown backbone {text!r}", did_you_mean(arch, ARCHS) or _LIST)
    if not dot:
        return BackboneName(arch)
    if not _TAG.fullmatch(tag):
        what = f"unknown backbone {text!r}: a tag is made of letters, digits, '-' and '_'"
        raise UsageError(what, f"for example {arch}.{CUSTOM_TAG if arch.startswith(TIMM) else default_tag(arch)}")
    return BackboneName(arch, tag)


def name_of_file(stem: str) -> str:
    """The reverse of `BackboneName.as_file`."""
    return stem.replace(_SLASH, "/", 1)


def offered_tags(arch: str) -> tuple[str, ...]:
    """The tags of `arch` that can be downloaded."""
    return _timms().tags(arch) if arch.startswith(TIMM) else torchvision_tags(arch)


def _timms() -> Any:
    """timm_catalog, which needs timm."""
    from nettailor_cli.core.backbones import timm_catalog

    return timm_catalog


def torchvision_tags(arch: str) -> tuple[str, ...]:
    """The tags of `arch` that torchvision offers for download, oldest first; none for timm's networks."""
    return tuple(_NETWORKS[arch]["weights"]) if arch in _NETWORKS else ()


def download_url(name: BackboneName) -> str:
    """Where torchvision, or timm, keeps the file. Raises UsageError when torchvision has none of that name."""
    if name.arch.startswith(TIMM):
        return str(_timms().url(str(name)))
    weights = _NETWORKS[name.arch]["weights"].get(name.tag or default_tag(name.arch))
    if weights is None:
        offered = ", ".join(f"{name.arch}.{tag}" for tag in torchvision_tags(name.arch))
        raise UsageError(f"torchvision has no weights named {name}; it has {offered}")
    return SERVER + str(weights["file"])


def hash_in_url(url: str) -> str:
    """The start of the file's SHA-256 that its name gives (hexadecimal), or an empty text."""
    found = _HASH_IN_NAME.search(PurePosixPath(url).name)
    return found.group(1) if found else ""


def tag_of_file(arch: str, sha256: str) -> str | None:
    """The torchvision tag of `arch` whose file has this SHA-256 (hexadecimal), or None."""
    if arch.startswith(TIMM):
        return None
    for tag, weights in _NETWORKS[arch]["weights"].items():
        if sha256.startswith(hash_in_url(weights["file"])):
            return str(tag)
    return None
