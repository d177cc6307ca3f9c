"""Recipes for the training stages, and which value a setting gets.

Flags win over the config file, the file over the preset, the preset over what the run's earlier stages were given
(about data and objective only), and that over the defaults, which are the recommended recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nettailor_cli.core.config_file import read_config
from nettailor_cli.core.errors import UsageError, did_you_mean
from nettailor_cli.core.settings import (
    CARRIED,
    FIELDS,
    FINETUNE,
    LOGITS,
    TAILOR,
    TEACH,
    Settings,
    checked,
    fields_of,
)

# PAPER.md, "Published settings" (those of Flowers; there "resized crop" is torchvision's, from 8 % of the picture on)
_PUBLISHED = {"schedule": "step", "step_epochs": 20, "warmup": 0.0, "augment": "resized-crop", "min_crop": 0.08}

QUICK = "quick"
"""For a first look: a thousand pictures in minutes. Its `fit` does not cross-validate unless it is told to."""

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "standard": {
        TEACH: {"epochs": 16, "min_steps": 300, "batch_size": 64},
        TAILOR: {"epochs": 10, "min_steps": 300},
        FINETUNE: {"epochs": 28, "min_steps": 600, "hint_weights": LOGITS},
    },
    QUICK: {
        TEACH: {"epochs": 6},
        TAILOR: {"epochs": 5},
        FINETUNE: {"epochs": 8},
    },
    "paper": {
        TEACH: {**_PUBLISHED, "epochs": 50, "batch_size": 64, "lr": 0.01},
        TAILOR: {
            **_PUBLISHED, "epochs": 50, "batch_size": 32, "lr": 0.1, "logits_lr": 0.1, "logits_clip": 0.0,
            "bn_stats": "adapt", "hint": "block-local", "exclusion": "published", "gamma1": 0.3, "gamma1_warmup": 0.0,
            "gamma2": 10.0,
        },
        FINETUNE: {
            **_PUBLISHED, "epochs": 60, "batch_size": 32, "lr": 0.01, "logits_lr": 0.01, "logits_clip": 0.0,
            "hint": "block-local", "gamma2": 10.0, "hint_weights": "equal",
        },
    },
}  # fmt: skip


def default_of(name: str, stage: str) -> Any:
    """Of the setting `name` of `stage`, where nobody said anything."""
    return PRESETS["standard"][stage].get(name, FIELDS[name].default)


def resolve(
    stage: str,
    *,
    flags: Mapping[str, Any],
    config: Path | None = None,
    preset: str | None = None,
    carried: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of `stage`: `flags` are what was typed (None: not), `carried` what the run's earlier stage had.

    Raises UsageError for an unknown preset or config key, a wrong type, or a value out of its limits.
    """
    if preset is not None and preset not in PRESETS:
        raise UsageError(
            f"no preset is called {preset!r}", did_you_mean(preset, PRESETS) or "choose " + ", ".join(PRESETS)
        )
    values: dict[str, Any] = dict(PRESETS["standard"][stage])
    values.update({name: value for name, value in (carried or {}).items() if name in CARRIED})
    typed = {name: value for name, value in flags.items() if value is not None}
    for layer in (PRESETS[preset][stage] if preset else {}, read_config(config, stage) if config else {}, typed):
        if "epochs" in layer:  # so many are meant
            values["min_steps"] = 0
        values.update(layer)
    known = fields_of(stage)
    return Settings(**{name: checked(name, value) for name, value in values.items() if name in known})
