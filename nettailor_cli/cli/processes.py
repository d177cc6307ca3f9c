"""The processes that torchrun started: found in the environment, joined, ended together with one message."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from nettailor_cli.core.errors import UsageError

if TYPE_CHECKING:
    from nettailor_cli.core.training.processes import Processes

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")

_joined: Processes | None = None
_has_threads = False
"""Whether torch's communication has been started, and with it its threads."""


def join() -> Processes:
    """This process among those that torchrun started, or the only one. Waits until all are there.

    Raises UsageError when the environment makes no sense, RunFailed when the others can't be reached.
    """
    global _joined, _has_threads
    from nettailor_cli.core.training import processes

    host = os.environ.get("MASTER_ADDR")
    given = {name: os.environ.get(name) for name in _NUMBERS}
    if host is None or None in given.values():
        return processes.ALONE
    try:
        rank, count, local_rank, port = (int(number or "") for number in given.values())
    except ValueError as error:
        raise UsageError(
            "these variables are for torchrun to set, and not numbers: "
            + ", ".join(f"{name}={value}" for name, value in given.items())
        ) from error
    if count == 1:
        return processes.ALONE
    _has_threads = True
    _joined = processes.join(rank, count, local_rank, f"tcp://{host}:{port}")
    return _joined


def joined() -> Processes:
    """What `join` gave."""
    from nettailor_cli.core.training.processes import ALONE

    return _joined or ALONE


def leave() -> None:
    """At the end of a command that went well."""
    global _joined
    if _joined is not None:
        _joined.leave()
        _joined = None


def end(code: int) -> None:
    """The very last of a process that had others beside it; returns if it never had.

    Threads of torch's communication can outlive what destroys them, and then abort the process while the interpreter
    takes itself apart, after all work is done; torchrun would report a failure. So it does not take itself apart.
    """
    if _has_threads:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def fail(code: int, tell: Callable[[], None]) -> int:
    """At the end of one that failed: `tell`, unless another process does. The exit code."""
    if _joined is not None:
        return _joined.fail(code, tell)
    tell()
    return code
