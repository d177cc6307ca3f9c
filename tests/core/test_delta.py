from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nettailor_cli._version import __version__
from nettailor_cli.core import delta
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.errors import FileError, RunFailed, UsageError
from nettailor_cli.core.graph import PROXY, UNIVERSAL, Cost, Graph
from nettailor_cli.core.graph import Path as GraphPath
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.sealed import read_content, write_sealed
from tests.core.test_sealed import reseal

TENSORS = {
    "attention.logits": torch.tensor([2.0, -2.0, 0.5]),
    "head.bias": torch.zeros(2),
    "proxies.0-1.bn.bias": torch.ones(2),
    "proxies.1-2.bn.bias": torch.ones(1),
}


def document(**changes: Any) -> ModelDocument:
    graph = Graph(
        blocks=(Cost(3, 4), Cost(5, 6)),
        stem=Cost(1, 2),
        head=Cost(7, 8),
        paths=(
            GraphPath(0, 1, UNIVERSAL, 0.9, Cost(3, 4)),
            GraphPath(0, 1, PROXY, 0.1, Cost(1, 1)),
            GraphPath(1, 2, PROXY, 1.0, Cost(1, 1)),
        ),
    )
    plain = ModelDocument(
        stage=delta.STUDENT,
        backbone="resnet18.imagenet1k_v1",
        fingerprint="ab" * 32,
        graph=graph,
        classes=("cat", "dog"),
        preprocessing=Preprocessing(size=96, mean=(0.1, 0.2, 0.3), std=(1 / 3, 0.5, 0.7), interpolation="bicubic"),
        student={"bn_stats": "frozen", "proxy_width": None},
        data={"digest": "cd" * 32, "split_seed": 0},
        settings={"tailor": {"epochs": 3, "lr": 0.02, "skips": "dense"}},
        metrics={"student": {"split": "val", "accuracy": 91.25, "loss": 0.1 + 0.2, "images": 7}},
    )
    return replace(plain, **changes)


@pytest.mark.parametrize("stage", ["teacher", "student", "pruned", "model"])
def test_a_model_file_comes_back_as_it_was(tmp_path: Path, stage: str) -> None:
    delta.write(tmp_path / "f", document(stage=stage), TENSORS)
    read, tensors = delta.read(tmp_path / "f")
    assert read == document(stage=stage)
    assert read == delta.read_document(tmp_path / "f")
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize(
    "classes",
    [
        ("a\nb", "tab\t", "\r", " "),
        ("\N{CAT FACE}", "e\u0301", "\u00e9", "\u202eabc"),
        ("\ud800", "\udfff\ud800", "x\udc80y"),
        ('"', "'", "\\", '\\"', "\\n", "{}", "</script>"),
        ("", "\0", "\x7f", "\u2028"),
        tuple(f"class {number:04}" for number in range(1000)),
        ("digest", "tensors", "__metadata__"),
    ],
    ids=["controls", "unicode", "surrogates", "quotes", "invisible", "thousand", "our own words"],
)
def test_any_class_names_come_back_exactly(tmp_path: Path, classes: tuple[str, ...]) -> None:
    delta.write(tmp_path / "f", document(classes=classes), TENSORS)
    assert delta.read_document(tmp_path / "f").classes == classes


def test_an_environment_comes_back_and_none_leaves_no_trace(tmp_path: Path) -> None:
    """Files from before it was noted have none, and stay as they were when they are written again."""
    made = {"tailor": {"torch": "2.13", "threads": 2}}
    delta.write(tmp_path / "f", document(environment=made), TENSORS)
    assert delta.read_document(tmp_path / "f").environment == made
    assert "environment" not in document().to_json()
    assert ModelDocument.from_json(document().to_json()) == document()


@pytest.mark.parametrize("environment", [None, [], {"tailor": 3}, "x"])
def test_an_environment_that_is_none_is_refused(tmp_path: Path, content: dict[str, Any], environment: Any) -> None:
    reseal(tmp_path / "f", {**content, "environment": environment})
    with pytest.raises(FileError, match="environment"):
        delta.read_document(tmp_path / "f")


def test_equal_documents_give_equal_bytes(tmp_path: Path) -> None:
    delta.write(tmp_path / "one", document(), TENSORS)
    delta.write(tmp_path / "two", document(), {name: TENSORS[name].clone() for name in reversed(TENSORS)})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    delta.write(tmp_path / "two", document(classes=("cat", "dog ")), TENSORS)
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_not_written(tmp_path: Path, value: float) -> None:
    broken = {**TENSORS, "head.bias": torch.tensor([0.0, value])}
    with pytest.raises(RunFailed, match=r"head\.bias has values that are not finite"):
        delta.write(tmp_path / "f", document(), broken)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    delta.write(tmp_path / "f", document(), TENSORS)
    return read_content(tmp_path / "f")


def test_a_newer_format_is_refused_by_name(tmp_path: Path, content: dict[str, Any]) -> None:
    reseal(tmp_path / "f", {**content, "format": 2, "package": "9.8.7", "graph": "of another kind"})
    with pytest.raises(FileError, match="format 2") as caught:
        delta.read_document(tmp_path / "f")
    assert __version__ in caught.value.message
    assert "9.8.7" in caught.value.hint


def test_a_newer_format_that_names_no_package_is_refused_all_the_same(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["package"]
    reseal(tmp_path / "f", {**content, "format": 10**6})
    with pytest.raises(FileError, match="format 1000000"):
        delta.read_document(tmp_path / "f")


@pytest.mark.parametrize("version", [0, -1, "1", None, 1.5, []])
def test_a_format_that_is_no_number_is_refused(tmp_path: Path, content: dict[str, Any], version: Any) -> None:
    reseal(tmp_path / "f", {**content, "format": version})
    with pytest.raises(FileError):
        delta.read_document(tmp_path / "f")


def places(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield (*prefix, key)
        yield from places(below, (*prefix, key))


def holder(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        value = value[key]
    return value


FREE = {"student", "data", "settings", "metrics"}
"""What the reader of the file hands on without looking into it."""


def test_a_document_that_lacks_anything_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    accepted = []
    for place in places(content):
        if isinstance(place[-1], int) or (place[0] in FREE and len(place) > 1):
            continue
        changed = copy.deepcopy(content)
        del holder(changed, place)[place[-1]]
        reseal(tmp_path / "f", changed)
        try:
            delta.read_document(tmp_path / "f")
        except FileError:
            continue
        accepted.append(place)
    assert accepted == [("preprocessing", "resize")], "derived from the size"


def test_a_document_with_anything_strange_in_it_is_read_or_refused_but_never_breaks_the_reader(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    broken = []
    refused = 0
    for place in places(content):
        for value in (None, True, -1, 10**400, 2.5, "x", [], {}, [[]], {"x": 1}):
            changed = copy.deepcopy(content)
            holder(changed, place)[place[-1]] = value
            reseal(tmp_path / "f", changed)
            try:
                delta.read_document(tmp_path / "f")
            except FileError:
                refused += 1
            except Exception as error:  # noqa: BLE001 - any other is what is looked for
                broken.append((place, str(value)[:10], repr(error)))
    assert not broken
    assert refused > 300


def test_other_sealed_files_are_no_model_files(tmp_path: Path) -> None:
    write_sealed(tmp_path / "f", {"checkpoint": 1}, TENSORS)
    with pytest.raises(FileError):
        delta.read_document(tmp_path / "f")


def test_every_changed_byte_is_noticed(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "f"
    data, good = bytearray(path.read_bytes()), delta.read(path)
    same = 0
    for position in range(len(data)):
        data[position] ^= 0x04
        path.write_bytes(data)
        try:
            read, tensors = delta.read(path)
        except FileError:
            pass
        else:  # a space between two JSON tokens may be another kind of space
            assert read == good[0]
            assert all(torch.equal(tensors[name], good[1][name]) for name in good[1])
            same += 1
        data[position] ^= 0x04
    assert same < 8


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        delta.read_document(tmp_path / "absent.safetensors")


def test_reading_the_document_needs_no_torch(tmp_path: Path) -> None:
    delta.write(tmp_path / "f", document(), TENSORS)
    code = (
        "import sys, json; from pathlib import Path; from nettailor_cli.core import delta\n"
        "read = delta.read_document(Path(sys.argv[1]))\n"
        "heavy = ('torch', 'torchvision', 'numpy', 'fvcore', 'safetensors.torch')\n"
        "loaded = [name for name in heavy if name in sys.modules]\n"
        "print(json.dumps([read.classes, loaded]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "f")], check=True, capture_output=True, text=True, timeout=60
    )
    assert json.loads(done.stdout) == [["cat", "dog"], []]
