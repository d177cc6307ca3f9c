"""A safetensors file whose one metadata entry is a JSON document, sealed: digests of every tensor and of itself.

Model files and checkpoints are such files. Reading the document and checking the digests needs no torch, so that
`inspect` starts at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.files import check_is_file, write_bytes
from nettailor_cli.core.printable import harmless
from nettailor_cli.core.strict import LARGEST_JSON, parse_json

if TYPE_CHECKING:
    from torch import Tensor

KEY = "nettailor"
"""The one metadata key: safetensors writes several keys in no fixed order, and equal runs should give equal bytes."""

_CHUNK = 2**20  # bytes that are hashed at a time
_MOST_DIMENSIONS = 16
_DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_DTYPE_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""torch's names -> safetensors'."""


def write_sealed(path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write `path`, whole or not at all. Equal contents give equal bytes. `content` must not hold NaN or infinity.

    Raises UsageError when the place can't be written to, RunFailed when the disk is full.
    """
    from safetensors.torch import save

    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    sealed = {**content, "tensors": {name: _digest_of_tensor(tensor) for name, tensor in plain.items()}}
    sealed["digest"] = digest_of(sealed)
    data = save(plain, metadata={KEY: json.dumps(sealed, sort_keys=True, allow_nan=False)})
    write_bytes(path, data)


def read_content(path: Path) -> dict[str, Any]:
    """The document in `path`, after all digests were checked.

    Raises UsageError when there is no such file, FileError when it is damaged or not one of ours.
    """
    header, data_start = read_header(path)
    text = header.get("__metadata__", {}).get(KEY)
    if not isinstance(text, str):
        raise FileError(
            f"{path} is not a nettailor file", "backbones and plain weights go in by --weights or --teacher"
        )
    try:
        content = parse_json(text)
    except ValueError as error:
        raise FileError(f"{path}: the metadata is damaged: {error}") from error
    if not isinstance(content, dict):
        raise FileError(f"{path}: the metadata is damaged")
    claimed = content.pop("digest", None)
    if claimed != digest_of(content):
        raise FileError(f"{path}: the metadata is damaged (its digest does not match)", "copy or make the file again")
    _check_tensors(path, header, data_start, content.pop("tensors", None))
    return content


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON document, in hex, however it is laid out. Raises ValueError for NaN and infinity."""
    return _sha256(_canonical(content))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of `path`, on the CPU; `read_content` has checked them. Raises FileError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, OverflowError) as error:  # torch's own, too
        raise FileError(f"{path} can't be read: {harmless(error)}") from error


def is_sealed(path: Path) -> bool:
    """Whether `path` is one of this tool's own files (damaged ones included)."""
    try:
        header, _ = read_header(path)
    except (FileError, UsageError):
        return False
    return KEY in header.get("__metadata__", {})


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file, and where its data begin. Reads no further. Raises as `read_content`.

    The header is a table whose "__metadata__" is a table, too, if it is there; nothing else was looked at.
    """
    try:
        check_is_file(path)
        with path.open("rb") as stream:
            length_bytes = stream.read(8)
            length = struct.unpack("<Q", length_bytes)[0] if len(length_bytes) == 8 else 0
            size = path.stat().st_size
            if not 2 <= length <= min(LARGEST_JSON, size - 8):
                raise FileError(f"{path} is not a safetensors file, or is cut short", "name a .safetensors file")
            header = parse_json(stream.read(length))
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a folder, not a model file", "name a model file in it") from error
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:
        raise FileError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise FileError(f"{path} is not a safetensors file, or is damaged")
    return header, 8 + length


def _check_tensors(path: Path, header: Mapping[str, Any], data_start: int, digests: Any) -> None:
    """Every tensor lies where the header says, nothing else does, and each has the digest that the metadata keep."""
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if not isinstance(digests, dict) or digests.keys() != entries.keys():
        raise FileError(f"{path} is damaged: its tensors are not those that its metadata list")
    position, available = 0, path.stat().st_size - data_start
    with path.open("rb") as stream:
        stream.seek(data_start)
        for name, entry in sorted(entries.items(), key=lambda item: _begin(path, item[1])):
            begin, end = entry["data_offsets"]
            fits = begin == position and begin <= end <= available and end - begin == _size_of(path, entry)
            if not fits:
                raise FileError(f"{path} is damaged: the tensor {name!r} is not where it should be")
            digest = hashlib.sha256(_shape_line(entry["dtype"], entry["shape"]))
            while position < end:
                chunk = stream.read(min(_CHUNK, end - position))
                if not chunk:
                    raise FileError(f"{path} is damaged: it is cut short")
                digest.update(chunk)
                position += len(chunk)
            if digest.hexdigest() != digests[name]:
                raise FileError(
                    f"{path} is damaged: the tensor {name!r} has changed (its digest does not match)",
                    "copy or make the file again",
                )
        if stream.read(1):
            raise FileError(f"{path} is damaged: there is something behind the last tensor")


def _begin(path: Path, entry: Any) -> int:
    match entry:
        case {"data_offsets": [int(begin), int(end)]} if type(begin) is type(end) is int:
            return begin
    raise FileError(f"{path} is damaged: a tensor without a place")


def _size_of(path: Path, entry: Mapping[str, Any]) -> int:
    shape, width = entry.get("shape"), _DTYPE_BYTES.get(str(entry.get("dtype")))
    whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if width is None or not isinstance(shape, list) or not whole or len(shape) > _MOST_DIMENSIONS:
        raise FileError(f"{path} is damaged: a tensor of unknown type or shape")
    return math.prod(shape, start=width)


def _bytes_of(tensor: Tensor) -> bytes:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def _digest_of_tensor(tensor: Tensor) -> str:
    dtype = _DTYPE_NAMES[str(tensor.dtype).removeprefix("torch.")]
    return _sha256(_shape_line(dtype, tensor.shape) + _bytes_of(tensor))


def _shape_line(dtype: str, shape: Sequence[int]) -> bytes:
    """Stands before the bytes in a digest: the same bytes of another type or shape are another tensor."""
    return f"{dtype} {'x'.join(map(str, shape))}\n".encode()


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
