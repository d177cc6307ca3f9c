from __future__ import annotations

import time
from pathlib import Path

import pytest

from nettailor_cli.core.data import grouping
from nettailor_cli.core.data.dataset import Example
from nettailor_cli.core.data.grouping import group_keys
from nettailor_cli.core.errors import UsageError


def examples(*names: str) -> list[Example]:
    return [Example(Path(name), name, 0) for name in names]


def test_the_key_is_the_first_capture_group_or_the_whole_match() -> None:
    named = examples("a/t1_x.jpg", "a/t2_y.jpg", "b/t1_z.jpg")
    assert group_keys(named, r"t\d") == ["t1", "t2", "t1"]
    assert group_keys(named, r"t(\d)_(.)") == ["1", "2", "1"]


def test_names_in_any_script_and_with_bytes_that_are_no_text_are_searched() -> None:
    named = examples("é/Ж\n\udcff1.png", 'é/"\\2.png')
    assert group_keys(named, r"(?s)/(.*)\.") == ["Ж\n\udcff1", '"\\2']


def test_a_pattern_that_never_ends_is_stopped_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(UsageError, match=r"more than 0.5 seconds for 1 names"):
        group_keys(examples("a" * 60 + ".png"), "(a+)+$")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(" * 5000 + ")" * 5000])
def test_what_re_can_not_compile_is_no_pattern(pattern: str) -> None:
    with pytest.raises(UsageError, match="not a regular expression"):
        group_keys(examples("a"), pattern)
