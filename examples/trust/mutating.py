"""Ways to damage a file, or to forge one: what mutations.py does to the files of specimens.py.

Every mutation takes the bytes of a whole file and a generator of random numbers, and gives other bytes.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nettailor_cli.core.sealed import KEY, digest_of

Mutation = Callable[[bytes, random.Random], bytes]

ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**9, 2**63, 10**400, 1e308, 2.5, "", "x", "../../x", "/etc/passwd", "\x1b[2J\n<b>",
    "a" * 70_000, [], {}, [[]], {"x": 1}, [1] * 1000, ["../.."], "(a+)+$", "\ud800",
)  # fmt: skip
ODD_FLOATS = (math.nan, math.inf, -math.inf)
CLAIMS = (0, 1, 2**31, 2**40, 2**63, 2**64 - 1)  # bytes that a header says that it has


# any file


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        # half of them where the structure is: at the beginning, and at the end
        place = rng.choice((rng.randrange(len(data)), rng.randrange(min(600, len(data))), -1 - rng.randrange(200)))
        changed[max(place, -len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((rng.randrange(len(data)), rng.randrange(20), len(data) - 1))]


def lengthen(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\0", b"\n", rng.randbytes(100), data))


def overwrite(data: bytes, rng: random.Random) -> bytes:
    begin, count = rng.randrange(len(data)), rng.choice((1, 4, 64, 4096))
    filling = rng.choice((bytes(count), b"\xff" * count, rng.randbytes(count)))
    return data[:begin] + filling[: len(data) - begin] + data[begin + count :]


def move(data: bytes, rng: random.Random) -> bytes:
    """Two stretches change places."""
    count = rng.choice((1, 4, 64, 1024))
    first, second = sorted(rng.randrange(max(1, len(data) - count)) for _ in range(2))
    if second - first < count:
        return data
    one, other = data[first : first + count], data[second : second + count]
    return data[:first] + other + data[first + count : second] + one + data[second + count :]


def nonsense(data: bytes, rng: random.Random) -> bytes:
    kinds = (
        b"",
        b"\0" * 64,
        b"PK\x03\x04" + bytes(100),
        b"hello\n" * 50,
        b"\x80\x02}q\0.",
        rng.randbytes(500),
        b"[" * 10**5,
    )
    return rng.choice(kinds)


ANY: dict[str, Mutation] = {
    "bit flips": flip, "cut": cut, "lengthened": lengthen, "overwritten": overwrite, "stretches swapped": move,
    "nonsense": nonsense,
}  # fmt: skip


# safetensors


@dataclass
class Parts:
    """A safetensors file taken apart: name -> what the header says; the metadata; the document if it is ours."""

    header: dict[str, Any]
    data: bytes
    metadata: dict[str, Any]
    document: dict[str, Any] | None = None
    extra: str = field(default="", repr=False)  # more JSON, put into the header as it is

    @classmethod
    def of(cls, file: bytes) -> Parts:
        length = struct.unpack("<Q", file[:8])[0]
        header = json.loads(file[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        document = json.loads(metadata[KEY]) if KEY in metadata else None
        return cls(header, file[8 + length :], metadata, document)

    def sealed(self) -> Parts:
        """With digests that are right: what somebody would do who forges a file."""
        if self.document is None:
            return self
        digests = {}
        for name, entry in self.header.items():
            try:
                begin, end = entry["data_offsets"]
                line = f"{entry['dtype']} {'x'.join(map(str, entry['shape']))}\n".encode()
                digests[name] = hashlib.sha256(line + self.data[begin:end]).hexdigest()
            except (KeyError, TypeError, ValueError):
                digests[name] = "0" * 64
        self.document = {**self.document, "tensors": digests}
        self.document.pop("digest", None)
        try:
            self.document["digest"] = digest_of(self.document)
        except (ValueError, RecursionError):  # NaN: a digest of what a lenient writer would have written
            text = json.dumps(self.document, sort_keys=True, separators=(",", ":"))
            self.document["digest"] = hashlib.sha256(text.encode()).hexdigest()
        return self

    def file(self) -> bytes:
        metadata = self.metadata
        if self.document is not None:
            metadata = {**metadata, KEY: json.dumps(self.document, sort_keys=True)}
        text = json.dumps({"__metadata__": metadata, **self.header})
        text = text[:-1] + self.extra + "}"
        raw = text.encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(raw)) + raw + self.data


Change = Callable[[Parts, random.Random], None]


def swap_tensors(parts: Parts, rng: random.Random) -> None:
    one, other = rng.sample(sorted(parts.header), 2)
    for key in rng.choice((("data_offsets",), ("data_offsets", "shape", "dtype"))):
        parts.header[one][key], parts.header[other][key] = parts.header[other][key], parts.header[one][key]


def drop_tensor(parts: Parts, rng: random.Random) -> None:
    del parts.header[rng.choice(sorted(parts.header))]


def double_tensor(parts: Parts, rng: random.Random) -> None:
    name = rng.choice(sorted(parts.header))
    if rng.randrange(2):
        parts.header[f"{name}.again"] = parts.header[name]
    else:
        parts.extra = f", {json.dumps(name)}: {json.dumps(parts.header[name])}"


def double_key(parts: Parts, rng: random.Random) -> None:
    parts.extra = ', "__metadata__": ' + rng.choice(("{}", json.dumps(parts.metadata), '{"nettailor": "{}"}'))


def wrong_type(parts: Parts, rng: random.Random) -> None:
    name = rng.choice(sorted(parts.header))
    if rng.randrange(4) == 0:
        parts.header[name] = rng.choice(ODD_VALUES)
    else:
        parts.header[name][rng.choice(("dtype", "shape", "data_offsets"))] = rng.choice(ODD_VALUES)


def wrong_shape(parts: Parts, rng: random.Random) -> None:
    entry = parts.header[rng.choice(sorted(parts.header))]
    shapes = ([2**40], [10**9, 0], [0] * 30, [1] * 5000, entry["shape"][::-1], [math.prod(entry["shape"])], [-1])
    entry["shape"] = rng.choice(shapes)
    if rng.randrange(3) == 0:
        entry["dtype"] = rng.choice(("F64", "F16", "I32", "C64", "F8_E4M3", "BOOL"))


def path_in_name(parts: Parts, rng: random.Random) -> None:
    name = rng.choice(sorted(parts.header))
    odd = rng.choice(
        ("../../x", "/etc/passwd", "a\0b", "\x1b[2J", "", name + ".", "fc.weight", "proxies.9-99.conv.weight")
    )
    parts.header[odd] = parts.header.pop(name)


def not_finite(parts: Parts, rng: random.Random) -> None:
    name = rng.choice(sorted(n for n, e in parts.header.items() if e["dtype"] in _FLOATS and math.prod(e["shape"])))
    begin, end = parts.header[name]["data_offsets"]
    form = _FLOATS[parts.header[name]["dtype"]]
    place = begin + struct.calcsize(form) * rng.randrange((end - begin) // struct.calcsize(form))
    value = struct.pack(form, rng.choice(ODD_FLOATS))
    parts.data = parts.data[:place] + value + parts.data[place + len(value) :]


_FLOATS = {"F32": "<f", "F16": "<e", "F64": "<d"}


def change_values(parts: Parts, rng: random.Random) -> None:
    place = rng.randrange(len(parts.data))
    parts.data = parts.data[:place] + bytes([parts.data[place] ^ (1 << rng.randrange(8))]) + parts.data[place + 1 :]


def lie(parts: Parts, rng: random.Random) -> None:
    """Something else in the document, or in the metadata where there is none; now and then a key less, or more."""
    table: Any = parts.metadata if parts.document is None else parts.document
    if not table:
        table["mean"] = rng.choice(("[1e999, 0, 0]", "[" * 5000, "[0, 0, 0]", '{"a": 1, "a": 2}', "NaN"))
        return
    while True:
        key = rng.choice(list(table) if isinstance(table, dict) else range(len(table)))
        if not isinstance(table[key], dict | list) or not table[key] or rng.randrange(6) == 0:
            break
        table = table[key]
    match rng.randrange(8):
        case 0:
            del table[key]
        case 1 if isinstance(table, dict):
            table[rng.choice(("x", "../x", ""))] = table[key]
        case 2:
            table[key] = [table[key]] * rng.choice((2, 300))
        case _:
            table[key] = copy.deepcopy(rng.choice(ODD_VALUES))


def claim_blocks(parts: Parts, rng: random.Random) -> None:
    """A graph that is large, or goes round in circles; many classes; wide proxies."""
    document = parts.document
    if not document or "graph" not in document:
        lie(parts, rng)
        return
    graph = document["graph"]
    match rng.randrange(6):
        case 0:
            graph["blocks"] = graph["blocks"][:1] * rng.choice((100, 5000))
        case 1:
            graph["paths"].append({**graph["paths"][0], "source": 3, "sink": rng.choice((1, 2, 3, 10**9))})
        case 2:
            path = rng.choice(graph["paths"])
            path["source"], path["sink"] = path["sink"], path["source"]
        case 3:
            document["classes"] = [str(n) for n in range(rng.choice((1, 100, 100_000)))]
        case 4:
            width = rng.choice((1, 2**16, 10**9))
            document["student"] |= {"proxy_width": width, "bn_stats": "adapt", "adapter_rank": width}
            graph["paths"][0]["own"] = {"parameters": 1, "macs": 1}
        case 5:
            graph["paths"] = graph["paths"] * rng.choice((2, 1000))


PARTS: dict[str, Change] = {
    "swapped tensors": swap_tensors, "missing tensor": drop_tensor, "doubled tensor": double_tensor,
    "doubled key": double_key, "wrong type": wrong_type, "wrong shape": wrong_shape, "path in a name": path_in_name,
    "NaN or infinity": not_finite, "other values": change_values, "lying metadata": lie, "lying graph": claim_blocks,
}  # fmt: skip


def huge_header(data: bytes, rng: random.Random) -> bytes:
    return struct.pack("<Q", rng.choice((*CLAIMS, len(data), len(data) - 8, len(data) - 7))) + data[8:]


def bad_json(data: bytes, rng: random.Random) -> bytes:
    parts = Parts.of(data)
    value = rng.choice(
        (
            "[" * 20_000,
            '{"a":' * 20_000,
            "9" * 10_000,
            "[" + "{}," * 200_000 + "{}]",
            "NaN",
            '"\xff"',
            "1e999",
            '"\\ud800"',
        )
    )
    text = (json.dumps(parts.header)[:-1] + f', "__metadata__": {value}}}').encode("latin-1", "replace")
    return struct.pack("<Q", len(text)) + text + parts.data


SAFETENSORS: dict[str, Mutation] = {"huge header": huge_header, "JSON that is none": bad_json}


def change(name: str, data: bytes, rng: random.Random, *, resealed: bool) -> bytes:
    """The file `data` with one of PARTS done to it, and with its digests computed again if `resealed`."""
    parts = Parts.of(data)
    PARTS[name](parts, rng)
    return (parts.sealed() if resealed else parts).file()


# JSON and TOML


def lie_in_json(data: bytes, rng: random.Random) -> bytes:
    """A manifest with something else in it and the right digest."""
    parts = Parts({}, b"", {}, json.loads(data))
    assert parts.document is not None
    parts.document.pop("digest")
    lie(parts, rng)
    try:
        digest = digest_of(parts.document)
    except ValueError:
        digest = "0" * 64
    return json.dumps({**parts.document, "digest": digest}).encode("utf-8", "surrogatepass")


def lie_in_lines(data: bytes, rng: random.Random) -> bytes:
    """TOML with another value in a line."""
    values = (
        "nan",
        "inf",
        '"x"',
        "9" * 5000,
        "[" * 3000,
        "{}",
        "-1",
        "[[[]]]",
        "1979-05-27",
        '"../../x"',
        "true",
        "2" * 18,
    )
    lines = data.decode().splitlines()
    place = rng.choice([n for n, line in enumerate(lines) if "=" in line])
    lines[place] = lines[place].split("=")[0] + "= " + rng.choice(values)
    return "\n".join(lines).encode()


# .pth


class Code:
    """Unpickled, it makes the file `marker`: the sign that code was run."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return open, (self.marker, "w")


def with_entries(data: bytes, change: Callable[[str, bytes], bytes | None], *, deflate: bool = False) -> bytes:
    """The archive with other contents (None: without that entry); its checksums are right."""
    made = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w", kind) as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return made.getvalue()


def change_pickle(data: bytes, rng: random.Random) -> bytes:
    """A few other bytes in the instructions."""
    return with_entries(data, lambda name, old: flip(old, rng) if name.endswith("data.pkl") else old)


def claim_size(data: bytes, rng: random.Random) -> bytes:
    """Some whole number in the instructions (a storage's size, a shape, a stride) is another."""

    def changed(name: str, old: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return old
        places = [n for n in range(len(old) - 1) if old[n : n + 1] == b"K"]
        place = rng.choice(places)
        number = struct.pack("<i", rng.choice((0, -1, 7, 10**6, 2**31 - 1)))
        return old[:place] + b"J" + number + old[place + 2 :]

    return with_entries(data, changed)


def change_entry(data: bytes, rng: random.Random) -> bytes:
    """A tensor's values are missing, too short, too many, or another's."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        places = [name for name in archive.namelist() if "/data/" in name]
        chosen, other = rng.sample(places, 2)
        stranger = archive.read(other)
    contents = (None, b"", bytes(10), stranger, bytes(2**20))
    content = contents[rng.randrange(len(contents))]
    return with_entries(data, lambda name, old: content if name == chosen else old)


def bomb(data: bytes, rng: random.Random) -> bytes:
    """Compressed entries: a little file that becomes a large one."""
    zeros = bytes(rng.choice((1000, 2**20, 2**27)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        chosen = rng.choice([name for name in archive.namelist() if "/data/" in name])
    return with_entries(data, lambda name, old: zeros if name == chosen else old, deflate=True)


def code(data: bytes, rng: random.Random, marker: str) -> bytes:
    """Instructions that would make the file `marker`."""
    wicked = pickle.dumps({"conv1.weight": Code(marker)}, protocol=2)
    if rng.randrange(4) == 0:
        return wicked  # not even an archive around it
    return with_entries(data, lambda name, old: wicked if name.endswith("data.pkl") else old)


def nested_key(data: bytes, rng: random.Random) -> bytes:
    """A key that takes 2**60 steps to hash."""
    steps = b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(1, 61))
    instructions = b"\x80\x02}q\x00)\x85q\x01" + steps + b"0" * rng.randrange(2) + b"h\x00h\x3dNs."
    return with_entries(data, lambda name, old: instructions if name.endswith("data.pkl") else old)


PTH: dict[str, Mutation] = {
    "other instructions": change_pickle, "lying sizes": claim_size, "other entries": change_entry, "zip bomb": bomb,
    "key without end": nested_key,
}  # fmt: skip
