from __future__ import annotations

import json
import tracemalloc

import pytest

from nettailor_cli.core.strict import LARGEST_JSON, LARGEST_TOML, parse_json, parse_toml


@pytest.mark.parametrize(
    "content",
    [None, True, "x", "\ud800", 0, -(2**63), 2**64, 5e-324, 0.1, [], {}, {"a": [1, {"b": [None]}]}, [[]] * 1000],
)
def test_what_we_write_is_read(content: object) -> None:
    assert parse_json(json.dumps(content)) == content
    assert parse_json(json.dumps(content).encode()) == content


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ""),
        ("{", ""),
        ("NaN", "not a finite"),
        ("-Infinity", "not a finite"),
        ("1e999", "not a finite"),
        ("9" * 21, "too large"),
        ("9" * 100_000, "too large"),
        ('{"a": 1, "b": 2, "a": 1}', "'a' stands twice"),
        ('{"a": {"b": 1, "b": 2}}', "'b' stands twice"),
        ("[" * 33 + "]" * 33, "too deeply"),
        ("[" * 10**6, "too large"),
        ("[" * 90_000 + "]" * 90_000, "too deeply"),
        ('{"a":' * 90_000, "too deeply"),
        ("[" + "{}," * 200_000 + "{}]", "too large"),
    ],
    ids=lambda text: text[:12],
)
def test_what_we_never_write_is_refused(text: str, reason: str) -> None:
    for given in (text, text.encode()):
        with pytest.raises(ValueError, match=reason):
            parse_json(given)


def test_nesting_as_deep_as_is_allowed() -> None:
    assert parse_json("[" * 32 + "]" * 32)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError):
        parse_json(b'"\xff"')
    with pytest.raises(ValueError):
        parse_toml(b'a = "\xff"')


def test_a_text_takes_no_more_memory_than_it_may() -> None:
    """The worst that is let through: small tables, as many as the length allows."""
    text = "[" + ",".join('{"": "' + "x" * 30 + '"}' for _ in range(200_000)) + "]"
    tracemalloc.start()
    try:
        parse_json(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(text)


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(ValueError, match="too large"):
        parse_json(b" " * (LARGEST_JSON + 1))
    with pytest.raises(ValueError, match="too large"):
        parse_toml("#" * (LARGEST_TOML + 1))


def test_toml() -> None:
    assert parse_toml('a = 1\n[b]\nc = ["x"]\n') == {"a": 1, "b": {"c": ["x"]}}
    for text in ("a", "a = 1\na = 2", "a = " + "[" * 5000, "a = " + "9" * 5000, ".".join("a" * 100) + " = 1"):
        with pytest.raises(ValueError):
            parse_toml(text)
