"""A .pth file looked through before torch reads it: what it would have torch call, and how much memory it asks for.

torch.load(weights_only=True) runs nothing of a file's own; but it trusts sizes, inflates what is compressed, reads no
checksums, and hashes whatever stands as a key. Here the pickle's instructions are followed on descriptions of tensors,
none of which has values, and whatever a file of weights never does is refused.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_ZIP = b"PK\x03\x04"
_LARGEST_PICKLE = 64 * 2**20  # bytes; the largest backbone's is a thousandth of this
_LARGEST_DIRECTORY = 16 * 2**20
_END = 22  # bytes of a zip file's end record without a comment
_CHUNK = 2**20
_MOST_DIMENSIONS = 64  # torch's own limit

_ITEM_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1, "UntypedStorage": 1,
}  # fmt: skip


class MoreThanWeights(Exception):
    """The file would have something called or made (`name`) that is no plain tensor and no container."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class _Global:
    name: str  # "module name", as the instruction has it

    @property
    def dotted(self) -> str:
        return self.name.replace(" ", ".")


@dataclass(frozen=True)
class _Storage:
    items: int


class _Made:
    """A container or a tensor: what is in it doesn't matter, it was looked at before."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


_MARK = _Made("mark")

StorageCheck = Callable[[str, int], None]
"""Takes a storage's key and how many bytes the pickle says that it has; raises ValueError if it hasn't."""


def check_pickled(path: Path) -> None:
    """Raises MoreThanWeights, or ValueError with what is wrong; reads all of the file, and little at a time.

    Beyond this the file can still be no state dict, and old files without a zip archive around can still hold other
    numbers than were written: they have no checksums. Raises OSError when it can't be read.
    """
    with path.open("rb") as stream:
        zipped = stream.read(len(_ZIP)) == _ZIP
        if zipped:
            _check_end(stream)
        else:
            stream.seek(0)
            _check_old(stream, path.stat().st_size)
    if zipped:
        try:
            with zipfile.ZipFile(path) as archive:
                _check_archive(archive, path.stat().st_size)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, KeyError) as error:
            raise ValueError(str(error)) from error


def _check_end(stream: IO[bytes]) -> None:
    """One archive, and nothing behind it: other readers would find the same one."""
    stream.seek(0, 2)
    if stream.tell() < _END:
        raise ValueError("it is cut short")
    stream.seek(-_END, 2)
    end = stream.read(_END)
    if not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":
        raise ValueError("it is cut short, or has something behind its end")
    if int.from_bytes(end[12:16], "little") > _LARGEST_DIRECTORY:
        raise ValueError("its table of contents is too large")


def _check_archive(archive: zipfile.ZipFile, size: int) -> None:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) < len(archive.infolist()):
        raise ValueError("an entry stands twice in it")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries.values()):
        raise ValueError("its entries are compressed, which torch.save never does")
    if sum(entry.file_size for entry in entries.values()) > size:
        raise ValueError("its entries are larger than the file")
    for entry in entries.values():
        with archive.open(entry) as stream:
            while stream.read(_CHUNK):  # at its end the checksum is compared, which torch does not do
                pass
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0].count("/") != 1:
        raise ValueError("there is no data.pkl in it")
    if entries[pickles[0]].file_size > _LARGEST_PICKLE:
        raise ValueError("its data.pkl is too large")
    folder = pickles[0].removesuffix("data.pkl")

    def check_storage(key: str, count: int) -> None:
        entry = entries.get(f"{folder}data/{key}")
        if entry is None or entry.file_size != count:
            raise ValueError(f"the values {key[:20]!r} are missing, or are not {count} bytes")

    with archive.open(entries[pickles[0]]) as stream:
        _follow(stream, check_storage)


def _check_old(stream: IO[bytes], size: int) -> None:
    """The format before torch 1.6: pickles (a magic number, a version, the machine, the object, keys), then values."""
    asked: dict[str, int] = {}

    def check_storage(key: str, count: int) -> None:
        asked[key] = max(count, asked.get(key, 0))
        if sum(asked.values()) > size:
            raise ValueError("its tensors are larger than the file")

    for _ in range(5):
        _follow(stream, check_storage)


def _follow(stream: IO[bytes], check_storage: StorageCheck) -> None:
    """Carry the instructions of one pickle out, up to its end. Raises as `check_pickled`."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            _step(opcode.name, argument, stack, memo, check_storage)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise ValueError("its instructions make no sense") from error


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any], check_storage: StorageCheck) -> None:
    match name:
        case "PROTO" | "STOP":
            pass
        case "NONE" | "NEWTRUE" | "NEWFALSE":
            stack.append(None)
        case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINSTRING":
            stack.append(argument)
        case "EMPTY_DICT" | "EMPTY_SET":
            stack.append(_Made("dict" if name == "EMPTY_DICT" else "set"))
        case "EMPTY_LIST":
            stack.append([])
        case "EMPTY_TUPLE":
            stack.append(())
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:]) if len(stack) >= count else stack[-count]]
        case "MARK":
            stack.append(_MARK)
        case "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        case "APPEND" | "APPENDS":
            items = [stack.pop()] if name == "APPEND" else _since_mark(stack)
            stack[-1].extend(items)
        case "SETITEM" | "SETITEMS":
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _since_mark(stack)
            _check_keys(items[::2])
            if stack[-1].kind not in ("dict", "ordered"):
                raise ValueError("its instructions make no sense")
        case "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "GLOBAL":
            stack.append(_Global(str(argument)))
        case "BINPERSID":
            stack.append(_storage(stack.pop(), check_storage))
        case "REDUCE":
            arguments = stack.pop()
            stack.append(_called(stack.pop(), arguments))
        case "NEWOBJ":
            raise MoreThanWeights(stack[-2].dotted)
        case "BUILD":
            state, holder = stack.pop(), stack[-1]
            if holder.kind != "ordered" or state.kind != "dict":  # a module's state dict has its version so
                raise ValueError("its instructions make no sense")
        case _:
            raise ValueError(f"it has an instruction {name}, which torch.save does not write")


def _since_mark(stack: list[Any]) -> list[Any]:
    place = len(stack) - 1
    while stack[place] is not _MARK:
        place -= 1  # below zero: IndexError, in the end
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _check_keys(keys: list[Any]) -> None:
    """Names and numbers: tuples of tuples of tuples take forever to hash."""
    if not all(key is None or isinstance(key, str | int | float | bytes) for key in keys):
        raise ValueError("it has keys that are neither names nor numbers")


def _storage(key: Any, check_storage: StorageCheck) -> _Storage:
    match key:
        case ("storage", _Global(name) as storage, str(place), str(), int(items), *view):
            module, _, item = name.partition(" ")
        case ("module", _Global() as kind, *_):
            raise MoreThanWeights(kind.dotted)
        case _:
            raise ValueError("it refers to something that is no tensor's values")
    if module not in ("torch", "torch.storage") or item not in _ITEM_BYTES:
        raise MoreThanWeights(storage.dotted)
    if items < 0 or view not in ([], [None]):
        raise ValueError("it describes a tensor's values as none ever are")
    check_storage(place, items * _ITEM_BYTES[item])
    return _Storage(items)


def _called(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        raise ValueError("its instructions make no sense")
    match function.name, arguments:
        case "collections OrderedDict", ():
            return _Made("ordered")
        case "collections OrderedDict", (list(pairs),):
            _check_keys([pair[0] for pair in pairs])
            return _Made("ordered")
        case "torch._utils _rebuild_tensor_v2", (_Storage() as storage, offset, size, stride, *_):
            _check_tensor(storage, offset, size, stride)
            return _Made("tensor")
        case "torch._utils _rebuild_parameter", (_Made(kind="tensor"), *_):
            return _Made("tensor")
        case "torch Size", (tuple(sizes),):
            return sizes
    raise MoreThanWeights(function.dotted)


def _check_tensor(storage: _Storage, offset: Any, size: Any, stride: Any) -> None:
    """It lies in its storage and is no larger: a number that stands for millions (`expand`) would become them."""
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > _MOST_DIMENSIONS or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("it has a tensor of a shape that can't be")
    count = math.prod(size)
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if count else offset
    if count > storage.items or reach > storage.items:
        raise ValueError("it has a tensor that is larger than its values")
