from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.presets import PRESETS, resolve
from nettailor_cli.core.settings import FINETUNE, STAGES, TAILOR, TEACH, Settings, to_document
from tests.core.configs import config


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


def test_epochs_that_are_asked_for_are_meant(tmp_path: Path) -> None:
    assert resolve(TAILOR, flags={}).min_steps > 0
    assert resolve(TAILOR, flags={"epochs": 3}).min_steps == 0
    assert resolve(TAILOR, flags={}, config=config(tmp_path, "epochs = 3\n")).min_steps == 0
    assert resolve(TAILOR, flags={}, preset="quick").min_steps == 0
    assert resolve(TAILOR, flags={"min_steps": 5}, config=config(tmp_path, "epochs = 3\n")).min_steps == 5
    assert resolve(TAILOR, flags={"epochs": 3, "min_steps": 5}).min_steps == 5


def test_an_unknown_preset_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(TEACH, flags={}, preset="quik")
    assert "quick" in caught.value.hint


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
    assert tailor.logits_clip == finetune.logits_clip == 0.0, "nothing of the kind is published"
    assert (tailor.gamma1, tailor.gamma1_warmup, tailor.gamma2) == (0.3, 0.0, 10.0)
    assert (tailor.skips, tailor.exclusion, tailor.bn_stats, tailor.hint) == (3, "published", "adapt", "block-local")
    assert (finetune.gamma2, finetune.hint) == (10.0, "block-local")
    assert tailor.hint_weights == finetune.hint_weights == "equal"


def test_the_defaults_are_within_their_own_limits() -> None:
    for stage in STAGES:
        for preset in (None, "standard", "quick", "paper"):
            settings = resolve(stage, flags={}, preset=preset)
            assert resolve(stage, flags=to_document(settings, stage)) == settings
