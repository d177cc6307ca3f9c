"""write_bundle: what is in the folder, what is refused, and that no half of one is ever there."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.deploy import bundling
from nettailor_cli.core.deploy.bundle import load_bundle
from nettailor_cli.core.deploy.bundling import Bundled, write_bundle
from nettailor_cli.core.deploy.checking import LIMITS
from nettailor_cli.core.errors import FileError, NettailorError, RunFailed, UsageError
from nettailor_cli.core.models import load_model
from tests.core.deploy.tasks import CLASSES, PATHS, Tasks, images, write_task

ALL = tuple(PATHS)
BLOCKS = (1, 2, 3, 4, 5, 7)


def bundle(tasks: Tasks, folder: Path, *names: str, **options: Any) -> Bundled:
    return write_bundle(tasks.some(*(names or ALL)), folder, home=tasks.home, **options)


@pytest.fixture(scope="module")
def made(tasks: Tasks, tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    return bundle(tasks, tmp_path_factory.mktemp("made") / "bundle")


def logits(path: Path, home: Path, size: int = 32) -> Tensor:
    with torch.inference_mode():
        return load_model(path, home=home).logits(images(size))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def block_of(key: str) -> int:
    """The number of the block that torchvision's `key` is of; 0 for the stem."""
    if not key.startswith("layer"):
        return 0
    return 2 * (int(key[5]) - 1) + int(key[7]) + 1


def test_the_backbone_is_the_union_of_the_blocks_in_use_and_no_more(tasks: Tasks, made: Bundled) -> None:
    stored, whole = load_file(made.folder / "backbone.safetensors"), tasks.backbone.state()
    assert {block_of(key) for key in stored} == {0, *BLOCKS}
    wanted = {k for k in whole if block_of(k) in (0, *BLOCKS) and not k.endswith("num_batches_tracked")}
    assert stored.keys() == wanted
    assert all(torch.equal(stored[key], whole[key]) for key in stored)


def test_the_deltas_are_the_very_files(tasks: Tasks, made: Bundled) -> None:
    assert names_in(made.folder) == sorted(["bundle.json", "backbone.safetensors", *(f"{n}.safetensors" for n in ALL)])
    for name in ALL:
        assert (made.folder / f"{name}.safetensors").read_bytes() == tasks.files[name].read_bytes()


def test_the_manifest_says_what_is_there(tasks: Tasks, made: Bundled) -> None:
    document = json.loads((made.folder / "bundle.json").read_text())
    assert document["bundle"] == 1 and document["precision"] == "fp32"
    assert document["backbone"]["fingerprint"] == tasks.backbone.fingerprint
    assert document["backbone"]["blocks"] == list(BLOCKS)
    assert list(document["tasks"]) == list(ALL)
    for entry in (document["backbone"], *document["tasks"].values()):
        data = (made.folder / entry["file"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert {name: entry["classes"] for name, entry in document["tasks"].items()} == CLASSES
    assert document["tasks"]["signs"]["blocks"] == [1, 2, 7] and document["tasks"]["lean"]["blocks"] == []


def test_who_keeps_what(made: Bundled) -> None:
    manifest = made.manifest
    assert [manifest.keepers(block) for block in (1, 2, 7, 8)] == [
        ("flowers", "signs", "digits"),
        ("flowers", "signs"),
        ("signs",),
        (),
    ]
    assert {name: manifest.alone(name) for name in ALL} == {
        "flowers": (3, 5),
        "signs": (7,),
        "digits": (4,),
        "lean": (),
    }


def test_what_it_takes_against_fine_tuned_networks(tasks: Tasks, made: Bundled) -> None:
    files = [made.folder / "backbone.safetensors", *(made.folder / f"{name}.safetensors" for name in ALL)]
    assert made.manifest.bytes == sum(file.stat().st_size for file in files)
    # resnet18 without its classifier, and the four classes that `dense` counts with
    assert made.finetuned_bytes == 4 * len(ALL) * (11_176_512 + 4 * 513)


@pytest.mark.parametrize("name", [*ALL, "adapted", "large"])
def test_a_task_of_a_bundle_is_a_model_file_that_needs_nothing_else(tasks: Tasks, tmp_path: Path, name: str) -> None:
    bundle(tasks, tmp_path / "bundle", *dict.fromkeys((name, "digits", "adapted")))
    own = logits(tmp_path / "bundle" / f"{name}.safetensors", tmp_path / "no home", 48 if name == "large" else 32)
    assert torch.equal(own, logits(tasks.files[name], tasks.home, 48 if name == "large" else 32))
    assert not (tmp_path / "no home").exists()


def test_what_the_check_found(made: Bundled) -> None:
    assert list(made.differences) == list(ALL)
    for found in made.differences.values():
        assert found.largest == 0.0 and found.same_class == found.images == 32
    assert (made.limit, made.pictures) == (1e-4, "32 drawn pictures")


class TestHalfPrecision:
    def test_halves_the_weights_and_nothing_else(self, tasks: Tasks, made: Bundled, tmp_path: Path) -> None:
        half = bundle(tasks, tmp_path / "half", fp16=True)
        assert half.manifest.precision == "fp16" and half.limit == LIMITS["fp16"]
        assert 0.49 < half.manifest.bytes / made.manifest.bytes < 0.52
        assert 2 * half.finetuned_bytes == made.finetuned_bytes
        for name in ("backbone", *ALL):
            stored, whole = (load_file(f.folder / f"{name}.safetensors") for f in (half, made))
            for key, tensor in stored.items():
                if tensor.dim() >= 2:
                    assert torch.equal(tensor, whole[key].half())
                else:
                    assert tensor.dtype == torch.float32 and torch.equal(tensor, whole[key])
        for name in ALL:
            found = half.differences[name]
            assert 0 < found.largest < LIMITS["fp16"]
            own = logits(half.folder / f"{name}.safetensors", tmp_path)
            assert own.dtype == torch.float32
            assert not torch.equal(own, logits(tasks.files[name], tasks.home))

    def test_that_is_too_coarse_keeps_nothing(self, tasks: Tasks, tmp_path: Path) -> None:
        wild = tmp_path / "runs" / "wild.safetensors"
        write_task(wild, tasks.backbone.fingerprint, PATHS["lean"], scale=1e8)
        with pytest.raises(RunFailed, match=r"nothing was kept: head\.weight is beyond") as caught:
            write_bundle({"wild": wild}, tmp_path / "bundle", home=tasks.home, fp16=True)
        assert "leave --fp16 out" in caught.value.hint
        assert names_in(tmp_path) == ["runs"]
        write_bundle({"wild": wild}, tmp_path / "bundle", home=tasks.home)


def test_a_task_that_differs_is_not_kept(tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(tasks, tmp_path / "bundle", "lean")
    before = (tmp_path / "bundle" / "bundle.json").read_bytes()
    real = bundling.load_bundle

    def off_by_a_little(folder: Path) -> Any:
        loaded = real(folder)
        with torch.no_grad():
            loaded.model("signs").network.head.bias[0] += 0.5
        return loaded

    monkeypatch.setattr(bundling, "load_bundle", off_by_a_little)
    with pytest.raises(RunFailed, match=r"nothing was kept: signs differs from the original by .* 0.0001 is allowed"):
        bundle(tasks, tmp_path / "bundle", "signs", "lean", force=True)
    assert names_in(tmp_path) == ["bundle"] and (tmp_path / "bundle" / "bundle.json").read_bytes() == before


class TestTheFolder:
    def test_is_replaced_only_by_force(self, tasks: Tasks, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "bundle"
        bundle(tasks, folder, "lean")
        with pytest.raises(UsageError, match="is there already") as caught:
            bundle(tasks, folder, "signs")
        assert "--force" in caught.value.hint
        bundle(tasks, folder, "signs", force=True)
        assert names_in(folder) == ["backbone.safetensors", "bundle.json", "signs.safetensors"]
        assert names_in(folder.parent) == ["bundle"]

    def test_that_is_no_bundle_is_never_replaced(self, tasks: Tasks, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.jpg").touch()
        with pytest.raises(UsageError, match="is no bundle"):
            bundle(tasks, tmp_path / "photos", "lean", force=True)
        bundle(tasks, tmp_path / "bundle", "lean")
        (tmp_path / "bundle" / "notes.txt").touch()
        with pytest.raises(UsageError, match=r"notes.txt is not the bundle's"):
            bundle(tasks, tmp_path / "bundle", "lean", force=True)
        assert (tmp_path / "photos" / "cat.jpg").exists() and (tmp_path / "bundle" / "notes.txt").exists()

    def test_may_be_there_empty(self, tasks: Tasks, tmp_path: Path) -> None:
        (tmp_path / "bundle").mkdir()
        bundle(tasks, tmp_path / "bundle", "lean")
        assert load_bundle(tmp_path / "bundle").tasks == ("lean",)

    def test_may_be_a_link(self, tasks: Tasks, tmp_path: Path) -> None:
        bundle(tasks, tmp_path / "real", "lean")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        bundle(tasks, tmp_path / "link", "signs", force=True)
        assert (tmp_path / "link").is_symlink() and load_bundle(tmp_path / "real").tasks == ("signs",)

    @pytest.mark.parametrize("name", ["a file", "a file/below"])
    def test_that_can_not_be(self, tasks: Tasks, tmp_path: Path, name: str) -> None:
        (tmp_path / "a file").touch()
        with pytest.raises(UsageError, match="can't write"):
            bundle(tasks, tmp_path / name, "lean", force=True)

    def test_is_never_seen_half_written(self, tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []

        def spy(real: Any) -> Any:
            def wrapped(*args: Any, **options: Any) -> None:
                real(*args, **options)
                seen.append((tmp_path / "bundle").exists())

            return wrapped

        for writer in ("write_bundled", "write_manifest"):
            monkeypatch.setattr(bundling, writer, spy(getattr(bundling, writer)))
        bundle(tasks, tmp_path / "bundle", "lean", "signs")
        assert seen == [False, False] and names_in(tmp_path) == ["bundle"]


class TestRefused:
    def test_another_backbone_by_name_with_both_fingerprints(self, tasks: Tasks, tmp_path: Path) -> None:
        write_task(tmp_path / "foreign.safetensors", "ab" * 32, PATHS["lean"])
        models = {**tasks.some("signs"), "foreign": tmp_path / "foreign.safetensors"}
        with pytest.raises(FileError) as caught:
            write_bundle(models, tmp_path / "bundle", home=tasks.home)
        for text in ("signs", "foreign", tasks.backbone.fingerprint[:12], "abababababab", str(models["foreign"])):
            assert text in caught.value.message
        assert names_in(tmp_path) == ["foreign.safetensors"]

    def test_a_teacher(self, tasks: Tasks, tmp_path: Path) -> None:
        document, tensors = delta.read(tasks.files["lean"])
        path = tmp_path / "t.safetensors"
        delta.write(path, delta.ModelDocument(**{**vars(document), "stage": delta.TEACHER}), tensors)
        with pytest.raises(FileError, match="is a teacher"):
            write_bundle({"t": path}, tmp_path / "bundle", home=tasks.home)

    def test_no_models_and_wrong_names(self, tasks: Tasks, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="needs models"):
            write_bundle({}, tmp_path / "bundle", home=tasks.home)
        for name in ("backbone", "Teacher", "a/b", "", ".hidden", "a b"):
            with pytest.raises(UsageError):
                write_bundle({name: tasks.files["lean"]}, tmp_path / "bundle", home=tasks.home)
        with pytest.raises(UsageError, match="two tasks are called lean and Lean"):
            write_bundle(dict.fromkeys(("lean", "Lean"), tasks.files["lean"]), tmp_path / "bundle", home=tasks.home)
        assert names_in(tmp_path) == []

    def test_a_backbone_that_is_nowhere(self, tasks: Tasks, tmp_path: Path) -> None:
        with pytest.raises(FileError, match=tasks.backbone.fingerprint[:12]):
            write_bundle(tasks.some("lean"), tmp_path / "bundle", home=tmp_path)


def test_a_bundle_can_be_made_of_tasks_of_a_bundle(tasks: Tasks, made: Bundled, tmp_path: Path) -> None:
    models = {name: made.folder / f"{name}.safetensors" for name in ("signs", "lean")}
    done = write_bundle(models, tmp_path / "fewer", home=tmp_path)
    assert done.manifest.blocks == (1, 2, 7)
    assert torch.equal(logits(done.folder / "signs.safetensors", tmp_path), logits(tasks.files["signs"], tasks.home))


class TestDamage:
    @pytest.fixture
    def folder(self, made: Bundled, tmp_path: Path) -> Path:
        shutil.copytree(made.folder, tmp_path / "bundle")
        return tmp_path / "bundle"

    def says(self, folder: Path, text: str) -> None:
        for act in (
            lambda: load_model(folder / "signs.safetensors", home=folder),
            lambda: load_bundle(folder).model("signs"),
        ):
            with pytest.raises(NettailorError, match=text):
                act()

    def test_of_the_backbone(self, folder: Path) -> None:
        path = folder / "backbone.safetensors"
        data = bytearray(path.read_bytes())
        data[-100] ^= 1
        path.write_bytes(bytes(data))
        self.says(folder, "backbone.safetensors is not the file that the bundle lists")
        path.unlink()
        self.says(folder, "backbone.safetensors, which the bundle lists, can't be read")

    def test_of_the_manifest(self, folder: Path) -> None:
        path = folder / "bundle.json"
        text = path.read_text()
        path.write_text(text.replace('"fp32"', '"fp16"'))
        self.says(folder, "its digest does not match")
        path.write_text(text[: len(text) // 2])
        self.says(folder, "it is not a manifest")
        path.write_text(json.dumps({"bundle": 2}))
        self.says(folder, "has format 2; this nettailor .* reads up to 1")

    def test_of_a_task(self, folder: Path, tasks: Tasks) -> None:
        shutil.copyfile(tasks.files["lean"], folder / "signs.safetensors")
        with pytest.raises(FileError, match=r"signs.safetensors is not the file that the bundle lists"):
            load_bundle(folder).model("signs")
        (folder / "signs.safetensors").write_bytes(b"nothing")
        with pytest.raises(FileError):
            load_bundle(folder).model("signs")

    def test_without_a_manifest_it_is_no_bundle(self, folder: Path, tasks: Tasks) -> None:
        (folder / "bundle.json").unlink()
        with pytest.raises(UsageError, match="is no bundle"):
            load_bundle(folder)
        path = folder / "signs.safetensors"
        with pytest.raises(FileError, match="which is not in"):
            load_model(path, home=folder)
        load_model(path, home=tasks.home)


def test_a_delta_beside_a_bundle_that_lacks_its_blocks_finds_its_backbone_at_home(tasks: Tasks, tmp_path: Path) -> None:
    bundle(tasks, tmp_path / "bundle", "lean", "signs")
    for name in ("digits", "flowers"):
        shutil.copyfile(tasks.files[name], tmp_path / "bundle" / f"{name}.safetensors")
        path = tmp_path / "bundle" / f"{name}.safetensors"
        with pytest.raises(FileError, match="which is not in"):
            load_model(path, home=tmp_path)
        assert torch.equal(logits(path, tasks.home), logits(tasks.files[name], tasks.home))
