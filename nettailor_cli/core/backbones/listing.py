"""Which backbones are stored in a home folder, from their files' headers alone. Needs no torch.

A stored backbone is HOME/backbones/ARCH.TAG-<first 12 of its fingerprint>.safetensors ("--" for a slash):
torchvision's keys, no classifier, and in the header's metadata its name, fingerprint, mean, std, size and source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nettailor_cli.core.backbones.catalog import BackboneName, name_of_file, parse_name
from nettailor_cli.core.backbones.preprocessing_choice import choose
from nettailor_cli.core.errors import NettailorError
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.sealed import read_header

SHORT = 12  # hexadecimal digits of a fingerprint that people see
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredBackbone:
    """One file. A damaged one has an `error`, and the other fields say what is still known of it.

    `bytes` is the file's size, `size` the input's in pixels, `ratio` that of the short side before the crop to it,
    `mean` and `std` are on the [0, 1] scale, `source` is the URL or the name of the file that it was made from.
    """

    path: Path
    name: str
    fingerprint: str
    bytes: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: int = 0
    ratio: tuple[int, int] = Preprocessing.ratio
    source: str = ""
    error: str = ""

    @property
    def short(self) -> str:
        """The fingerprint's first twelve digits."""
        return self.fingerprint[:SHORT]

    @property
    def parsed(self) -> BackboneName:
        """`name` in its two parts. Raises UsageError for a damaged file whose name nobody can read."""
        return parse_name(self.name)

    def metadata(self) -> dict[str, str]:
        """What stands in the file's header."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "mean": json.dumps(list(self.mean)),
            "std": json.dumps(list(self.std)),
            "size": str(self.size),
            **({} if self.ratio == Preprocessing.ratio else {"ratio": json.dumps(list(self.ratio))}),
            "source": self.source,
        }


def folder(home: Path) -> Path:
    """Where `home` keeps its backbones."""
    return home / "backbones"


def described(path: Path, *, name: str, fingerprint: str, preprocessing: Preprocessing, source: str) -> StoredBackbone:
    """The entry of a file that is there (or about to be: then `bytes` is 0)."""
    return StoredBackbone(
        path=path,
        name=name,
        fingerprint=fingerprint,
        bytes=path.stat().st_size if path.exists() else 0,
        mean=preprocessing.mean,
        std=preprocessing.std,
        size=preprocessing.size,
        ratio=preprocessing.ratio,
        source=source,
    )


def listing(home: Path) -> list[StoredBackbone]:
    """The backbones of `home`: see `listed`."""
    return listed(folder(home))


def listed(place: Path) -> list[StoredBackbone]:
    """Every .safetensors in the folder `place`, by file name. Damaged files are listed, not raised."""
    return [_entry(path) for path in sorted(place.glob("*.safetensors"))]


def _entry(path: Path) -> StoredBackbone:
    try:
        metadata = _read_metadata(path)
        name, fingerprint = str(parse_name(metadata["name"])), metadata["fingerprint"]
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise ValueError("its fingerprint is not one")
        preprocessing, _ = choose(None, None, [("the header", metadata)], source=path.name)
        return described(
            path, name=name, fingerprint=fingerprint, preprocessing=preprocessing, source=metadata.get("source", "")
        )
    except NettailorError as error:
        reason = error.message if path.exists() else "it can't be read: it is a link to nowhere"
    except KeyError as error:
        reason = f"its header lacks {error}: not a file that nettailor stored"
    except OSError as error:
        reason = f"it can't be read: {error.strerror or error}"
    except ValueError as error:
        reason = f"damaged: {error}"
    name, _, digits = name_of_file(path.stem).rpartition("-")
    return StoredBackbone(path, name or path.stem, digits, _bytes(path), error=reason)


def _read_metadata(path: Path) -> Mapping[str, str]:
    """The header's metadata. Raises ValueError when the file is not a whole safetensors file."""
    header, data_start = read_header(path)
    length = _bytes(path)
    metadata: Mapping[str, str] = header.pop("__metadata__", {})
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not texts")
    try:
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
    except (KeyError, IndexError, TypeError):
        raise ValueError("its header is not a table of tensors") from None
    if data_start + end != length:
        raise ValueError(f"it has {length} bytes where its header says {data_start + end}")
    return metadata


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0  # a dangling link is listed too
