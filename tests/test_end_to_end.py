"""The main job, from a folder of pictures to a smaller network, and what each command leaves behind."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch

from nettailor_cli.core.delta import read_document
from nettailor_cli.core.models import load_model
from nettailor_cli.core.progress import Silent
from tests.cli.helpers import CLASSES, ONE, SIZE, TEST_IMAGES, Workshop, contents, log_of, make_workshop, ok


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def surroundings(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETTAILOR_HOME", str(shop.home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)


def test_every_file_is_in_its_place(shop: Workshop) -> None:
    models = {f"{stage}.safetensors" for stage in ("teacher", "student", "pruned", "model")}
    assert set(contents(shop.run)) == {*models, "run.toml", "log.jsonl"}
    fingerprint = read_document(shop.run / "model.safetensors").fingerprint
    kept = set(contents(shop.home))
    assert {name for name in kept if not name.startswith("cache/")} == {
        f"backbones/resnet18.custom-{fingerprint[:12]}.safetensors"
    }
    assert all(name.endswith(".pixels") for name in kept if name.startswith("cache/"))
    assert {"run", "teach", "tailor", "finetune"} <= set(tomllib.loads((shop.run / "run.toml").read_text()))
    assert [(line["stage"], line["epoch"]) for line in log_of(shop.run)] == [
        ("teach", 1),
        ("tailor", 1),
        ("finetune", 1),
    ]


def test_each_command_says_what_it_wrote_and_what_comes_next(shop: Workshop) -> None:
    expected = (
        ("teach", "teacher", "nettailor tailor"),
        ("tailor", "student", "nettailor prune"),
        ("prune", "pruned", "nettailor finetune"),
        ("finetune", "model", "nettailor evaluate"),
    )
    for name, file, following in expected:
        result = shop.results[name]
        assert f"wrote {shop.run / file}.safetensors" in result.out
        assert f"next: {following}" in result.err


def test_the_result_is_smaller_than_the_backbone(shop: Workshop) -> None:
    document = ok("inspect", shop.run / "model.safetensors", "--json").document
    assert document["totals"]["macs"] < document["backbone_totals"]["macs"]
    assert document["totals"]["parameters"] < document["backbone_totals"]["parameters"]
    assert document["totals"]["blocks"] <= 5
    # and so is the network that runs: its memory holds what the document counts, and nothing else
    model = load_model(shop.run / "model.safetensors", home=shop.home, progress=Silent(), trainable=True)
    parameters = sum(p.numel() for name, p in model.network.named_parameters() if name != "attention.logits")
    assert parameters == document["totals"]["parameters"]
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    logits = model.logits(images)
    assert logits.shape == (2, len(CLASSES))
    # ready for inference, its proxies are without batch norms, and it computes the same
    ready = load_model(shop.run / "model.safetensors", home=shop.home)
    assert sum(p.numel() for p in ready.network.parameters()) < parameters
    torch.testing.assert_close(ready.logits(images), logits, rtol=1e-4, atol=1e-5)


def test_the_backbone_stays_as_it_was(shop: Workshop) -> None:
    documents = [read_document(shop.run / f"{stage}.safetensors") for stage in ("teacher", "student", "model")]
    assert len({document.fingerprint for document in documents}) == 1
    assert ok("backbones", "verify").out.startswith("ok ")


def test_provenance_grows_along_the_chain(shop: Workshop) -> None:
    stages = ("teacher", "student", "pruned", "model")
    commands = ("teach", "tailor", "prune", "finetune")
    for count, stage in enumerate(stages, 1):
        file = shop.run / f"{stage}.safetensors"
        document = read_document(file)
        measured = [name for name in stages[:count] if name != "pruned"]
        assert set(document.settings) == set(commands[:count])
        assert set(document.metrics) == set(measured)
        assert document.classes == CLASSES and document.preprocessing.size == SIZE
        assert document.data["images"]["test"] == TEST_IMAGES
        # told in the order in which it happened
        out = ok("inspect", file).out
        assert f": {' > '.join(commands[:count])}, seed 0" in out
        places = [out.index(f"\n{name}: ") for name in measured]
        assert places == sorted(places)


def test_a_shell_script_can_go_through_it(shop: Workshop, tmp_path: Path) -> None:
    """From the pictures to the predictions on JSON alone; one seed, so the same bytes."""
    run = tmp_path / "run"
    options = ("--json", "--quiet")
    teacher = Path(ok("teach", *shop.start(run), *ONE, *options).document["file"])
    assert teacher.read_bytes() == (shop.run / "teacher.safetensors").read_bytes()
    student = Path(ok("tailor", "--run", run, *ONE, *options).document["file"])
    assert student.read_bytes() == (shop.run / "student.safetensors").read_bytes()
    pruned = Path(ok("prune", student, "--remove", "3", *options).document["file"])
    model = Path(ok("finetune", pruned, *ONE, *options).document["file"])
    assert model.read_bytes() == (shop.run / "model.safetensors").read_bytes()
    score = ok("evaluate", model, "--data", shop.data, *options).document
    assert score["images"] == TEST_IMAGES
    rows = ok("predict", model, shop.data / "test", "--format", "jsonl", "--quiet").out.splitlines()
    right = sum(Path(row["image"]).parent.name == row["classes"][0]["class"] for row in map(json.loads, rows))
    assert score["accuracy"] == pytest.approx(100 * right / TEST_IMAGES)


@pytest.mark.parametrize("size", [48, 50])
def test_other_sizes(shop: Workshop, tmp_path: Path, size: int) -> None:
    run = tmp_path / "run"
    start = ("--backbone", "resnet18", "--data", shop.data, "--size", size, "--run", run)
    ok("tailor", *start, "--no-teacher", *ONE)
    ok("prune", run / "student.safetensors", "--remove", "2")
    ok("finetune", run / "pruned.safetensors", *ONE)
    document = ok("evaluate", run / "model.safetensors", "--data", shop.data, "--json").document
    assert document["images"] == TEST_IMAGES
    assert read_document(run / "model.safetensors").preprocessing.size == size


def test_a_tiny_class_structure(shop: Workshop, tmp_path: Path) -> None:
    """Two classes, one picture of each: nothing can become val, and everything works without."""
    for name in CLASSES[:2]:
        (tmp_path / "tiny" / name).mkdir(parents=True)
        picture = (shop.data / "train" / name / "00.png").read_bytes()
        (tmp_path / "tiny" / name / "only.png").write_bytes(picture)
    run = tmp_path / "run"
    gentle = (*ONE, "--lr", "0.0001")
    ok("teach", "--backbone", "resnet18", "--data", tmp_path / "tiny", "--size", SIZE, "--run", run, *gentle)
    ok("tailor", "--run", run, *gentle)
    ok("prune", run / "student.safetensors")
    ok("finetune", run / "pruned.safetensors", *gentle)
    document = read_document(run / "model.safetensors")
    assert document.metrics == {} and "val" not in document.data["images"]
    assert ok("evaluate", run / "model.safetensors", "--data", tmp_path / "tiny", "--json").document["split"] == "all"
    ok("inspect", run / "model.safetensors")
