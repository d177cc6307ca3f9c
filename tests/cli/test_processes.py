"""How a process ends that torchrun started beside others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

# what is registered last runs first when the interpreter takes itself apart
PROGRAM = """
import atexit, sys
sys.argv = ["nettailor", *{args!r}]
atexit.register(print, "taken apart")
from nettailor_cli.__main__ import main
from nettailor_cli.cli import processes
if {joined}:
    assert processes.join().count == 2
main()
"""


def end_of(*args: str, joined: bool, rank: int = 0, port: int = 0) -> subprocess.Popen[str]:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(args=list(args), joined=joined)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **{name: str(value) for name, value in names.items()}} if joined else None,
    )  # fmt: skip


@pytest.mark.parametrize(("args", "code"), [(("--version",), 0), (("inspect", "nowhere.safetensors"), 2)])
def test_a_process_among_several_ends_without_taking_the_interpreter_apart(args: tuple[str, ...], code: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [end_of(*args, joined=True, rank=rank, port=port) for rank in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [code, code], said
    assert not any("taken apart" in out for out, _ in said)
    told = "".join(out + err for out, err in said)
    assert ("nowhere.safetensors" if code else "nettailor") in told


def test_one_alone_ends_as_python_programs_do() -> None:
    process = end_of("--version", joined=False)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines()[-1], err) == (0, "taken apart", "")
