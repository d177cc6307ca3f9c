"""One command at a time writes into a run directory: RUN/.lock, which a dead owner does not hold.

run.toml and log.jsonl are read, changed and written again; two commands at once would lose each other's lines, and a
checkpoint under a name that both use would belong to neither. The lock is the kernel's (flock): it ends with the
process that holds it, by whatever it ends. What stands in the file, process and host, is for the message alone.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nettailor_cli.core.errors import RunFailed, UsageError
from nettailor_cli.core.files import explained
from nettailor_cli.core.progress import Progress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
_ENTRY_LIMIT = 1000  # bytes
_ATTEMPTS = 100


@dataclass(frozen=True)
class Lock:
    """What the owner of `directory` has: its .lock, open as `handle`."""

    directory: Path
    handle: int

    @property
    def file(self) -> Path:
        return self.directory / ".lock"

    def check(self) -> None:
        """Raises RunFailed when the directory was removed, or made anew, since: whose it is by now is not known."""
        if not _is(self.file, self.handle):
            raise RunFailed(
                f"{self.directory} was removed, or its .lock, while this command was writing into it",
                "nothing more is written there; start again",
            )


@contextlib.contextmanager
def locked(directory: Path, progress: Progress) -> Iterator[Lock]:
    """Nobody else writes into `directory` while the body runs. It is made; if it is still empty then, it goes again.

    Where the file system or the platform has no locks this is said, and the body runs. Raises UsageError when another
    process has the lock or the place can't be written to, RunFailed when the disk is full.
    """
    new = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    try:
        lock = _take(directory, progress)
    except OSError as error:
        _remove_empty(new)
        raise explained(error, directory) from error
    try:
        yield lock
    finally:
        with contextlib.suppress(OSError):
            if _is(lock.file, lock.handle):
                lock.file.unlink()  # before it is let go of: from then on the name may be another's
        os.close(lock.handle)
        _remove_empty(new)


def _take(directory: Path, progress: Progress) -> Lock:
    """Raises OSError, and UsageError when another process has it."""
    for attempt in range(_ATTEMPTS):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = Lock(directory, os.open(directory / ".lock", _FLAGS, 0o666))
        except (FileNotFoundError, FileExistsError):
            if attempt == _ATTEMPTS - 1:
                raise
            continue  # perhaps an owner that failed has just removed the empty directory
        try:
            _lock(lock, progress)
            if _is(lock.file, lock.handle):  # or its owner has just removed it
                _sign(lock)
                return lock
        except BaseException:
            os.close(lock.handle)
            raise
        os.close(lock.handle)
    raise UsageError(f"other commands start and end in {directory} all the time", "try again")


def _sign(lock: Lock) -> None:
    """Raises OSError; then there is no file."""
    try:
        os.ftruncate(lock.handle, 0)
        os.pwrite(lock.handle, f"{os.getpid()} {platform.node()}\n".encode(), 0)
    except OSError:
        lock.file.unlink()
        raise


def _lock(lock: Lock, progress: Progress) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(lock.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        process, _, host = os.pread(lock.handle, _ENTRY_LIMIT, 0).decode("utf-8", "replace").strip().partition(" ")
        owner = f"process {process} on {host}" if host else "another process"
        stop = f"wait for it, or end it (kill {process} saves its state)" if host else "wait for it"
        raise UsageError(
            f"{owner} is writing into {lock.directory}", f"{stop}, or write into another directory (--run)"
        ) from error
    except OSError as error:
        progress.warn(
            f"{lock.directory} can't be locked ({error.strerror}): let no other command write into it meanwhile"
        )


def _is(file: Path, handle: int) -> bool:
    """Whether `file` is still what is open as `handle`."""
    try:
        return os.path.samestat(file.stat(), os.fstat(handle))
    except OSError:
        return False


def _remove_empty(folders: list[Path]) -> None:
    """From the innermost on, up to the first that has something in it."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
