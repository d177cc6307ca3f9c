"""nettailor teach"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.embedded import DEFAULT
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.delta import read_document
from nettailor_cli.core.models import load_model
from nettailor_cli.core.progress import Silent
from tests.cli.helpers import (
    BASE,
    CLASSES,
    ONE,
    SIZE,
    Workshop,
    contents,
    log_of,
    make_pictures,
    ok,
    refuses,
    untouched,
)


def test_writes_a_whole_network_under_torchvisions_names(shop: Workshop) -> None:
    tensors = load_file(shop.run / "teacher.safetensors")
    network = import_torchvision().models.resnet18(num_classes=len(CLASSES))
    missing, unknown = network.load_state_dict(tensors, strict=False)
    assert unknown == [] and all(name.endswith("num_batches_tracked") for name in missing)
    before = load_file(shop.weights)
    assert any(not torch.equal(tensors[key], value.float()) for key, value in before.items())  # it has been trained


def test_document_says_what_was_done(shop: Workshop) -> None:
    document = read_document(shop.run / "teacher.safetensors")
    assert document.stage == "teacher"
    assert document.classes == CLASSES
    assert document.backbone == "resnet18.custom" and len(document.fingerprint) == 64
    assert document.preprocessing.size == SIZE
    assert document.data["name"] == "shapes" and document.data["images"]["test"] == 12
    assert document.settings["teach"]["epochs"] == 1 and document.settings["teach"]["lr"] == 0.01
    assert document.metrics["teacher"]["split"] == "val"


def test_default_run_directory_and_own_val(shop: Workshop, tmp_path: Path) -> None:
    """RUN is runs/<data name>-<backbone>; a flat folder is split."""
    ok("teach", "--backbone", "resnet18", "--data", shop.flat, "--size", SIZE, *ONE)
    run = Path("runs") / "flat-resnet18"
    document = read_document(run / "teacher.safetensors")
    images = document.data["images"]
    assert set(images) == {"train", "val"} and sum(images.values()) == 24 and images["val"] > 0
    assert {*contents(run)} == {"teacher.safetensors", "run.toml", "log.jsonl"}


def test_val_folder_may_lack_a_class(shop: Workshop, tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_pictures(data / "train", 4, seed=1)
    make_pictures(data / "val", 2, seed=2, classes=CLASSES[1:])
    ok("teach", "--backbone", "resnet18", "--data", data, "--size", SIZE, "--run", tmp_path / "run", *ONE)
    assert read_document(tmp_path / "run" / "teacher.safetensors").metrics["teacher"]["images"] == 4


def test_run_toml_has_every_setting_and_is_a_config(shop: Workshop, tmp_path: Path) -> None:
    written = tomllib.loads((shop.run / "run.toml").read_text())
    assert written["run"]["backbone"] == "resnet18.custom"
    assert written["run"]["data"] == str(shop.data)
    assert written["run"]["preprocessing"]["size"] == SIZE
    for stage in ("teach", "tailor", "finetune"):
        assert written[stage]["epochs"] == 1 and written[stage]["device"] == "cpu"
        assert written[stage]["precision"] == "fp32" and written[stage]["seed"] == 0
    assert written["tailor"]["gamma1"] == 3.0 and written["tailor"]["skips"] == 3
    # another run that takes it over is the same run
    again = tmp_path / "again"
    ok("teach", *shop.start(again), "--config", shop.run / "run.toml")
    assert (again / "teacher.safetensors").read_bytes() == (shop.run / "teacher.safetensors").read_bytes()


def test_log_has_one_line_per_epoch(shop: Workshop, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ok("teach", *shop.start(run), *BASE, "--epochs", "2")
    log = log_of(run)
    assert [(line["stage"], line["epoch"], line["epochs"]) for line in log] == [("teach", 1, 2), ("teach", 2, 2)]
    for line in log:
        assert line["loss"] > 0 and line["images_per_second"] > 0 and 0 <= line["val_accuracy"] <= 100


def test_flags_win_over_config_over_preset(shop: Workshop, tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text('momentum = 0.5\nlr = 0.007\n[teach]\nbatch_size = 6\n[tailor]\ngamma1 = 0.5\nskips = "dense"\n')
    run = tmp_path / "run"
    args = ("--preset", "paper", "--config", config, "--epochs", "1", "--momentum", "0.6", "--no-flip")
    ok("teach", *shop.start(run), *args, "--device", "cpu", "--precision", "fp32")
    used = tomllib.loads((run / "run.toml").read_text())["teach"]
    assert used["schedule"] == "step" and used["warmup"] == 0  # the preset's
    assert used["lr"] == 0.007 and used["batch_size"] == 6  # the config's
    assert used["momentum"] == 0.6 and used["epochs"] == 1 and used["flip"] is False  # typed


def test_same_seed_same_bytes_other_seed_other_bytes(shop: Workshop, tmp_path: Path) -> None:
    for seed in (0, 6):
        ok("teach", *shop.start(tmp_path / str(seed)), *ONE, "--seed", seed)
    first, same, other = (place / "teacher.safetensors" for place in (shop.run, tmp_path / "0", tmp_path / "6"))
    assert same.read_bytes() == first.read_bytes()
    a, b = load_file(first), load_file(other)
    assert not torch.equal(a["fc.weight"], b["fc.weight"]) and not torch.equal(a["conv1.weight"], b["conv1.weight"])


def test_overwrites_only_when_forced(shop: Workshop, run: Path) -> None:
    with untouched(run):
        refuses("teach", "--run", run, *ONE, says=["teacher.safetensors", "is there already", "--force"])
        refuses("teach", "--run", run, *ONE, "--force", "--resume", says=["--resume", "--force"])
        assert "finished already" in ok("teach", "--run", run, *ONE, "--resume").err
    before = contents(run)
    ok("teach", "--run", run, *ONE, "--force", "--seed", "9")
    after = contents(run)
    assert after["teacher.safetensors"] != before["teacher.safetensors"]
    assert after["student.safetensors"] == before["student.safetensors"]


def test_weights_from_pth_are_the_same_backbone(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "home"))
    result = ok("backbones", "fetch", "resnet18", "--weights", shop.pth, "--json")
    assert result.document["fingerprint"] == read_document(shop.run / "teacher.safetensors").fingerprint


def test_tensorboard_extra(shop: Workshop, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    ok("teach", *shop.start(run), *ONE, "--tensorboard")
    assert list((run / "tensorboard").rglob("*tfevents*"))


def test_a_pickle_with_code_is_not_run(shop: Workshop, tmp_path: Path) -> None:
    proof, path = tmp_path / "executed", tmp_path / "evil.pth"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (proof,)

    torch.save({"conv1.weight": torch.zeros(1), "x": Evil()}, path)
    home = contents(shop.home)
    start = shop.start(tmp_path / "run")
    refuses("teach", *start, "--weights", path, *ONE, says=["evil.pth", "could be code"])
    refuses("tailor", *start, "--teacher", path, *ONE, says=["evil.pth", "could be code"])
    assert not proof.exists()
    assert contents(shop.home) == home
    assert not (tmp_path / "run" / "student.safetensors").exists()


def test_weights_of_another_architecture(shop: Workshop, tmp_path: Path) -> None:
    args = ("--backbone", "resnet34", "--data", shop.data, "--size", SIZE, "--run", tmp_path / "run", *ONE)
    with untouched(shop.home):
        refuses("teach", *args, "--weights", shop.weights, says=["does not fit resnet34", "It is a resnet18"])


def test_weights_that_are_no_weights(shop: Workshop, tmp_path: Path) -> None:
    start = (*shop.start(tmp_path / "run"), *ONE)
    refuses("teach", *start, "--weights", tmp_path / "none.pth", says=["none.pth"])
    short = tmp_path / "short.safetensors"
    short.write_bytes(shop.weights.read_bytes()[:100_000])
    refuses("teach", *start, "--weights", short, says=["short.safetensors", "damaged"])
    short_pth = tmp_path / "short.pth"
    short_pth.write_bytes(shop.pth.read_bytes()[:100_000])
    refuses("teach", *start, "--weights", short_pth, says=["short.pth", "damaged"])
    nan = load_file(shop.weights)
    nan["conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(nan, tmp_path / "nan.safetensors")
    refuses("teach", *start, "--weights", tmp_path / "nan.safetensors", says=["not finite", "conv1.weight"])
    assert not (tmp_path / "run").exists()


def test_without_a_backbone_it_is_the_packages_own(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "home"))
    result = ok("teach", "--data", shop.data, *ONE, "--size", SIZE)
    assert "comes with nettailor" in result.err
    document = read_document(tmp_path / "runs" / f"{shop.data.name}-{DEFAULT}" / "teacher.safetensors")
    assert document.backbone == DEFAULT
    assert not (tmp_path / "home" / "backbones").exists()  # nothing is copied


def test_freeze_trains_the_classifier_alone(shop: Workshop, tmp_path: Path) -> None:
    ok("teach", *shop.start(tmp_path / "run"), *ONE, "--freeze")
    _, tensors = delta.read(tmp_path / "run" / "teacher.safetensors")
    backbone = load_file(shop.weights)
    assert set(tensors) - set(backbone) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(tensors[name], value.float()) for name, value in backbone.items())
    other, _ = delta.read(shop.run / "teacher.safetensors")
    assert other.settings["teach"]["freeze"] is False


def test_cut_keeps_the_first_blocks_with_a_classifier_behind_them(shop: Workshop, tmp_path: Path) -> None:
    """Against torchvision's own blocks, run by hand on the file's tensors."""
    run = tmp_path / "run"
    ok("teach", *shop.start(run), *ONE, "--cut", 3)
    document, tensors = delta.read(run / "teacher.safetensors")
    assert document.graph.last == 3 and not any(name.startswith(("layer3", "layer4")) for name in tensors)
    network = import_torchvision().models.resnet18(num_classes=3)
    network.layer2[1] = network.layer3 = network.layer4 = torch.nn.Identity()
    network.fc = torch.nn.Linear(128, 3)
    network.load_state_dict(tensors, strict=False)
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    model = load_model(run / "teacher.safetensors", home=shop.home, progress=Silent())
    with torch.no_grad():
        torch.testing.assert_close(model.logits(images), network.eval()(images))
    ok("evaluate", run / "teacher.safetensors", "--data", shop.data)
    refuses("tailor", "--run", run, *ONE, says=["cut after block 3", "--cut"])


def test_cut_behind_the_last_block(shop: Workshop, tmp_path: Path) -> None:
    refuses("teach", *shop.start(tmp_path / "run"), *ONE, "--cut", 9, says=["--cut 9", "8 blocks"])
