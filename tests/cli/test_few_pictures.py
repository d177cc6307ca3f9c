"""Too few pictures, or too few at a time: it works and says so, or it is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from nettailor_cli.core.delta import read_document
from tests.cli.helpers import CLASSES, SIZE, Workshop, make_pictures, ok, refuses

FAST = ("--epochs", "1", "--device", "cpu", "--precision", "fp32", "--workers", "1")
A, B, C = CLASSES


def made(folder: Path, **counts: int) -> Path:
    """`counts` of pictures of the classes A, B and C, by the letters a, b and c."""
    for letter, count in counts.items():
        make_pictures(folder, count, seed=ord(letter), classes=[{"a": A, "b": B, "c": C}[letter]])
    return folder


def teach(shop: Workshop, data: Path, run: Path, *more: object) -> tuple[object, ...]:
    return ("teach", "--backbone", "resnet18", "--data", data, "--size", SIZE, "--run", run, *FAST, *more)


def test_a_class_of_one_image_stays_in_training_and_is_named(shop: Workshop, tmp_path: Path) -> None:
    said = ok(*teach(shop, made(tmp_path / "data", a=9, b=8, c=1), tmp_path / "run", "--quiet")).err
    assert f"warning: few training images: {C} has a single one" in said and said.count("warning:") == 1
    assert read_document(tmp_path / "run" / "teacher.safetensors").classes == CLASSES


def test_uneven_classes_are_said_to_be_so(shop: Workshop, tmp_path: Path) -> None:
    said = ok(*teach(shop, made(tmp_path / "data", a=30, b=2), tmp_path / "run", "--quiet")).err
    assert f"{A} has " in said and f"{B} has " in said and "to 1" in said and "nothing is weighted" in said


def test_two_images_in_all(shop: Workshop, tmp_path: Path) -> None:
    said = ok(*teach(shop, made(tmp_path / "data", a=1, b=1), tmp_path / "run", "--quiet")).err
    assert "no val images, so no accuracy is measured" in said
    assert read_document(tmp_path / "run" / "teacher.safetensors").metrics == {}


def test_the_least_number_of_steps_makes_epochs_which_the_file_and_a_config_of_the_run_tell(
    shop: Workshop, tmp_path: Path
) -> None:
    data, run = made(tmp_path / "data", a=4, b=4), tmp_path / "run"
    teaching = (*teach(shop, data, run, "--batch-size", 4, "--val-fraction", 0.01), "--min-steps", 5)
    ok(*teaching)
    train = read_document(run / "teacher.safetensors").data["images"]["train"]
    assert train in (7, 8), "two steps an epoch"
    assert read_document(run / "teacher.safetensors").settings["teach"]["epochs"] == 3
    again = tmp_path / "again"
    ok("teach", "--config", run / "run.toml", "--backbone", "resnet18", "--data", data, "--run", again)
    assert (again / "teacher.safetensors").read_bytes() == (run / "teacher.safetensors").read_bytes()


def test_val_with_one_image(shop: Workshop, tmp_path: Path) -> None:
    made(tmp_path / "data" / "train", a=4, b=4)
    made(tmp_path / "data" / "val", a=1)
    said = ok(*teach(shop, tmp_path / "data", tmp_path / "run", "--quiet")).err
    assert "val has a single image" in said


def test_more_classes_than_images_in_a_batch(shop: Workshop, tmp_path: Path) -> None:
    ok(*teach(shop, made(tmp_path / "data", a=4, b=4, c=4), tmp_path / "run", "--batch-size", 2))


@pytest.mark.parametrize("counts", [{"a": 4}, {"a": 4, "b": 4, "c": 0}], ids=["a single class", "an empty folder"])
def test_what_can_not_be_learned_is_refused(shop: Workshop, tmp_path: Path, counts: dict[str, int]) -> None:
    says = ["single class"] if len(counts) == 1 else [f"no images of class {C}"]
    refuses(*teach(shop, made(tmp_path / "data", **counts), tmp_path / "run"), says=says)


class TestOneImageAtATime:
    """At 32 px the last maps are 1 x 1, where batch norm would have a single value."""

    def test_a_batch_of_one_is_refused(self, shop: Workshop, run: Path) -> None:
        says = ["batch norm can't be trained on one image", "--batch-size"]
        for stage in ("teach", "tailor"):
            refuses(stage, "--run", run, "--force", *FAST, "--batch-size", 1, says=[f"{stage}: ", *says])
        pruned = run / "pruned.safetensors"
        refuses("finetune", pruned, "--force", *FAST, "--batch-size", 1, says=["finetune: ", *says])

    def test_so_is_a_last_batch_of_one_before_the_first_step(self, shop: Workshop, tmp_path: Path) -> None:
        """Five in batches of two; in batches of four they go as three and two."""
        data = made(tmp_path / "data" / "train", a=3, b=2).parent
        made(tmp_path / "data" / "val", a=2, b=2)
        refused = refuses(*teach(shop, data, tmp_path / "run", "--batch-size", 2), says=["one image of this size"])
        assert "epoch" not in refused.err
        ok(*teach(shop, data, tmp_path / "run", "--batch-size", 4))

    def test_so_are_parts_of_one(self, shop: Workshop, run: Path) -> None:
        args = ("--batch-size", 8, "--accumulate", 4)  # 16 or so in batches of 8 or 7: parts of 2 and 1
        refuses("tailor", "--run", run, "--force", *FAST, *args, says=["tailor: ", "one image of this size"])

    def test_larger_pictures_and_a_frozen_backbone_can_be_trained_on(self, shop: Workshop, tmp_path: Path) -> None:
        data = made(tmp_path / "data", a=3, b=3)
        ok(*teach(shop, data, tmp_path / "large", "--batch-size", 1, "--size", 64))
        ok(*teach(shop, data, tmp_path / "frozen", "--batch-size", 1, "--freeze"))

    def test_fit_says_so_too(self, shop: Workshop, run: Path, tmp_path: Path) -> None:
        config = tmp_path / "one.toml"
        config.write_text("[finetune]\nbatch_size = 1\nepochs = 1\n")
        (run / "model.safetensors").unlink()
        args = ("--config", config, "--max-macs", "60%", "--device", "cpu", "--precision", "fp32")
        refuses("fit", "--run", run, *args, says=["batch norm can't be trained on one image"])
