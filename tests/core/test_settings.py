from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.presets import resolve
from nettailor_cli.core.settings import (
    FINETUNE,
    STAGES,
    TAILOR,
    TEACH,
    completed,
    fields_of,
    lengthened,
    to_document,
)
from tests.core.configs import config


@pytest.mark.parametrize(
    ("images", "epochs"),
    [(3200, 16), (1200, 16), (1184, 16), (1152, 17), (320, 60), (64, 300), (3, 300)],  # 50, 19, 19, 18, 5, 1, 1 steps
)
def test_few_pictures_are_gone_through_more_often_for_as_many_steps(images: int, epochs: int) -> None:
    standard = replace(resolve(TEACH, flags={}), epochs=16, batch_size=64, min_steps=300)
    assert lengthened(standard, images).epochs == epochs
    assert lengthened(lengthened(standard, images), images).epochs == epochs


@pytest.mark.parametrize(
    "text",
    [
        "epochs = 'many'",
        "epochs = 2.5",
        "epochs = true",
        "epochs = []",
        "epochs = 2024-01-01",
        "epochs = nan",
        "epochs = inf",
        "epochs = 0",
        "epochs = -1",
        "batch_size = 0",
        "lr = 0",
        "lr = -0.1",
        "lr = nan",
        "lr = inf",
        "lr = 'fast'",
        "lr = true",
        "lr = [0.1]",
        "momentum = 1.0",
        "warmup = 1",
        "schedule = 'linear'",
        "schedule = 3",
        "flip = 1",
        "flip = 'yes'",
        "group = 3",
        "seed = -1",
        "skips = 0",
        "skips = 'sparse'",
        "skips = 1.5",
        "bn_stats = 'frozn'",
        "exclusion = ''",
        "cost = 'latency of another kind'",
        "val_fraction = 0.0",
        "precision = 'fp16'",
        "gamma1 = -1",
    ],
)
def test_wrong_types_and_values_out_of_their_limits_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(TAILOR, flags={}, config=config(tmp_path, text))
    assert "--" + text.split(" ")[0].replace("_", "-") in caught.value.message


def test_limits_themselves_are_allowed_and_whole_numbers_may_stand_for_shares() -> None:
    settings = resolve(TAILOR, flags={"epochs": 1, "warmup": 0, "gamma1_warmup": 1, "gamma1": 0, "skips": "1"})
    assert (settings.epochs, settings.warmup, settings.gamma1_warmup, settings.gamma1, settings.skips) == (
        1,
        0,
        1,
        0,
        1,
    )
    assert isinstance(settings.warmup, float)


@pytest.mark.parametrize(("skips", "value"), [("dense", None), ("3", 3), (5, 5), (1000, 1000)])
def test_skips_are_a_number_or_dense(skips: Any, value: int | None) -> None:
    settings = resolve(TAILOR, flags={"skips": skips})
    assert settings.skips == value
    assert to_document(settings, TAILOR)["skips"] == ("dense" if value is None else value)


@pytest.mark.parametrize("stage", STAGES)
def test_the_recorded_settings_are_all_that_the_stage_has(stage: str) -> None:
    document = to_document(resolve(stage, flags={}), stage)
    assert set(document) == set(fields_of(stage))
    assert ("skips" in document) == (stage == TAILOR)
    assert ("gamma2" in document) == (stage != TEACH)
    assert "epochs" in document


@pytest.mark.parametrize(
    ("typed", "number"),
    [("4GB", 4 * 10**9), ("1.5 GiB", 3 * 2**29), ("500MB", 5 * 10**8), ("20k", 20_000), ("7", 7), (9, 9)],
)
@pytest.mark.parametrize("name", ["memory_limit", "cache_limit"])
def test_a_size_in_bytes_is_written_with_its_unit(typed: object, number: int, name: str) -> None:
    assert getattr(resolve("teach", flags={name: typed}), name) == number


@pytest.mark.parametrize("typed", ["lots", "4 bananas", "GB", "-1GB"])
@pytest.mark.parametrize("name", ["memory_limit", "cache_limit"])
def test_what_is_no_size_is_refused(typed: str, name: str) -> None:
    with pytest.raises(UsageError, match="--" + name.replace("_", "-")):
        resolve("teach", flags={name: typed})


def test_a_file_from_before_there_was_a_setting_means_what_was_done_then() -> None:
    assert completed({"epochs": 3}, FINETUNE) == {"epochs": 3, "logits_clip": 0.0}
    assert completed({"logits_clip": 1.0}, TAILOR) == {"logits_clip": 1.0}
    assert completed({"epochs": 3}, TEACH) == {"epochs": 3}
