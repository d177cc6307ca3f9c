from __future__ import annotations

import pytest

from nettailor_cli.core.printable import harmless


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, grün, 猫", "plain, grün, 猫"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\ttab", "two\\nlines\\ttab"),
        ("\ud800", "\\ud800"),
        ("\u202eabc", "\\u202eabc"),
        ("\0\x7f\ufffe", "\\x00\\x7f\\ufffe"),
    ],
)
def test_what_can_not_be_printed_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert harmless(text) == shown
    assert harmless(text).isprintable()
