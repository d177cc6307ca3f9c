"""Whether what a model file says of itself can be true: types, ranges, names. Nothing is made from it before that.

A seal proves that a file is whole, not that somebody sensible made it: digests can be computed again. No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nettailor_cli.core.printable import harmless

MOST_BLOCKS = 256
"""Of a backbone. resnet152 has 50; work on a graph grows with the square of its blocks, and more."""

MOST_PIXELS = 4096
_LONGEST = 1000  # characters of a name
_LARGEST = 2**63 - 1
_NAME = re.compile(r"(timm/)?[a-z0-9_]+\.[a-z0-9_-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SPLITS = ("train", "val", "test")


def check_model_document(document: Mapping[str, Any], stages: tuple[str, ...]) -> None:
    """Raises KeyError, TypeError or ValueError, whose text names the place, unless all values can be.

    What is checked here is what commands read; a file may say more. `stages` are those that there are. Costs, paths
    and preprocessing are checked where they are read: `Graph.from_json`, `Preprocessing.from_json`.
    """
    one_of(document["stage"], "stage", stages)
    text(document["package"], "package")
    backbone = table(document["backbone"], "backbone")
    matching(backbone["name"], "backbone.name", _NAME, "ARCH.TAG")
    fingerprint(backbone["fingerprint"], "backbone.fingerprint")
    graph = table(document["graph"], "graph")
    blocks, paths = rows(graph["blocks"], "graph.blocks"), rows(graph["paths"], "graph.paths")
    if not 1 <= len(blocks) <= MOST_BLOCKS:
        raise ValueError(f"graph.blocks has {len(blocks)} blocks, not 1 to {MOST_BLOCKS}")
    if len(paths) > len(blocks) * (len(blocks) + 3) // 2:
        raise ValueError(f"graph.paths has {len(paths)} paths, more than {len(blocks)} blocks can have")
    _check_classes(document["classes"])
    _check_student(table(document["student"], "student"), len(blocks))
    _check_data(table(document["data"], "data"))
    for stage, settings in table(document["settings"], "settings").items():
        where = f"settings.{harmless(stage)}"
        _check_settings(table(settings, where), where)
    for stage, metrics in table(document["metrics"], "metrics").items():
        where = f"metrics.{harmless(stage)}"
        _check_metrics(table(metrics, where), where)
    for stage, made in table(document.get("environment", {}), "environment").items():
        table(made, f"environment.{harmless(stage)}")


def _check_classes(classes: Any) -> None:
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes must be a list of names")
    if len(set(classes)) < len(classes):
        raise ValueError("classes has a name twice")


def _check_student(student: Mapping[str, Any], blocks: int) -> None:
    if "bn_stats" in student:
        one_of(student["bn_stats"], "student.bn_stats", ("frozen", "adapt"))
    if "bn_affine" in student:
        one_of(student["bn_affine"], "student.bn_affine", ("frozen", "tuned"))
    whole(student, "adapter_rank", "student", 0, 2**16)
    whole(student, "proxy_width", "student", 1, 2**16)
    if not isinstance(student.get("proxy_depthwise", False), bool):
        raise ValueError(f"student.proxy_depthwise is {_shown(student['proxy_depthwise'])}, not true or false")
    whole(student, "shared_prefix", "student", 0, blocks)


def _check_data(data: Mapping[str, Any]) -> None:
    for key in ("name", "digest", "group"):
        if data.get(key) is not None:
            text(data[key], f"data.{key}")
    try:
        re.compile(data.get("group") or "")
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"data.group is no regular expression: {error}") from error
    images = table(data.get("images", {}), "data.images")
    for split in _SPLITS:
        whole(images, split, "data.images", 0)
    whole(data, "split_seed", "data", -_LARGEST)
    whole(data, "fold", "data", 0)
    number(data, "val_fraction", "data", 0, 1)


def _check_settings(settings: Mapping[str, Any], where: str) -> None:
    whole(settings, "seed", where, -_LARGEST)
    whole(settings, "epochs", where, 0)
    whole(settings, "cut", where, 1)
    whole(settings, "latency_batch", where, 1)
    if "latency_table" in settings:
        measured = table(settings["latency_table"], f"{where}.latency_table")
        for key in ("digest", "machine"):
            text(measured[key], f"{where}.latency_table.{key}")
        if settings.get("latency_batch") is None:
            raise ValueError(f"{where} has a latency_table and no latency_batch")


def _check_metrics(metrics: Mapping[str, Any], where: str) -> None:
    text(metrics["split"], f"{where}.split")
    for key in ("accuracy", "loss", "images"):
        if metrics.get(key) is None:
            raise KeyError(f"{where}.{key}")
    number(metrics, "accuracy", where, 0, 100)
    number(metrics, "loss", where, -_LARGEST, _LARGEST)
    whole(metrics, "images", where, 0)
    whole(metrics, "given_up_after_epochs", where, 0)
    number(metrics, "given_up_below", where, 0, 100)


# the kinds of values


def text(value: Any, what: str, longest: int = _LONGEST) -> str:
    """`value`, if it is a text of at most `longest` characters. It and its neighbours raise TypeError or ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a text")
    if len(value) > longest:
        raise ValueError(f"{what} is longer than {longest} characters")
    return value


def one_of(value: Any, what: str, known: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"unknown {what} {_shown(value)}")


def matching(value: Any, what: str, pattern: re.Pattern[str], called: str) -> None:
    if not pattern.fullmatch(text(value, what)):
        raise ValueError(f"{what} is {_shown(value)}, not {called}")


def fingerprint(value: Any, what: str) -> None:
    """A SHA-256 in hex."""
    matching(value, what, _SHA256, "64 hexadecimal digits")


def table(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be an object")
    return value


def rows(value: Any, what: str) -> list[Any]:
    """A list of objects."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise TypeError(f"{what} must be a list of objects")
    return value


def whole(place: Mapping[str, Any], key: str, where: str, low: int, high: int = _LARGEST) -> None:
    """`place[key]`, where there is one and it is not null, is a whole number from `low` to `high`."""
    value = place.get(key)
    if value is not None and not (type(value) is int and low <= value <= high):
        raise ValueError(f"{where}.{key} is {_shown(value)}, not a whole number from {low} to {high}")


def number(place: Mapping[str, Any], key: str, where: str, low: float, high: float) -> None:
    """The same for any number."""
    value = place.get(key)
    if value is not None and not (type(value) in (int, float) and low <= value <= high):
        raise ValueError(f"{where}.{key} is {_shown(value)}, not a number from {low:g} to {high:g}")


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
