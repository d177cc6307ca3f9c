"""One Output for every command: for people, as JSON (--json), or next to nothing (--quiet).

Results go to stdout, everything else to stderr. On a terminal progress is a live bar, elsewhere one plain line per
epoch. Whatever is shown is made harmless first: names from files may hold terminal escapes, line ends and markup.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Console
from rich.text import Text

from nettailor_cli.core.printable import harmless, json_text

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

PLAIN_WIDTH = 100
"""Columns where there is no terminal to ask: a log should not depend on the window that it was made in."""


class Output:
    """Where a command's words go. Is a `core.progress.Progress`, so that the engine can report through it."""

    _showing: ClassVar[Output | None] = None
    """Whose bars are up: an error is shown by another Output, which has to take them off first."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.out = _console(sys.stdout)
        self.err = _console(sys.stderr)
        self._bars: Bars | None = None
        self._task: Any = None

    def silence(self) -> None:
        """Say nothing from here on, not even warnings or the result: another process does. Errors have their own."""
        self.as_json, self.quiet = False, True
        self.out = self.err = _console(io.StringIO())

    # results

    def result(self, document: Mapping[str, Any], show: Callable[[Console], None]) -> None:
        """The command's result: `document` under --json, else what `show` prints."""
        if self.as_json:
            print(json_text(document, indent=2))
        elif not self.quiet:
            show(self.out)

    def rows(self, lines: Iterable[str]) -> None:
        """Some lines of a result that is made of lines (JSON lines, CSV), for whoever reads them to have at once."""
        for line in lines:
            print(line)
        print(end="", flush=True)

    # progress

    def note(self, text: str) -> None:
        if not self.quiet:
            self._print(Text(harmless(text), style="dim"))

    def warn(self, text: str) -> None:
        self._print(Text.assemble(("warning: ", "yellow"), harmless(text)))

    def start(self, what: str, total: int) -> None:
        if self.quiet or not self.err.is_terminal:
            return
        if self._bars is None:
            self._bars = _bars(self.err)
            self._bars.start()
            Output._showing = self
        self._task = self._bars.add_task(what, total=total, figures="")

    def advance(self, units: int = 1, figures: Mapping[str, float] | None = None) -> None:
        if self._bars is not None:
            self._bars.advance(self._task, units)
            if figures is not None:
                self._bars.update(self._task, figures=_figures(figures))

    def line(self, text: str) -> None:
        if not self.quiet:
            self._print(Text(harmless(text)))

    def finish(self, line: str = "") -> None:
        self.close()
        if line:
            self.line(line)

    def close(self) -> None:
        """Take a bar that is still up off the screen."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def error(self, lines: Sequence[str], hint: str = "") -> None:
        if Output._showing is not None:
            Output._showing.close()
        self._print(Text.assemble(("error: ", "bold red"), "\n".join(map(harmless, lines))))
        if hint:
            self._print(Text.assemble(("hint: ", "cyan"), harmless(hint)))

    def _print(self, text: Text) -> None:
        # Nobody who reads it any more (2>&1 | head), or a full disk: that must not end a training.
        with contextlib.suppress(OSError):
            # soft_wrap: a log line is one line, and a path can be copied from a narrow terminal
            self.err.print(text, soft_wrap=True)


class HarmlessConsole(Console):
    """Every text that it is given, a table's cells included, is shown as one harmless line; a `Text` as it is."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(harmless(text), **options)

    def on_broken_pipe(self) -> None:
        """rich's own would exit with 1 when nobody reads any more; that is `reports_errors`'s to decide."""
        raise BrokenPipeError


def _console(stream: Any) -> Console:
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return HarmlessConsole(file=stream, width=width, highlight=False, markup=False, emoji=False)


def _bars(console: Console) -> Bars:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [TextColumn("{task.description}", markup=False)]
    if console.width >= 80:
        columns.append(BarColumn(bar_width=max(8, min(24, console.width - 92))))
    columns += [
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(compact=True),
    ]
    return Progress(*columns, console=console, transient=True)


def _figures(figures: Mapping[str, float]) -> str:
    short = {
        "epoch": "epoch {:.0f}",
        "loss": "loss {:.3f}",
        "accuracy": "acc {:.1f} %",
        "expected_complexity": "E[C] {:.2f}",
        "images/s": "{:.0f} images/s",
    }
    return "  ".join(form.format(figures[name]) for name, form in short.items() if name in figures)
