"""The processes that torchrun started: found in the environment, joined, ended together with one message."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from nettailor_cli.core.errors import UsageError

if TYPE_CHECKING:
    from nettailor_cli.core.training.processes import Processes

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")

_joined: Processes | None = None


def join() -> Processes:
    """This process among those that torchrun started, or the only one. Waits until all are there.

    Raises UsageError when the environment makes no sense, RunFailed when the others can't be reached.
    """
    global _joined
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


def fail(code: int, tell: Callable[[], None]) -> int:
    """At the end of one that failed: `tell`, unless another process does. The exit code."""
    if _joined is not None:
        return _joined.fail(code, tell)
    tell()
    return code
