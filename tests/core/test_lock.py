from __future__ import annotations

import errno
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nettailor_cli.core import lock as module
from nettailor_cli.core.errors import RunFailed, UsageError
from nettailor_cli.core.lock import locked
from nettailor_cli.core.progress import SILENT, Silent

HOLDER = """
import sys
from pathlib import Path
from nettailor_cli.core.lock import locked
from nettailor_cli.core.progress import SILENT
with locked(Path(sys.argv[1]), SILENT):
    print("held", flush=True)
    sys.stdin.read()
"""


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_the_second_is_refused_and_told_whose_it_is_and_what_to_do(tmp_path: Path) -> None:
    with locked(tmp_path, SILENT):
        with pytest.raises(UsageError, match="is writing into") as caught, locked(tmp_path, SILENT):
            pass
        assert f"process {os.getpid()} on {platform.node()}" in caught.value.message
        assert str(tmp_path) in caught.value.message and f"kill {os.getpid()}" in caught.value.hint
    with locked(tmp_path, SILENT):
        pass


def test_nothing_stays_behind(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "run", SILENT) as lock:
        assert lock.file.is_file()
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a" / "run", SILENT):
        (tmp_path / "a" / "run" / "file").touch()
    assert [path.name for path in (tmp_path / "a" / "run").iterdir()] == ["file"]


def test_an_error_inside_lets_go_and_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "run", SILENT):
        raise KeyboardInterrupt
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_owner_holds_nothing_and_a_stopped_one_does(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdin is not None and owner.stdout is not None
    try:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {owner.pid} on "), locked(tmp_path, SILENT):
            pass
        owner.send_signal(how)
        if how == signal.SIGSTOP:
            with pytest.raises(UsageError), locked(tmp_path, SILENT):
                pass
            return
        owner.wait()
        assert (tmp_path / ".lock").read_text() == f"{owner.pid} {platform.node()}\n"  # nobody took it away
        with locked(tmp_path, SILENT):
            assert (tmp_path / ".lock").read_text() == f"{os.getpid()} {platform.node()}\n"
    finally:
        owner.kill()
        owner.wait()
        owner.stdin.close()
        owner.stdout.close()


def test_of_many_at_once_one_gets_it_at_a_time(tmp_path: Path) -> None:
    """They make and remove directory and .lock all the time: whoever is inside is there alone."""
    script = """
import sys
from pathlib import Path
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.lock import locked
from nettailor_cli.core.progress import SILENT
got = 0
while got < 50:
    try:
        with locked(Path(sys.argv[1]) / "run", SILENT):
            alone = Path(sys.argv[1]) / "run" / "alone"
            alone.open("x").close()
            alone.unlink()
            got += 1
    except UsageError:
        pass
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    racers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for racer in racers:
        assert racer.communicate(timeout=100)[1] == "" and racer.returncode == 0
    assert all(path.is_dir() for path in tmp_path.rglob("*"))  # the last one need not be who made the directory


@pytest.mark.parametrize("how", ["removed", "made anew", "taken over"])
def test_a_directory_that_went_away_is_noticed(tmp_path: Path, how: str) -> None:
    run = tmp_path / "run"
    with locked(run, SILENT) as lock:
        lock.check()
        shutil.rmtree(run)
        if how == "made anew":
            run.mkdir()
        if how == "taken over":
            with locked(run, SILENT):
                with pytest.raises(RunFailed, match="was removed"):
                    lock.check()
                run.mkdir(exist_ok=True)
                (run / "theirs").touch()
        with pytest.raises(RunFailed, match="was removed"):
            lock.check()
    assert not run.exists() or [path.name for path in run.iterdir()] == ["theirs"] * (how == "taken over")


def test_without_locks_it_is_said_and_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    heard = Heard()
    with locked(tmp_path / "run", heard) as lock:
        lock.check()
    [warning] = heard.warnings
    assert "can't be locked (No locks available)" in warning and str(tmp_path) in warning
    monkeypatch.setattr(module, "fcntl", None)
    with locked(tmp_path / "run", heard):
        pass
    assert not any(tmp_path.iterdir())


def test_a_place_that_can_not_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="can't write"), locked(place, SILENT):
            pass
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "file")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing" / "run")
    with pytest.raises((UsageError, RunFailed), match="symbolic links"), locked(tmp_path / "run", SILENT):
        pass
    with pytest.raises((UsageError, RunFailed), match="can't write"), locked(tmp_path / "nowhere", SILENT):
        pass
    assert (tmp_path / "file").read_text() == "precious"
