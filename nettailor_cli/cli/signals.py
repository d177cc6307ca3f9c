"""Ctrl-C and SIGTERM: while a stage trains they ask it to save its state and stop; before that they stop at once."""

from __future__ import annotations

import signal
from types import FrameType


class StopNow(KeyboardInterrupt):
    """Raised by the handler, wherever the program happens to be: no `except Exception` may take it for its own."""

    def __init__(self, number: int) -> None:
        super().__init__("stopped")
        self.signal = number


class StopRequest:
    """Installed once per training command; called by the training loop after every step."""

    def __init__(self) -> None:
        self._asked: int | None = None
        self._training = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def __call__(self) -> int | None:
        """The number of the signal that asked for an end, or None."""
        self._training = True
        return self._asked

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._training or self._asked is not None:  # nothing to save yet, or asked a second time
            raise StopNow(number)
        self._asked = number
