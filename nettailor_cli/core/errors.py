"""The one family of errors that the engine raises.

Each says what is wrong in one message and, where there is one, what to do next in a hint. The engine never exits;
whoever calls it decides what an error means to a process (the CLI: see `cli/errors.py`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class NettailorError(Exception):
    """What every error of the engine is. `hint` names the next thing to type or do, or is empty.

    A message of several lines is given as such: where a line ends can't be seen from a text that holds names of files.
    `lines` are its lines, `message` all of them.
    """

    def __init__(self, message: str | Sequence[str], hint: str = "") -> None:
        self.lines = (message,) if isinstance(message, str) else tuple(message)
        self.message = "\n".join(self.lines)
        self.hint = hint
        super().__init__(self.message)


class UsageError(NettailorError):
    """The settings make no sense: an unknown name, a value out of range, a path that is not there."""


class DataError(NettailorError):
    """The folder of pictures can't be used as it is."""


class FileError(NettailorError):
    """A model, teacher, checkpoint or backbone file is damaged, foreign, or belongs to something else."""


class GateNotMet(NettailorError):
    """The work was done and the result misses a limit that the user set."""


class RunFailed(NettailorError):
    """The work could not go on: a full disk, a device out of memory, a loss that is not finite."""


class Interrupted(NettailorError):
    """The user asked to stop; the state was saved. `signal` is the number of the signal that asked."""

    def __init__(self, message: str, hint: str = "", *, signal: int) -> None:
        super().__init__(message, hint)
        self.signal = signal


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or the accelerator has no memory left; torch says so in words alone."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)


_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the closest of `known`, or an empty text when nothing is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""
