from __future__ import annotations

import copy
from typing import Any

import pytest

from nettailor_cli.core.delta import STAGES
from nettailor_cli.core.validation import MOST_BLOCKS, check_model_document
from tests.core.test_delta import document

WRONG: list[tuple[str, Any, str]] = [
    ("stage", "pupil", "unknown stage 'pupil'"),
    ("stage", ["student"], "unknown stage"),
    ("package", 7, "package must be a text"),
    ("backbone.name", "../../x", "not ARCH.TAG"),
    ("backbone.name", "resnet18", "not ARCH.TAG"),
    ("backbone.fingerprint", "../" * 20 + "abcd", "not 64 hexadecimal digits"),
    ("graph.blocks", 10**9, "must be a list"),
    ("graph.blocks", [], "0 blocks, not 1 to"),
    ("graph.blocks", [{"parameters": 1, "macs": 1}] * (MOST_BLOCKS + 1), "257 blocks, not 1 to"),
    ("graph.paths", [{}] * 6, "6 paths, more than 2 blocks can have"),
    ("graph.paths", [[]], "must be a list of objects"),
    ("classes", "cat", "a list of names"),
    ("classes", ["cat", "cat"], "a name twice"),
    ("student.bn_stats", "warm", "unknown student.bn_stats"),
    ("student.proxy_width", 10**9, "not a whole number"),
    ("student.proxy_width", True, "not a whole number"),
    ("student.proxy_depthwise", 1, "student.proxy_depthwise is 1, not true or false"),
    ("student.shared_prefix", 3, "not a whole number from 0 to 2"),
    ("data.images", ["train"], "must be an object"),
    ("data.images", {"train": "many"}, "data.images.train is 'many'"),
    ("data.name", ["x"], "data.name must be a text"),
    ("data.name", "x" * 1001, "longer than 1000"),
    ("data.group", "(", "no regular expression"),
    ("data.group", "x" * 1001, "longer than 1000"),
    ("data.val_fraction", 2, "not a number from 0 to 1"),
    ("data.split_seed", "0", "not a whole number"),
    ("data.fold", -1, "not a whole number"),
    ("settings.tailor", [], "must be an object"),
    ("settings.tailor.seed", [1], "not a whole number"),
    ("settings.tailor.epochs", "3", "not a whole number"),
    ("settings.tailor.latency_table", {"digest": "d", "machine": "m"}, "no latency_batch"),
    ("settings.tailor.latency_table", {"digest": 1}, "must be a text"),
    ("metrics.student", 50, "must be an object"),
    ("metrics.student.accuracy", 101, "not a number from 0 to 100"),
    ("metrics.student.loss", "low", "not a number"),
    ("metrics.student.images", 1.5, "not a whole number"),
    ("metrics.student.loss", None, "metrics.student.loss"),
]


@pytest.mark.parametrize(("place", "value", "reason"), WRONG, ids=[f"{place} {str(v)[:20]}" for place, v, _ in WRONG])
def test_what_can_not_be_is_refused_by_its_place(place: str, value: Any, reason: str) -> None:
    content = copy.deepcopy(document().to_json())
    *above, last = place.split(".")
    table = content
    for key in above:
        table = table[key]
    table[last] = value
    with pytest.raises((KeyError, TypeError, ValueError), match=reason):
        check_model_document(content, STAGES)


def test_what_can_be_is_let_through_whatever_else_is_there() -> None:
    content = document().to_json()
    check_model_document(content, STAGES)
    check_model_document({**content, "more": 1, "settings": {"later": {"unknown": [1]}}}, STAGES)
    content["data"] = {"group": "([a-z]+)_", "val_fraction": 0, "images": {"train": 0}}
    check_model_document(content, STAGES)
