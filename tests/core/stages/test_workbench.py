"""The pictures on the workbench: what is checked before a training, and in which order they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nettailor_cli.core.errors import DataError
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import Silent
from nettailor_cli.core.settings import FINETUNE, TAILOR, TEACH, Settings
from nettailor_cli.core.stages.carry_out import stage_seed
from nettailor_cli.core.stages.workbench import Workbench, find_pictures, open_workbench
from nettailor_cli.core.training.precision import Machine

CPU = Machine(torch.device("cpu"), bf16=False, reason="")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = noise.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def bench_of(folder: Path, **settings: object) -> Workbench:
    chosen = Settings(**{"batch_size": 4, **settings})  # type: ignore[arg-type]
    home = folder.with_name(f"{folder.name}-home")
    return open_workbench(find_pictures(folder, chosen), chosen, Preprocessing(size=8), CPU, Silent(), home)


def spoil(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])


def test_broken_pictures_of_every_split_are_named_together(folder: Path) -> None:
    broken = [folder / split / "a" / "0.png" for split in ("train", "val", "test")]
    for file in broken:
        spoil(file)
    with pytest.raises(DataError) as caught:
        bench_of(folder)
    assert all(str(file) in caught.value.message for file in broken)


def test_skipped_pictures_are_counted_in_what_the_model_file_says(folder: Path) -> None:
    for split in ("train", "test"):
        spoil(folder / split / "a" / "0.png")
    bench = bench_of(folder, skip_bad_images=True)
    assert bench.data_document(Settings())["skipped"] == 2
    assert len(bench.pictures) == 11


def test_a_class_without_a_readable_training_picture_is_refused_though_val_has_some(folder: Path) -> None:
    for file in (folder / "train" / "b").iterdir():
        spoil(file)
    with pytest.raises(DataError, match="not one training image can be read of class b"):
        bench_of(folder, skip_bad_images=True)


def test_no_stage_sees_the_pictures_of_another_one_in_its_order_and_crops(folder: Path) -> None:
    bench, settings = bench_of(folder), Settings(batch_size=12)
    firsts = [next(bench.training(settings, stage_seed(stage, 0)).epoch(0)) for stage in (TEACH, TAILOR, FINETUNE)]
    again = next(bench.training(settings, stage_seed(TEACH, 0)).epoch(0))
    assert torch.equal(firsts[0].images, again.images)
    assert not torch.equal(firsts[0].labels, firsts[1].labels)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        # not even the same crops in another order
        sums = [sorted(batch.images.sum(dim=(1, 2, 3)).tolist()) for batch in (firsts[i], firsts[j])]
        assert sums[0] != pytest.approx(sums[1], abs=1e-3)
