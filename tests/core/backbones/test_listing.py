from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nettailor_cli.core.backbones.listing import folder, listing

FINGERPRINT = "0123456789abcdef" * 4
METADATA = {
    "name": "resnet18.custom",
    "fingerprint": FINGERPRINT,
    "mean": "[0, 0, 0]",
    "std": "[1, 1, 1]",
    "size": "64",
    "source": "mine.pth",
}


def write(home: Path, name: str, metadata: dict[str, str]) -> Path:
    folder(home).mkdir(parents=True, exist_ok=True)
    path = folder(home) / name
    safetensors.torch.save_file({"a": torch.ones(5), "b": torch.ones(2, 2)}, path, metadata=metadata)
    return path


def test_a_home_without_backbones(tmp_path: Path) -> None:
    assert listing(tmp_path) == []


def test_what_stands_in_the_header_is_listed(tmp_path: Path) -> None:
    path = write(tmp_path, "b.safetensors", METADATA)
    write(tmp_path, "a.safetensors", {**METADATA, "name": "resnet50.imagenet1k_v2"})
    (folder(tmp_path) / "notes.txt").write_text("not a backbone")
    first, second = listing(tmp_path)
    assert (first.name, second.name) == ("resnet50.imagenet1k_v2", "resnet18.custom")
    assert (second.path, second.bytes, second.error) == (path, path.stat().st_size, "")
    assert (second.mean, second.std, second.size) == ((0, 0, 0), (1, 1, 1), 64)
    assert (second.source, second.short, second.parsed.tag) == ("mine.pth", "0123456789ab", "custom")
    assert {key: json.loads(text) for key, text in second.metadata().items() if key in ("mean", "std", "size")} == {
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "size": 64,
    }


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": "resnet19.x"}, "unknown backbone"),
        ({"fingerprint": "../../x"}, "fingerprint is not one"),
        ({"mean": "[1]"}, "no usable mean"),
        ({"name": None}, "lacks 'name'"),
    ],
)
def test_foreign_headers_are_listed_as_such(tmp_path: Path, change: dict[str, str | None], error: str) -> None:
    metadata = {key: value for key, value in {**METADATA, **change}.items() if value is not None}
    write(tmp_path, "resnet18.mine-0123456789ab.safetensors", metadata)
    (entry,) = listing(tmp_path)
    assert error in entry.error
    assert (entry.name, entry.fingerprint) == ("resnet18.mine", "0123456789ab")


def _framed(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        b"\xff" * 100,
        struct.pack("<Q", 1 << 40),
        _framed(b"nonsense"),
        _framed(b"[1, 2]"),
        _framed(b'{"a": 1}'),
        _framed(b'{"__metadata__": [1]}'),
        _framed(b'{"__metadata__": {"name": 1}}'),
        _framed(b'{"a": {"data_offsets": [0, 4]}}'),
        _framed(b"[" * 50_000 + b"]" * 50_000),
        _framed(b'{"__metadata__": {"name": "a", "name": "b"}}'),
    ],
)
def test_damaged_files_are_listed_not_raised(tmp_path: Path, data: bytes) -> None:
    write(tmp_path, "resnet18.good-1.safetensors", METADATA)
    (folder(tmp_path) / "resnet18.bad-2.safetensors").write_bytes(data)
    bad, good = listing(tmp_path)
    assert (bad.name, bad.bytes, good.error) == ("resnet18.bad", len(data), "")
    assert bad.error


def test_a_file_cut_short_and_a_dangling_link_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path, "a.safetensors", METADATA)
    path.write_bytes(path.read_bytes()[:-1])
    (folder(tmp_path) / "b.safetensors").symlink_to(tmp_path / "nowhere")
    cut, dangling = listing(tmp_path)
    assert "bytes where its header says" in cut.error
    assert "can't be read" in dangling.error
