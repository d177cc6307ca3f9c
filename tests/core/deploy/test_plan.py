"""Plans as data."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nettailor_cli.core.deploy.plan import Plan, Step, needed

STEPS = (
    Step("conv", ("image",), "a", weight="a_weight", bias="a_bias", stride=2, padding=3, relu=True),
    Step("max_pool", ("a",), "b", kernel=3, stride=2, padding=1),
    Step("add", ("b", "b"), "c", relu=True),
    Step("mean", ("c",), "d"),
    Step("linear", ("d",), "logits", weight="w", bias="b"),
)
TENSORS = {"a_weight", "a_bias", "w", "b"}


def test_json_and_back() -> None:
    documents = json.loads(json.dumps([step.to_json() for step in STEPS]))
    assert tuple(Step.from_json(document) for document in documents) == STEPS
    assert documents[3] == {"op": "mean", "inputs": ["c"], "output": "d"}


@pytest.mark.parametrize(
    "change",
    [{"stride": "2"}, {"relu": 1}, {"inputs": None}, {"unknown": 1}, {"op": 3}],
    ids=str,
)
def test_refuses_json_of_another_kind(change: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Step.from_json({**STEPS[0].to_json(), **change})


def test_a_good_plan() -> None:
    Plan(STEPS).check(TENSORS)


@pytest.mark.parametrize(
    ("steps", "tensors"),
    [
        (STEPS, TENSORS - {"w"}),
        (STEPS, TENSORS | {"more"}),
        (STEPS[:-1], {"a_weight", "a_bias"}),
        (STEPS[1:], {"w", "b"}),
        ((STEPS[0], STEPS[0], *STEPS[1:]), TENSORS),
        ((*STEPS[:3], replace(STEPS[3], op="median"), STEPS[4]), TENSORS),
        ((replace(STEPS[0], bias=""), *STEPS[1:]), TENSORS - {"a_bias"}),
        ((*STEPS[:2], replace(STEPS[2], inputs=()), *STEPS[3:]), TENSORS),
    ],
    ids=["tensor missing", "tensor unused", "no logits", "input missing", "twice", "unknown", "no bias", "no input"],
)
def test_refuses_what_could_not_run(steps: tuple[Step, ...], tensors: set[str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Plan(steps).check(tensors)


def test_what_nothing_reads_is_not_needed() -> None:
    dead = (Step("mean", ("a",), "x"), Step("add", ("x", "x"), "y"))
    assert needed((*STEPS[:1], *dead, *STEPS[1:])) == STEPS


def test_the_last_reader_of_each_value() -> None:
    assert Plan(STEPS).last_reader == {"image": 0, "a": 1, "b": 2, "c": 3, "d": 4}
