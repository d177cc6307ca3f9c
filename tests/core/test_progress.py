"""What the engine says while it works."""

from __future__ import annotations

from collections.abc import Mapping

from nettailor_cli.core.progress import PartOf, Progress


class Heard:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def note(self, text: str) -> None:
        self.told.append(("note", text))

    def warn(self, text: str) -> None:
        self.told.append(("warn", text))

    def start(self, what: str, total: int) -> None:
        self.told.append(("start", what, total))

    def advance(self, units: int = 1, figures: Mapping[str, float] | None = None) -> None:
        self.told.append(("advance", units, figures))

    def line(self, text: str) -> None:
        self.told.append(("line", text))

    def finish(self, line: str = "") -> None:
        self.told.append(("finish", line))


def test_a_part_says_its_name_before_every_text_and_nothing_where_there_is_none() -> None:
    heard = Heard()
    part: Progress = PartOf(heard, "fold 1")
    part.note("a")
    part.warn("b")
    part.start("teach", 3)
    part.advance(2, {"loss": 1.0})
    part.line("c")
    part.finish("d")
    part.finish()
    assert heard.told == [
        ("note", "fold 1: a"),
        ("warn", "fold 1: b"),
        ("start", "fold 1: teach", 3),
        ("advance", 2, {"loss": 1.0}),
        ("line", "fold 1: c"),
        ("finish", "fold 1: d"),
        ("finish", ""),
    ]
