from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest
import tomli_w

from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.search.asked import Asked, Plan, remembered


def kept(asked: Asked) -> dict[str, object]:
    """As run.toml keeps it."""
    return tomllib.loads(tomli_w.dumps({k: v for k, v in asked.to_toml().items() if v is not None}))


def test_what_is_not_typed_is_remembered() -> None:
    first = Asked(tolerance=2.0, max_macs="40%", ranking="alpha", preset="quick", flags={"skips": "dense", "seed": 3})
    assert remembered(Asked(), kept(first)) == replace(first, **vars(first.plan))


def test_the_plan_is_what_was_typed_of_it_and_the_defaults_for_the_rest() -> None:
    assert Asked().plan == Plan("gradual", "loss", 0.05)
    assert Asked(search="sweep", proxy_threshold=0.0).plan == Plan("sweep", "loss", 0.0)


def test_what_is_typed_wins_where_candidates_do_not_depend_on_it() -> None:
    first = Asked(tolerance=2.0, max_macs="40%", flags={"seed": 3})
    again = remembered(Asked(tolerance=1.0, flags={"workers": 1}), kept(first))
    assert again == replace(Asked(tolerance=1.0, max_macs="40%", flags={"seed": 3, "workers": 1}), **vars(Plan()))


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (Asked(ranking="alpha"), Asked(ranking="loss")),
        (Asked(search="sweep"), Asked(search="gradual")),
        (Asked(), Asked(search="sweep")),
        (Asked(), Asked(ranking="alpha")),
        (Asked(folds=3), Asked(folds=2)),
        (Asked(proxy_threshold=0.1), Asked(proxy_threshold=0.2)),
    ],
)
def test_another_search_is_refused(first: Asked, again: Asked) -> None:
    remembered(first, kept(first))
    with pytest.raises(UsageError, match="was started with --"):
        remembered(again, kept(first))


def test_an_aim_is_remembered_until_another_is_typed_or_a_budget_leaves_it_nothing_to_do() -> None:
    first = kept(Asked(aim="student"))
    assert remembered(Asked(), first).aims_at == "student"
    assert remembered(Asked(aim="teacher"), first).aims_at == "teacher"
    assert remembered(Asked(max_macs="40%"), first).aim is None
    assert remembered(Asked(max_macs="40%", tolerance=1.0), first).aims_at == "student"
    # the tolerance that it needs may be the remembered one
    both = remembered(Asked(aim="student"), kept(Asked(tolerance=1.0, max_macs="40%")))
    both.check_aim()
    assert (both.aims_at, both.accuracy_matters) == ("student", 1.0)


def test_an_aim_without_a_tolerance_is_refused() -> None:
    with pytest.raises(UsageError, match="--aim has no effect"):
        Asked(aim="student", max_macs="40%").check_aim()
    Asked(max_macs="40%").check_aim()
    Asked(aim="student").check_aim()


def test_the_default_tolerance_holds_where_nothing_else_was_asked_for() -> None:
    assert Asked().accuracy_matters == 0.5
    assert Asked(max_bytes="8MB").accuracy_matters is None
    assert Asked(max_bytes="8MB", tolerance=0.0).accuracy_matters == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"search": "sweeep"},
        {"ranking": "alfa"},
        {"max_macs": "12ms"},
        {"max_latency": "3M"},
        {"aim": "taecher"},
    ],
)
def test_what_makes_no_sense(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        Asked(**wrong)
