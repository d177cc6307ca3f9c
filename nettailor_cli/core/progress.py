"""The small protocol through which the engine reports; the CLI turns it into bars or plain lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """What the engine may say while it works. Every method returns at once and raises nothing."""

    def note(self, text: str) -> None:
        """A choice and its reason, in one line."""

    def warn(self, text: str) -> None:
        """Something that the user should know and that stops nothing."""

    def start(self, what: str, total: int) -> None:
        """A countable piece of work begins: `what` in two or three words, `total` units."""

    def advance(self, units: int = 1, figures: Mapping[str, float] | None = None) -> None:
        """`units` more are done; `figures` are the current numbers (loss, accuracy, images/s, ...)."""

    def line(self, text: str) -> None:
        """A part of it is over, summed up in `text`: an epoch."""

    def finish(self, line: str = "") -> None:
        """The piece of work is over; `line` sums it up for those who see no bar."""


class Silent:
    """Reports nothing: for tests and for library use."""

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def start(self, what: str, total: int) -> None:
        pass

    def advance(self, units: int = 1, figures: Mapping[str, float] | None = None) -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def finish(self, line: str = "") -> None:
        pass


SILENT = Silent()
"""The one to use where nobody watches."""


@dataclass(frozen=True)
class PartOf:
    """Reports to `whole`, with the `name` of a part of the work before everything that it says."""

    whole: Progress
    name: str

    def note(self, text: str) -> None:
        self.whole.note(f"{self.name}: {text}")

    def warn(self, text: str) -> None:
        self.whole.warn(f"{self.name}: {text}")

    def start(self, what: str, total: int) -> None:
        self.whole.start(f"{self.name}: {what}", total)

    def advance(self, units: int = 1, figures: Mapping[str, float] | None = None) -> None:
        self.whole.advance(units, figures)

    def line(self, text: str) -> None:
        self.whole.line(f"{self.name}: {text}")

    def finish(self, line: str = "") -> None:
        self.whole.finish(line and f"{self.name}: {line}")
