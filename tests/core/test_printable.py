from __future__ import annotations

import csv
import io
import json
import os

import pytest

from nettailor_cli.core.printable import csv_line, harmless, json_text, some_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, grün, 猫", "plain, grün, 猫"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\ttab", "two\\nlines\\ttab"),
        ("\ud800", "\\ud800"),
        ("\u202eabc", "\\u202eabc"),
        ("\x9b31m\u200b\u2066\u2028\ufeff", "\\x9b31m\\u200b\\u2066\\u2028\\ufeff"),
        ("\0\x7f\ufffe", "\\x00\\x7f\\ufffe"),
    ],
)
def test_what_can_not_be_printed_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert harmless(text) == shown
    assert harmless(text).isprintable()
    assert harmless(harmless(text)) == shown


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("-", "'-"),
        ("-1e5", "'-1e5"),
        ("-1.5", "-1.5"),  # numbers are not formulas
        ("+12", "+12"),
        ("a=b", "a=b"),
        ("'=1", "'=1"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("", ""),
        ('say "a", b; c', 'say "a", b; c'),
    ],
)
def test_no_cell_of_a_csv_line_is_a_formula_and_none_breaks_the_line(name: str, cell: str) -> None:
    line = csv_line(["first", name, "last\nnot"])
    assert line.isprintable()
    assert list(csv.reader(io.StringIO(line))) == [["first", cell, "last\\nnot"]]


def test_json_has_the_true_name_and_no_control_character() -> None:
    name = "\x1b]0;t\x07\x7f\x9b\u202e\n" + os.fsdecode(b"caf\xe9") + "漢"
    for indent in (None, 2):
        text = json_text({name: [name]}, indent)
        assert all(c == "\n" or " " <= c <= "~" for c in text)
        assert json.loads(text) == {name: [name]}
    assert os.fsencode(json.loads(json_text(name))).endswith(b"caf\xe9\xe6\xbc\xa2")
    with pytest.raises(ValueError, match="JSON"):
        json_text(float("nan"))


def test_some_of_names_are_told_with_how_many_more_there_are() -> None:
    assert some_of([], 2) == ""
    assert some_of(["a", "b"], 2) == "a, b"
    assert some_of(["a", "b", "c", "d", "e"], 2) == "a, b and 3 more"
