from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.run import RunDirectory
from nettailor_cli.core.settings import (
    FINETUNE,
    PRESETS,
    STAGES,
    TAILOR,
    TEACH,
    Settings,
    fields_of,
    lengthened,
    resolve,
    to_document,
)


def config(tmp_path: Path, text: str) -> Path:
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    return tmp_path / "config.toml"


def test_flags_win_over_config_over_preset_over_carried_over_defaults(tmp_path: Path) -> None:
    file = config(tmp_path, "gamma2 = 4.0\n")
    layers: list[dict[str, Any]] = [
        {"flags": {"gamma2": 5.0}},
        {"config": file},
        {"preset": "paper"},
        {"carried": {"gamma2": 2.0}},
    ]
    expected = [5.0, 4.0, 10.0, 2.0]
    for first in range(4):
        given: dict[str, Any] = {"flags": {}}
        for layer in layers[first:]:
            given.update(layer)
        assert resolve(TAILOR, **given).gamma2 == expected[first]
    assert resolve(TAILOR, flags={}).gamma2 == Settings().gamma2


def test_each_layer_touches_only_what_it_names(tmp_path: Path) -> None:
    settings = resolve(
        TAILOR,
        flags={"momentum": 0.5, "epochs": None},
        config=config(tmp_path, "batch_size = 8\n"),
        preset="quick",
        carried={"seed": 3, "lr": 77.0},
    )
    assert (settings.momentum, settings.batch_size, settings.seed) == (0.5, 8, 3)
    assert settings.epochs == PRESETS["quick"][TAILOR]["epochs"] < resolve(TAILOR, flags={}).epochs
    assert settings.lr == Settings().lr, "learning rates are not carried from stage to stage"


def test_finetune_takes_the_logits_alone_for_a_hint_whatever_the_student_was_tailored_with() -> None:
    assert resolve(TAILOR, flags={}).hint_weights == "equal"
    assert resolve(FINETUNE, flags={}, carried={"hint_weights": "rising"}).hint_weights == "logits"
    assert resolve(FINETUNE, flags={}, preset="quick").hint_weights == "logits"
    assert resolve(FINETUNE, flags={"hint_weights": "rising"}).hint_weights == "rising"


@pytest.mark.parametrize(
    ("images", "epochs"),
    [(3200, 16), (1200, 16), (1184, 16), (1152, 17), (320, 60), (64, 300), (3, 300)],  # 50, 19, 19, 18, 5, 1, 1 steps
)
def test_few_pictures_are_gone_through_more_often_for_as_many_steps(images: int, epochs: int) -> None:
    standard = replace(resolve(TEACH, flags={}), epochs=16, batch_size=64, min_steps=300)
    assert lengthened(standard, images).epochs == epochs
    assert lengthened(lengthened(standard, images), images).epochs == epochs


def test_epochs_that_are_asked_for_are_meant(tmp_path: Path) -> None:
    assert resolve(TAILOR, flags={}).min_steps > 0
    assert resolve(TAILOR, flags={"epochs": 3}).min_steps == 0
    assert resolve(TAILOR, flags={}, config=config(tmp_path, "epochs = 3\n")).min_steps == 0
    assert resolve(TAILOR, flags={}, preset="quick").min_steps == 0
    assert resolve(TAILOR, flags={"min_steps": 5}, config=config(tmp_path, "epochs = 3\n")).min_steps == 5
    assert resolve(TAILOR, flags={"epochs": 3, "min_steps": 5}).min_steps == 5


def test_a_stages_table_wins_over_the_top_of_the_config(tmp_path: Path) -> None:
    file = config(tmp_path, "epochs = 3\nlr = 0.5\n[tailor]\nepochs = 4\nskips = 'dense'\n[teach]\nepochs = 5\n")
    assert [resolve(stage, flags={}, config=file).epochs for stage in (TEACH, TAILOR, FINETUNE)] == [5, 4, 3]
    assert {resolve(stage, flags={}, config=file).lr for stage in STAGES} == {0.5}
    assert resolve(TAILOR, flags={}, config=file).skips is None


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ephocs = 3", "epochs"),
        ("[tailor]\ngama1 = 3", "gamma1"),
        ("[tailr]\nepochs = 3", "tailor"),
        ("[teach]\nskips = 3", ""),
        ("something_else_altogether = 3", ""),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(UsageError, match="unknown key") as caught:
        resolve(FINETUNE, flags={}, config=config(tmp_path, text))
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


def test_an_unknown_preset_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(TEACH, flags={}, preset="quik")
    assert "quick" in caught.value.hint


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


@pytest.mark.parametrize("text", ["epochs = ", "[tailor", "\xff"])
def test_a_config_that_is_not_toml_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="not TOML"):
        resolve(TEACH, flags={}, config=tmp_path / "config.toml")


def test_a_config_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.toml"):
        with pytest.raises(UsageError, match="can't read"):
            resolve(TEACH, flags={}, config=path)


ODD: dict[str, dict[str, Any]] = {
    TEACH: {"epochs": 7, "lr": 1e-5, "group": 'a\\d+"\n', "augment": "crop", "flip": False},
    TAILOR: {"skips": "dense", "proxy_width": 12, "gamma1": 0.1 + 0.2, "exclusion": "independence", "seed": 2**31 - 1},
    FINETUNE: {"epochs": 9, "hint": "block-local", "memory_limit": 10**12, "cache_limit": 0, "patience": 4},
}


def test_a_run_toml_as_written_is_a_config(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.record(
        {"run": {"backbone": "resnet18.x", "data": "/d", "preprocessing": {"size": 96, "mean": [0.5, 0.5, 0.5]}}}
    )
    written = {stage: resolve(stage, flags=flags) for stage, flags in ODD.items()}
    for stage, settings in written.items():
        run.record({stage: to_document(settings, stage)})
    assert set(tomllib.loads(run.toml.read_text())) == {"run", *STAGES}
    for stage, settings in written.items():
        assert resolve(stage, flags={}, config=run.toml) == settings


@pytest.mark.parametrize("stage", STAGES)
def test_the_recorded_settings_are_all_that_the_stage_has(stage: str) -> None:
    document = to_document(resolve(stage, flags={}), stage)
    assert set(document) == set(fields_of(stage))
    assert ("skips" in document) == (stage == TAILOR)
    assert ("gamma2" in document) == (stage != TEACH)
    assert "epochs" in document


def test_the_paper_preset_has_the_published_settings() -> None:
    """PAPER.md, "Published settings", those of Flowers."""
    teach, tailor, finetune = (resolve(stage, flags={}, preset="paper") for stage in (TEACH, TAILOR, FINETUNE))
    assert (teach.epochs, teach.batch_size, teach.lr) == (50, 64, 0.01)
    assert (tailor.epochs, tailor.batch_size, tailor.lr, tailor.logits_lr) == (50, 32, 0.1, 0.1)
    assert (finetune.epochs, finetune.batch_size, finetune.lr, finetune.logits_lr) == (60, 32, 0.01, 0.01)
    for settings in (teach, tailor, finetune):
        assert (settings.momentum, settings.weight_decay) == (0.9, 5e-4)
        assert (settings.schedule, settings.step_epochs, settings.warmup) == ("step", 20, 0.0)
        assert (settings.augment, settings.flip, settings.jitter) == ("resized-crop", True, 0.0)
        assert settings.label_smoothing == 0
    assert (tailor.gamma1, tailor.gamma1_warmup, tailor.gamma2) == (0.3, 0.0, 10.0)
    assert (tailor.skips, tailor.exclusion, tailor.bn_stats, tailor.hint) == (3, "published", "adapt", "block-local")
    assert (finetune.gamma2, finetune.hint) == (10.0, "block-local")
    assert tailor.hint_weights == finetune.hint_weights == "equal"


def test_the_defaults_are_within_their_own_limits() -> None:
    for stage in STAGES:
        for preset in (None, "standard", "quick", "paper"):
            settings = resolve(stage, flags={}, preset=preset)
            assert resolve(stage, flags=to_document(settings, stage)) == settings


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
