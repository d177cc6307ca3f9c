"""Writing a file so that nobody ever sees half of it: beside, flushed, renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from nettailor_cli.core.errors import FileError, RunFailed, UsageError

try:
    import fcntl
except ImportError:  # where there is none (Windows), a file that is open can't be removed, which does as well
    fcntl = None  # type: ignore[assignment]

_WRONG_PLACE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG
}  # fmt: skip
"""What is wrong with the name or the rights, as against a disk that is full or failing."""

_ELSEWHERE = "choose another place to write to"

_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.tmp", re.DOTALL)
"""How a file or folder is called until it is whole; the group is the name that it will have."""

_ASIDE = "old"
"""In the temporary folder: what was there before, while it is being replaced."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a name beside `path`, flush what it wrote, and rename it to `path`.

    Whatever goes wrong, an older file at `path` stays whole. What a process that was killed had half written of `path`
    is removed. Raises UsageError when the directory can't be written to and RunFailed when the disk is full or fails.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with _marked_as_live(handle):
            write(temporary)
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp makes it private; a model file is an ordinary file
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
        temporary = None
        _flush_directory(path.parent)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """What processes that were killed had half written in `folder`: of the file or folder `name`, or of any.

    A living one holds a lock on its own. What can't be locked or removed stays; it is in nobody's way.
    """
    if fcntl is None:
        return
    leftovers: list[tuple[Path, str]] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        named = ((Path(entry), _TEMPORARY.fullmatch(entry.name)) for entry in entries)
        leftovers = [(path, found[1]) for path, found in named if found and name in (None, found[1])]
    for path, own in leftovers:
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not path.is_dir():
                    path.unlink()
                    continue
                if (path / _ASIDE).is_dir() and not (folder / own).exists():
                    (path / _ASIDE).rename(folder / own)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)


@contextlib.contextmanager
def _marked_as_live(handle: int) -> Iterator[None]:
    """While the body runs nobody takes the open file `handle` for a leftover; a kill takes the mark away."""
    if fcntl is None:  # an open file could not be renamed, either
        os.close(handle)
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks: then nobody gets one, nothing is removed
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with an empty folder beside `folder`, flush the files that it wrote, and rename it to `folder`.

    A folder that is there is put aside first and deleted last; whatever goes wrong, it stays whole, and no half-written
    one is ever called `folder`. After a kill just between the two renames there is none of that name, until the next
    call brings the old one back. Raises as `write_atomically` does.
    """
    folder = folder.resolve()  # a link to a folder goes on pointing to it
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder) as temporary:
            new, old = temporary / "new", temporary / _ASIDE
            new.mkdir()
            write(new)
            for file in new.iterdir():
                with file.open("rb+") as stream:
                    os.fsync(stream.fileno())
            _flush_directory(new)
            try:
                if folder.exists():
                    folder.rename(old)
                new.rename(folder)
            except BaseException:
                if old.exists() and not folder.exists():
                    old.rename(folder)
                raise
            _flush_directory(folder.parent)
    except OSError as error:
        raise explained(error, folder) from error


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, for as long as the body runs. What killed processes left of one is removed.

    Raises OSError when there can't be one.
    """
    remove_leftovers(path.parent, path.name)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        with contextlib.nullcontext() if fcntl is None else _marked_as_live(os.open(folder, os.O_RDONLY)):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def explained(error: OSError, path: Path) -> UsageError | RunFailed:
    """What to raise when the system does not let us write `path`."""
    message = f"can't write {path}: {error.strerror or error}"
    if error.errno in _WRONG_PLACE:
        return UsageError(message, _ELSEWHERE)
    return RunFailed(message, "free some space and start again (a training: with --resume)")


def check_place(path: Path) -> None:
    """Raises UsageError when it can be seen beforehand that `path` can't be written: hours of training may follow."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if path.is_dir():
        raise UsageError(f"can't write {path}: it is a folder", _ELSEWHERE)
    if not folder.is_dir():
        raise UsageError(f"can't write {path}: {folder} is not a folder", _ELSEWHERE)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"can't write {path}: no permission to write in {folder}", _ELSEWHERE)


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for a text, in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """`write_atomically` for bytes."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)


def check_is_file(path: Path) -> None:
    """Raises FileError when `path` is a pipe or a device, which might never end; what is not there is no affair of it.

    A folder is not, either: opening it says so.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise FileError(f"{path} is not an ordinary file")


def read_small(path: Path, most: int) -> bytes:
    """The content of a file that people may write, too. Raises OSError, and FileError beyond `most` bytes."""
    check_is_file(path)
    with path.open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise FileError(f"{path} is too large: more than {size_text(most)}")
    return data


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hex. Raises OSError when it can't be read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def size_text(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _flush_directory(directory: Path) -> None:
    """So that the rename itself survives a power cut. Not every file system can; then nothing is lost by going on."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
