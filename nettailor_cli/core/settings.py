"""Every setting of the training stages: its default, its limits, its help, and which stages have it.

Which value one of them gets is in presets.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nettailor_cli.core.budgets import BYTES
from nettailor_cli.core.errors import UsageError, did_you_mean

TEACH, TAILOR, FINETUNE = "teach", "tailor", "finetune"
STAGES = (TEACH, TAILOR, FINETUNE)
STUDENT = (TAILOR, FINETUNE)
ABSOLUTE, RELATIVE = "absolute", "relative"
LOGITS = "logits"
MEMORY_LIMIT = 4 * 10**9
CACHE_LIMIT = 20 * 10**9
ABSENT = {"logits_clip": 0.0}
"""What files mean that were written before there was such a setting."""
SIZES = ("cache_limit", "memory_limit")
"""Settings in bytes, which may be written with a unit."""


def _setting(
    default: Any,
    text: str,
    *,
    panel: str,
    stages: tuple[str, ...] = STAGES,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    carried: bool = False,
) -> Any:
    """A field of Settings, under the heading `panel` of --help. `low` and `high` are allowed themselves.

    `carried` ones pass on to a run's later stages.
    """
    meta = {
        "help": text,
        "panel": panel,
        "stages": stages,
        "low": low,
        "high": high,
        "choices": choices,
        "carried": carried,
    }
    return dataclasses.field(default=default, metadata=meta)


@dataclass(frozen=True)
class Settings:
    """What one stage of training is to do. Shares are in [0, 1], learning rates per step, sizes in pixels."""

    # the optimiser
    epochs: int = _setting(16, "passes over the training images", low=1, high=100_000, panel="Training")
    min_steps: int = _setting(
        0,
        "at least so many steps: more epochs where pictures are few; --epochs does without",
        low=0,
        high=10**9,
        panel="Training",
    )
    batch_size: int = _setting(32, "images per step", low=1, high=65_536, panel="Training")
    accumulate: int = _setting(
        1,
        "work a batch off in so many parts, for less memory; batch norm sees one part at a time",
        low=1,
        high=65_536,
        panel="Running",
    )
    lr: float = _setting(0.02, "learning rate at its peak", low=1e-9, high=100, panel="Training")
    schedule: str = _setting(
        "cosine",
        "how the learning rate falls: cosine, or x0.1 every --step-epochs",
        choices=("cosine", "step"),
        panel="Training",
    )
    step_epochs: int = _setting(
        20, "with --schedule step: epochs between two falls", low=1, high=100_000, panel="Training"
    )
    warmup: float = _setting(
        0.1, "share of the steps in which the learning rate rises from 0", low=0, high=0.9, panel="Training"
    )
    momentum: float = _setting(0.9, "SGD's momentum", low=0, high=0.9999, panel="Training")
    weight_decay: float = _setting(
        5e-4, "SGD's weight decay (attention logits have none)", low=0, high=1, panel="Training"
    )
    label_smoothing: float = _setting(
        0.0, "share of the target spread over all classes", low=0, high=0.9, panel="Training"
    )
    patience: int = _setting(
        0,
        "stop after so many epochs without a better val accuracy and keep the best; 0 is never",
        low=0,
        high=100_000,
        panel="Training",
    )
    # the data
    augment: str = _setting(
        "resized-crop",
        "training pictures: random resized crop, random crop, or none",
        choices=("resized-crop", "crop", "none"),
        carried=True,
        panel="Data",
    )
    min_crop: float = _setting(
        0.35,
        "smallest share of the picture that a random resized crop keeps",
        low=0.01,
        high=1,
        carried=True,
        panel="Data",
    )
    flip: bool = _setting(
        True, "mirror training pictures at random (not for text, digits or signs)", carried=True, panel="Data"
    )
    jitter: float = _setting(
        0.0, "random change of brightness, contrast and saturation", low=0, high=0.9, carried=True, panel="Data"
    )
    val_fraction: float = _setting(
        0.2,
        "share of train that becomes val where there is no val folder",
        low=0.01,
        high=0.9,
        carried=True,
        panel="Data",
    )
    fold: int = _setting(
        0,
        "for cross-validation: which part of that size becomes val; above 0 a val folder is put to train first",
        low=0,
        high=99,
        carried=True,
        panel="Data",
    )
    group: str | None = _setting(
        None,
        "regular expression over CLASS/FILE; what shares its match stays on one side of the split",
        carried=True,
        panel="Data",
    )
    skip_bad_images: bool = _setting(False, "leave broken pictures out instead of stopping", carried=True, panel="Data")
    seed: int = _setting(
        0, "seed of split, start values, order and augmentation", low=0, high=2**31 - 1, carried=True, panel="Data"
    )
    # the teacher
    freeze: bool = _setting(
        False, "train the classifier alone, on the backbone's features as they are", stages=(TEACH,), panel="Teacher"
    )
    cut: int | None = _setting(
        None,
        "only the backbone's first so many blocks, with the classifier behind the last of them",
        stages=(TEACH,),
        low=1,
        high=1000,
        panel="Teacher",
    )
    # the student
    skips: int | None = _setting(
        3, "how many nodes back proxies reach: a number, or dense", stages=(TAILOR,), low=1, high=1000, panel="Student"
    )
    proxy_width: int | None = _setting(
        None,
        "channels inside the proxies; those of ResNet-18 and 34 have one layer without it",
        stages=(TAILOR,),
        low=1,
        high=65_536,
        panel="Student",
    )
    proxy_depthwise: bool = _setting(
        False,
        "a depthwise 3x3 convolution in proxies, before their last 1x1: they see their neighbours",
        stages=(TAILOR,),
        panel="Student",
    )
    proxy_start: str = _setting(
        "normal",
        "how proxies start: normal (at random), or average: they pass channels on, or means or copies of them; no "
        "matter where the block's input bypasses them",
        stages=(TAILOR,),
        choices=("normal", "average"),
        panel="Student",
    )
    logits_lead: float = _setting(
        4.0,
        "by how much the attention logits of the backbone's blocks start above the proxies'",
        stages=(TAILOR,),
        low=-20,
        high=20,
        panel="Student",
    )
    shared_prefix: int = _setting(
        0,
        "keep the first so many blocks alone: no proxies beside them, never pruned; several tasks can share them",
        stages=(TAILOR,),
        low=0,
        high=1000,
        panel="Student",
    )
    bn_stats: str = _setting(
        "frozen",
        "the backbone's batch-norm statistics: frozen, or adapted to the task",
        stages=(TAILOR,),
        choices=("frozen", "adapt"),
        panel="Student",
    )
    bn_affine: str = _setting(
        "frozen",
        "scales and shifts of the batch norms in the backbone's blocks: frozen, or tuned for the task",
        stages=(TAILOR,),
        choices=("frozen", "tuned"),
        panel="Student",
    )
    adapter_rank: int = _setting(
        0,
        "channels inside adapters, pairs of 1x1 convolutions beside those of the backbone's blocks; 0 is none",
        stages=(TAILOR,),
        low=0,
        high=65_536,
        panel="Student",
    )
    # the objective
    cost: str = _setting(
        "macs", "what E[C] counts", stages=(TAILOR,), choices=("macs", "params", "latency"), panel="Objective"
    )
    latency_batch: int = _setting(
        1,
        "with --cost latency: images at a time, one of the table's batch sizes",
        stages=(TAILOR,),
        low=1,
        high=65_536,
        panel="Objective",
    )
    exclusion: str = _setting(
        "published",
        "how E[C] combines excluded paths: as published (Eq. 9) or under independence",
        stages=(TAILOR,),
        choices=("published", "independence"),
        panel="Objective",
    )
    gamma1: float = _setting(
        3.0, "weight of the expected complexity E[C]", stages=(TAILOR,), low=0, high=1e6, panel="Objective"
    )
    gamma1_warmup: float = _setting(
        0.3, "share of the steps in which gamma1 rises from 0", stages=(TAILOR,), low=0, high=1, panel="Objective"
    )
    gamma2: float = _setting(
        10.0, "weight of the teacher's hint", stages=STUDENT, low=0, high=1e6, carried=True, panel="Objective"
    )
    hint: str = _setting(
        "end-to-end",
        "gradients of the hint: through the whole student, or each block's own",
        stages=STUDENT,
        choices=("end-to-end", "block-local"),
        carried=True,
        panel="Objective",
    )
    hint_scale: str = _setting(
        "auto",
        "errors of the hint's nodes: absolute as published, or relative to the teacher's mean square; auto: absolute "
        "for ResNets",
        stages=STUDENT,
        choices=("auto", ABSOLUTE, RELATIVE),
        carried=True,
        panel="Objective",
    )
    hint_weights: str = _setting(
        "equal",
        "what counts in the hint beside the logits: nodes equally, rising with their number, or not (logits)",
        stages=STUDENT,
        choices=("equal", "rising", LOGITS),
        panel="Objective",
    )
    entropy: float = _setting(
        0.0,
        "weight of the attention's entropy, rising from 0 over all steps: alphas go towards 0 and 1",
        stages=(TAILOR,),
        low=0,
        high=1e6,
        panel="Objective",
    )
    logits_lr: float = _setting(
        0.1, "learning rate of the attention logits at its peak", stages=STUDENT, low=0, high=100, panel="Objective"
    )
    logits_clip: float = _setting(
        1.0,
        "gradients of the attention logits are shortened to this length: those of a large hint would throw alphas to 0 "
        "and 1; 0 is any length",
        stages=STUDENT,
        low=0,
        high=1e6,
        panel="Objective",
    )
    # the machine
    device: str = _setting("auto", "auto, cpu, cuda or mps", panel="Running")
    precision: str = _setting(
        "auto", "arithmetic of the training step", choices=("auto", "fp32", "bf16"), panel="Running"
    )
    compile: bool = _setting(
        False, "torch.compile the networks of a step: minutes at the start, faster steps after", panel="Running"
    )
    workers: int = _setting(0, "threads that decode pictures; 0 is one per core", low=0, high=1024, panel="Running")
    cache_limit: int = _setting(
        CACHE_LIMIT,
        "size of the cache of decoded pictures, in $NETTAILOR_HOME/cache; 0 is no cache",
        low=0,
        high=2**62,
        panel="Running",
    )
    memory_limit: int = _setting(
        MEMORY_LIMIT,
        "without the cache: how much of decoded pictures to keep in memory at most",
        low=0,
        high=2**62,
        panel="Running",
    )


FIELDS: dict[str, dataclasses.Field[Any]] = {field.name: field for field in dataclasses.fields(Settings)}
SHARED = tuple(name for name, field in FIELDS.items() if field.metadata["panel"] not in ("Training", "Teacher"))
"""The settings that a command for several stages can have: not how each is to learn, nor what makes a baseline."""
CARRIED = tuple(name for name, field in FIELDS.items() if field.metadata["carried"])


def fields_of(stage: str) -> tuple[str, ...]:
    """The names of the settings that `stage` has."""
    return tuple(name for name, field in FIELDS.items() if stage in field.metadata["stages"])


def lengthened(settings: Settings, images: int) -> Settings:
    """`settings` with as many epochs over `images` pictures as `min_steps` asks for: never fewer than there were."""
    steps = math.ceil(images / settings.batch_size)
    return dataclasses.replace(settings, epochs=max(settings.epochs, math.ceil(settings.min_steps / max(1, steps))))


def checked(name: str, value: Any) -> Any:
    """`value` in the type of the setting `name`. Raises UsageError when it does not fit."""
    field, flag = FIELDS[name], flag_of(name)
    kind, meta = str(field.type), field.metadata
    optional = "None" in kind
    if name == "skips" and value == "dense":
        return None
    if name in SIZES:
        value = _bytes_of(value)
    if value is None:
        if optional:
            return None
        raise UsageError(f"{flag} needs a value")
    if kind.startswith("bool"):
        if not isinstance(value, bool):
            raise UsageError(f"{flag} is true or false, not {value!r}")
        return value
    if kind.startswith("str"):
        if not isinstance(value, str):
            raise UsageError(f"{flag} is a word, not {value!r}")
        if meta["choices"] and value not in meta["choices"]:
            raise UsageError(
                f"{flag} {value} is unknown",
                did_you_mean(value, meta["choices"]) or "choose " + ", ".join(meta["choices"]),
            )
        return value
    number = int if kind.startswith("int") else float
    try:
        if isinstance(value, bool) or (number is int and isinstance(value, float) and value != int(value)):
            raise ValueError
        converted = number(value)
    except (TypeError, ValueError, OverflowError) as error:
        what = "a whole number" if number is int else "a number"
        raise UsageError(f"{flag} is {what}{', or dense' if name == 'skips' else ''}, not {value!r}") from error
    low, high = meta["low"], meta["high"]
    if not low <= converted <= high:
        raise UsageError(f"{flag} {converted:g} is not between {low:g} and {high:g}")
    return converted


def _bytes_of(value: Any) -> Any:
    """Bytes of "4GB" or "500 MB". Anything else comes back as it is."""
    amount = BYTES.amount(value) if isinstance(value, str) else None
    return value if amount is None else round(amount)


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def completed(recorded: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The settings of `stage` as a file has them, with those that it is too old to know."""
    return {**{name: value for name, value in ABSENT.items() if name in fields_of(stage)}, **recorded}


def to_document(settings: Settings, stage: str) -> dict[str, Any]:
    """The settings that `stage` has, for run.toml and the model file; "dense" skips in words."""
    document = {name: getattr(settings, name) for name in fields_of(stage)}
    if "skips" in document and document["skips"] is None:
        document["skips"] = "dense"
    return document
