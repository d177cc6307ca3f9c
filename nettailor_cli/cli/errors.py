"""What an error means to the process: a message, a hint, an exit code.

0 done   1 unexpected, a full disk, a device out of memory, a loss that is not finite   2 wrong usage, settings, data
or file   3 a gate was not met   130 Ctrl-C   143 SIGTERM
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import typer

from nettailor_cli.cli import processes
from nettailor_cli.cli.output import Output
from nettailor_cli.core.errors import (
    DataError,
    FileError,
    GateNotMet,
    Interrupted,
    NettailorError,
    UsageError,
    is_out_of_memory,
)

UNEXPECTED, WRONG, GATE = 1, 2, 3


def exit_code(error: NettailorError) -> int:
    if isinstance(error, Interrupted):
        return 128 + error.signal
    if isinstance(error, GateNotMet):
        return GATE
    return WRONG if isinstance(error, UsageError | DataError | FileError) else UNEXPECTED


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, with every error shown as one message and turned into an exit code (NETTAILOR_DEBUG=1: whole)."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with reader_may_go():
                command(*args, **kwargs)
                processes.leave()
        except (typer.Exit, typer.Abort):
            raise
        except BaseException as error:
            if os.environ.get("NETTAILOR_DEBUG") == "1":
                raise
            message, hint, code = _explain(error)
            lines = error.lines if isinstance(error, NettailorError) else [message]
            raise typer.Exit(processes.fail(code, lambda: Output().error(lines, hint))) from None

    return wrapped


@contextlib.contextmanager
def reader_may_go() -> Iterator[None]:
    """A reader of standard output that has seen enough (`| head`) ends the command, with exit code 0."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a full disk or a reader that has gone can still be told
    except BrokenPipeError:
        # Python would complain when it flushes stdout at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except SystemExit as ending:
        if isinstance(ending.__context__, BrokenPipeError):  # from rich, which prints --help
            raise typer.Exit(0) from None
        raise


def _explain(error: BaseException) -> tuple[str, str, int]:
    if isinstance(error, NettailorError):
        return error.message, error.hint, exit_code(error)
    if isinstance(error, KeyboardInterrupt):
        return "stopped", "", 128 + getattr(error, "signal", signal.SIGINT)
    text = str(error).strip().split("\n")[0]
    if is_out_of_memory(error):
        return (
            f"out of memory: {text}",
            "try a smaller batch (--batch-size) or input (--size), or close other programs",
            UNEXPECTED,
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"the disk is full: {error.filename or text}",
            "free some space and start again",
            UNEXPECTED,
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"not allowed: {error.filename or text} ({error.strerror})", "", WRONG
    if isinstance(error, RuntimeError) and ("gloo" in text or "NCCL" in text):
        return f"another process has ended, or can't be reached: {text}", "", UNEXPECTED
    kind = type(error).__name__
    return f"unexpected, a bug: {kind}: {text}", "NETTAILOR_DEBUG=1 shows where; please report it", UNEXPECTED
