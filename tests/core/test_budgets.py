from __future__ import annotations

import math

import pytest

from nettailor_cli.core.budgets import BYTES, COUNT, SECONDS, Kind, parse_budget
from nettailor_cli.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("900M", COUNT, 900_000_000),
        ("0.9G", COUNT, 900_000_000),
        (" 1.5 k ", COUNT, 1500),
        ("18K", COUNT, 18_000),
        ("1814073344", COUNT, 1_814_073_344),
        ("1.8e9", COUNT, 1_800_000_000),
        (".5T", COUNT, 500_000_000_000),
        ("12ms", SECONDS, 0.012),
        ("0.5 s", SECONDS, 0.5),
        ("800us", SECONDS, 0.0008),
        ("8MB", BYTES, 8_000_000),
        ("8MiB", BYTES, 8 * 1024 * 1024),
        ("512KiB", BYTES, 524_288),
        ("4G", BYTES, 4_000_000_000),
        ("100B", BYTES, 100),
        ("100", BYTES, 100),
    ],
)
def test_an_amount_is_the_same_whatever_the_backbone_has(text: str, kind: Kind, amount: float) -> None:
    budget = parse_budget(text, kind, "--max")
    assert not budget.relative and budget.text == text.strip()
    for backbone in (1.0, 1e12):
        assert budget.limit(backbone) == pytest.approx(amount, rel=1e-12)


@pytest.mark.parametrize("kind", [COUNT, SECONDS, BYTES])
@pytest.mark.parametrize(("text", "share"), [("40%", 0.4), ("12.5 %", 0.125), ("110%", 1.1)])
def test_a_percentage_is_of_the_backbone(kind: Kind, text: str, share: float) -> None:
    budget = parse_budget(text, kind, "--max")
    assert budget.relative and budget.limit(2000.0) == pytest.approx(2000 * share)


def test_what_is_just_at_the_limit_is_allowed() -> None:
    assert parse_budget("900M", COUNT, "--max").allows(900_000_000, 1)
    assert not parse_budget("900M", COUNT, "--max").allows(900_000_001, 10**12)
    assert parse_budget("50%", COUNT, "--max").allows(50, 100)
    assert not parse_budget("50%", COUNT, "--max").allows(51, 100)
    assert not parse_budget("50%", COUNT, "--max").allows(math.nan, 100)


@pytest.mark.parametrize("kind", [COUNT, SECONDS, BYTES])
@pytest.mark.parametrize(
    "text",
    ["", "M", "lots", "0", "0%", "-1M", "-5%", "nan", "inf", "inf%", "1e999", "1e999%", "1,5M", "1 2", "%", "4X"],
)
def test_what_is_no_budget_is_refused_with_an_example(text: str, kind: Kind) -> None:
    with pytest.raises(UsageError, match="--max-it") as raised:
        parse_budget(text, kind, "--max-it")
    assert "40%" in raised.value.message and kind.examples in raised.value.message


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("900m", COUNT),  # milli? never guessed
        ("12ms", COUNT),
        ("8MB", COUNT),
        ("12", SECONDS),  # seconds or milliseconds?
        ("900M", SECONDS),
        ("12ms", BYTES),
        ("8iB", BYTES),
    ],
)
def test_another_kinds_unit_is_refused(text: str, kind: Kind) -> None:
    with pytest.raises(UsageError):
        parse_budget(text, kind, "--max")
