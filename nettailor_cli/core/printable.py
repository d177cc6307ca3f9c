"""Text from files (class names, paths, metadata), made harmless for terminals, logs, pictures and spreadsheets.

People get it with whatever can't be seen as an escape. Programs get it as it is: in JSON, which escapes it itself.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = tuple("=+-@＝＋－＠")  # noqa: RUF001 - the wide ones are the same to some spreadsheets
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def harmless(text: object) -> str:
    """`text` with control characters, terminal escapes, invisible and turning marks and lone surrogates as escapes.

    Such a text has one line, and is the same when it is made harmless again.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii") for c in str(text)
    )


def some_of(names: Sequence[str], most: int) -> str:
    """The first `most` of `names`, and how many more there are: "a, b and 3 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def csv_line(cells: Iterable[str]) -> str:
    """One line of a CSV file, without its end. Cells are made harmless; nothing in one can break the line.

    What a spreadsheet would take for a formula has an apostrophe before it: a cell that begins with = + - @, narrow or
    wide, and is no plain number. (Tabs and line ends, which would do as well, are escapes.)
    """
    stream = io.StringIO()
    csv.writer(stream, lineterminator="").writerow([_no_formula(harmless(cell)) for cell in cells])
    return stream.getvalue()


def json_text(document: Any, indent: int | None = None) -> str:
    """`document` as JSON in ASCII without control characters (line ends of `indent` aside); names stay true.

    What of a file's name is no UTF-8 is a lone surrogate, \\udc80 to \\udcff, for Python's os.fsencode to bring back.
    Raises ValueError for NaN and infinity.
    """
    # DEL is the one control character that json leaves as it is; outside of strings there is none
    return json.dumps(document, indent=indent, allow_nan=False).replace("\x7f", "\\u007f")


def _no_formula(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else cell
