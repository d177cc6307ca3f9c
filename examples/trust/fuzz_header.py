"""A coverage-guided fuzzer on what reads our files' headers and documents; needs atheris (pip install atheris).

    python examples/trust/fuzz_header.py CORPUS [--seconds 900] [--seed 1]

CORPUS is a folder that keeps what reached new code; it begins with a few files of ours. An input's first byte chooses:
a whole file as it is; a document that is sealed again, so that what is in it counts; a manifest sealed again; TOML;
other values in a few places of a good document.
Whatever is not refused with our own errors is a finding: it stops there, and the input is kept as ./crash-*.
Findings that were mended are test cases of tests/core/test_strict.py and its neighbours.
"""

from __future__ import annotations

import argparse
import copy
import json
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["nettailor_cli"]):
    from nettailor_cli.core import delta, manifest, run, sealed, strict
    from nettailor_cli.core.errors import FileError, UsageError

FILE, DOCUMENT, MANIFEST, TOML, EDITS = range(5)
LONGEST = 20_000  # bytes of an input
STUCK = 10  # seconds for one input

COST = {"parameters": 3, "macs": 4}
PATHS = [
    {"source": 0, "sink": 1, "kind": "universal", "alpha": 0.9, **COST},
    {"source": 0, "sink": 1, "kind": "proxy", "alpha": 0.1, "latency_us": 2.5, **COST},
]
EXAMPLE = {
    "format": 1,
    "package": "1",
    "stage": "student",
    "backbone": {"name": "resnet18.x", "fingerprint": "ab" * 32},
    "graph": {"stem": COST, "head": COST, "blocks": [COST], "paths": PATHS},
    "classes": ["a", "\N{SNOWMAN}"],
    "preprocessing": {"size": 32, "mean": [0, 0.5, 1], "std": [1, 1, 0.1], "interpolation": "bilinear", "resize": 37},
    "student": {"bn_stats": "frozen", "proxy_width": 8, "shared_prefix": 0},
    "data": {"name": "d", "images": {"train": 3}, "digest": "x", "split_seed": 0, "val_fraction": 0.2, "group": "(a)b"},
    "settings": {"tailor": {"seed": 0, "latency_batch": 1, "latency_table": {"digest": "d", "machine": "m"}}},
    "metrics": {"student": {"split": "val", "accuracy": 50.0, "loss": 1.5, "images": 4}},
}
LISTED = {"stage": "model", "classes": 3, "blocks": [1], "file": "a.safetensors", "bytes": 9, "sha256": "c" * 64}
BUNDLE = {
    "bundle": 1,
    "package": "1",
    "precision": "fp16",
    "backbone": {
        "name": "resnet18.x",
        "fingerprint": "ab" * 32,
        "blocks": [1],
        "file": "backbone.safetensors",
        "bytes": 9,
        "sha256": "d" * 64,
    },
    "tasks": {"a": LISTED},
}
RUN = f"""[run]
backbone = "resnet18.x"
fingerprint = "{"a" * 64}"
data = "d"
[run.preprocessing]
size = 32
mean = [0.1, 0.2, 0.3]
std = [1, 1, 1]
interpolation = "b"
[machine]
threads = 2
[tailor]
epochs = 3
"""


def framed(header: object) -> bytes:
    """A safetensors file without tensors."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def sealed_file(content: dict[str, object]) -> bytes:
    """A file of ours with this document, whose digest is right."""
    whole = {**content, "tensors": {}}
    return framed({"__metadata__": {sealed.KEY: json.dumps({**whole, "digest": sealed.digest_of(whole)})}})


def first_corpus(folder: Path) -> None:
    """What a file looks like, of every kind."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = sealed_file(EXAMPLE)
    entry = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}
    seeds = {
        "file": bytes([FILE]) + whole,
        "tensors": bytes([FILE]) + framed({"a": entry, "__metadata__": {"x": "y"}}) + bytes(4),
        "document": bytes([DOCUMENT]) + json.dumps(EXAMPLE).encode(),
        "manifest": bytes([MANIFEST]) + json.dumps(BUNDLE).encode(),
        "toml": bytes([TOML]) + RUN.encode(),
        "edits": bytes([EDITS]) + bytes(range(60)),
    }
    for name, data in seeds.items():
        (folder / name).write_bytes(data)


def edited(data: bytes) -> dict[str, object]:
    """EXAMPLE with other values in as many places as `data` says."""
    source = atheris.FuzzedDataProvider(data)
    document = copy.deepcopy(EXAMPLE)
    while source.remaining_bytes() > 4:
        place: Any = document
        while place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = keys[source.ConsumeIntInRange(0, len(keys) - 1)]
            if isinstance(place[key], dict | list) and place[key] and source.ConsumeIntInRange(0, 3):
                place = place[key]
                continue
            values = (
                source.ConsumeInt(8), source.ConsumeRegularFloat(), source.ConsumeUnicode(12), None, True, [], {},
                [place[key]], {"a": place[key]}, [place[key]] * 3,
            )  # fmt: skip
            place[key] = values[source.ConsumeIntInRange(0, len(values) - 1)]
            break
    return document


def make_target(folder: Path) -> object:
    """The function that takes an input; it writes what it needs into `folder`."""
    model, listed, toml = folder / "model.safetensors", folder / manifest.MANIFEST, folder / "run.toml"

    def parsed(data: bytes) -> dict[str, object] | None:
        try:
            content = strict.parse_json(data)
        except ValueError:
            return None
        if not isinstance(content, dict):
            return None
        content.pop("digest", None)
        content.pop("tensors", None)
        return content

    def target(data: bytes) -> None:
        kind, data = (data[0] % 5, data[1:]) if data else (FILE, data)
        try:
            match kind:
                case 0:
                    model.write_bytes(data)
                    sealed.is_sealed(model)
                    delta.read_document(model)
                case 1 if (content := parsed(data)) is not None:
                    model.write_bytes(sealed_file(content))
                    again = delta.read_document(model).to_json()
                    delta.ModelDocument.from_json(again)
                case 2 if (content := parsed(data)) is not None:
                    listed.write_text(json.dumps({**content, "digest": sealed.digest_of(content)}))
                    read = manifest.read_manifest(folder)
                    assert manifest.Manifest.from_json(read.to_json()) == read
                case 3:
                    toml.write_bytes(data)
                    run.RunDirectory(folder).read()
                case 4:
                    model.write_bytes(sealed_file(edited(data)))
                    delta.ModelDocument.from_json(delta.read_document(model).to_json())
        except (FileError, UsageError):
            pass

    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seconds", type=int, default=900)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    first_corpus(asked.corpus)
    with tempfile.TemporaryDirectory() as folder:
        limits = {"max_total_time": asked.seconds, "seed": asked.seed, "max_len": LONGEST, "timeout": STUCK}
        flags = [f"-{name}={value}" for name, value in {**limits, "rss_limit_mb": 1024, "print_final_stats": 1}.items()]
        atheris.Setup([sys.argv[0], str(asked.corpus), *flags], make_target(Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
