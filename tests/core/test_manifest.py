from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.manifest import (
    BundledTask,
    Manifest,
    StoredFile,
    check_names,
    manifest_beside,
    name_of,
    read_manifest,
    write_manifest,
)
from nettailor_cli.core.sealed import digest_of


def example() -> Manifest:
    def task(*blocks: int) -> BundledTask:
        return BundledTask("model", 3, blocks, StoredFile("ab" * 32, 20))

    return Manifest(
        backbone="resnet18.mine",
        fingerprint="f" * 64,
        blocks=(1, 2, 4),
        precision="fp32",
        file=StoredFile("cd" * 32, 100),
        tasks={"b": task(1, 2), "a": task(1, 4), "c": task()},
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_manifest(tmp_path, example())
    assert read_manifest(tmp_path) == example()
    assert list(read_manifest(tmp_path).tasks) == ["b", "a", "c"], "in the order in which they were given"
    assert manifest_beside(tmp_path / "a.safetensors") == example()
    assert manifest_beside(tmp_path / "below" / "a.safetensors") is None
    text = (tmp_path / "bundle.json").read_text()
    assert json.loads(text)["tasks"]["a"]["file"] == "a.safetensors" and len(text.splitlines()) > 20


def test_who_keeps_which_block() -> None:
    manifest = example()
    assert manifest.keepers(1) == ("b", "a") and manifest.keepers(3) == ()
    assert (manifest.alone("b"), manifest.alone("a"), manifest.alone("c")) == ((2,), (4,), ())
    assert manifest.bytes == 160
    assert manifest.serves("f" * 64, [4, 1]) and manifest.serves("f" * 64, [])
    assert not manifest.serves("f" * 64, [3]) and not manifest.serves("e" * 64, [1])


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["backbone"].pop("sha256"),
        lambda d: d["backbone"].update(file="/etc/passwd"),
        lambda d: d["backbone"].update(blocks=[1, 2]),
        lambda d: d["backbone"].update(blocks=[4, 2, 1]),
        lambda d: d["backbone"].update(blocks="124"),
        lambda d: d["tasks"].update({"../../x": d["tasks"]["a"]}),
        lambda d: d["tasks"]["a"].update(file="b.safetensors"),
        lambda d: d["tasks"]["a"].update(sha256="short"),
        lambda d: d["tasks"]["a"].update(blocks=[1, 4, 0]),
        lambda d: d.update(tasks=[]),
        lambda d: d.pop("precision"),
        lambda d: d.update(precision="int8"),
        lambda d: d["tasks"]["a"].update(classes="3"),
        lambda d: d["tasks"]["a"].update(bytes=-1),
        lambda d: d["tasks"]["a"].update(stage="pupil"),
        lambda d: d["tasks"]["a"].update(blocks=[1, 4.0]),
        lambda d: d["tasks"].update(a=[]),
        lambda d: d["backbone"].update(fingerprint="../../x"),
        lambda d: d["backbone"].update(name=["resnet18.mine"]),
    ],
)
def test_a_manifest_that_makes_no_sense(tmp_path: Path, change: Any) -> None:
    """Its digest is right: somebody meant it."""
    document = copy.deepcopy(example().to_json())
    change(document)
    (tmp_path / "bundle.json").write_text(json.dumps({**document, "digest": digest_of(document)}))
    with pytest.raises(FileError, match="makes no sense"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "3", '{"bundle": NaN}', "[" * 100_000])
def test_what_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(FileError, match="damaged"):
        read_manifest(tmp_path)


def test_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(UsageError, match="is no bundle"):
            read_manifest(folder)


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text(json.dumps({"bundle": 7}))
    with pytest.raises(FileError, match=r"format 7.*reads up to 1"):
        read_manifest(tmp_path)


def test_names_of_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_of(Path("runs/flowers/model.safetensors")) == "flowers"
    assert name_of(Path("runs/flowers/student.safetensors")) == "flowers"
    assert name_of(Path("runs/flowers/k04.safetensors")) == "k04"
    assert name_of(Path("signs.v2.safetensors")) == "signs.v2"
    (tmp_path / "digits" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "digits" / "deeper")
    assert name_of(Path("model.safetensors")) == "deeper"
    assert name_of(Path("../model.safetensors")) == "digits"


def test_names_that_can_be_and_names_that_can_not() -> None:
    check_names(["flowers", "signs.v2", "a-b_c+d@e%", "Blüten", "9"])
    for name in ("", ".", "..", ".a", "-a", "a/b", "a b", "a=b", "a\nb", "x" * 101, "backbone", "Backbone", "teacher"):
        with pytest.raises(UsageError) as caught:
            check_names([name])
        assert "NAME=FILE" in caught.value.hint
    with pytest.raises(UsageError, match="a and A"):
        check_names(["a", "b", "A"])


def test_needs_no_torch() -> None:
    code = "import sys; import nettailor_cli.core.manifest, nettailor_cli.core.sharing; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
