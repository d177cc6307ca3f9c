"""Two real processes that train together, forked from the test's own: gloo on the CPU, no second start of torch."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nettailor_cli.core.training.processes import Processes, join
from tests.cli.helpers import Result, nettailor

LIMIT = 120.0
"""Seconds after which processes that wait for each other are given up."""


def in_two(work: Callable[[Processes], Any], folder: Path) -> list[Any]:
    """What `work` gives in process 0 and in process 1; what it raises in either is raised here."""
    meeting = folder / f"meeting-{os.urandom(4).hex()}"

    def whole(rank: int) -> Any:
        processes = join(rank, 2, rank, meeting.as_uri())
        result = work(processes)
        processes.leave()
        return result

    return forked(whole, folder)


def commands_in_two(
    *args: object, folder: Path, before: Callable[[int], None] = lambda rank: None
) -> tuple[Result, Result]:
    """`nettailor` with `args` in both, as torchrun would start them. `before`: what a process does first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def command(rank: int) -> Result:
        given = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in given.items()})
        before(rank)
        return nettailor(*args)

    first, second = forked(command, folder)
    return first, second


def forked(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """`work(0)` and `work(1)`, each in a fork of this process."""
    folder.mkdir(parents=True, exist_ok=True)
    answers = [folder / f"answer-{rank}-{os.urandom(4).hex()}" for rank in range(2)]

    def target(rank: int) -> None:
        try:
            answer = (True, work(rank))
        except BaseException:  # noqa: BLE001
            answer = (False, traceback.format_exc())
        answers[rank].write_bytes(pickle.dumps(answer))

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=target, args=(rank,)) for rank in range(2)]
    for child in children:
        child.start()
    try:
        for child in children:
            child.join(LIMIT)
            assert child.exitcode == 0, f"a process hangs, or ended with {child.exitcode}"
    finally:
        for child in children:
            child.kill()
            child.join()
    given = [pickle.loads(answer.read_bytes()) for answer in answers]
    failures = [answer for good, answer in given if not good]
    assert not failures, "\n".join(failures)
    return [answer for _, answer in given]
