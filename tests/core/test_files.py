from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from nettailor_cli.core import files
from nettailor_cli.core.errors import RunFailed, UsageError
from nettailor_cli.core.files import remove_leftovers, temporary_folder, write_atomically, write_folder, write_text


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "grün\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "grün\n".encode()
    assert names_in(tmp_path / "a" / "b") == ["c.txt"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    seen: list[str] = []

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        seen.append(target.read_text())
        temporary.write_text("whole")
        seen.append(target.read_text())

    write_atomically(target, write)
    assert seen == ["old", "old"]
    assert target.read_text() == "whole"
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), RunFailed),
        (OSError(errno.EIO, "Input/output error"), RunFailed),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), RunFailed),
        (PermissionError(errno.EACCES, "Permission denied"), UsageError),
        (OSError(errno.EROFS, "Read-only file system"), UsageError),
        (ValueError("a bug"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=lambda value: str(value) if isinstance(value, BaseException) else "",
)
def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_beside_it(
    tmp_path: Path, error: BaseException, raised: type[BaseException]
) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("ha")
        raise error

    with pytest.raises(raised):
        write_atomically(target, write)
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_a_disk_that_fails_when_flushed_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunFailed, match="No space left"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_messages_name_the_place(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunFailed, match=r"model\.safetensors") as caught:
        write_atomically(tmp_path / "model.safetensors", write)
    assert ".tmp" not in caught.value.message


def test_a_folder_or_a_place_under_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "folder", tmp_path / "file" / "below", tmp_path / "file" / "far" / "below"):
        with pytest.raises(UsageError):
            write_text(target, "new")
    assert names_in(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_a_usage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UsageError):
            write_text(tmp_path / "file", "new")
    finally:
        tmp_path.chmod(0o700)


def test_a_new_file_has_ordinary_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "new")
        assert os.umask(0o027) == 0o027, "the umask is as it was"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


class TestWriteFolder:
    def fill(self, text: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            (folder / "one").write_text(text)
            (folder / "two").write_text(text)

        return write

    def test_a_folder_is_there_whole_or_not_at_all(self, tmp_path: Path) -> None:
        target, seen = tmp_path / "a" / "b", []

        def write(folder: Path) -> None:
            self.fill("new")(folder)
            seen.append((target.exists(), names_in(folder)))

        write_folder(target, write)
        assert seen == [(False, ["one", "two"])]
        assert names_in(target) == ["one", "two"] and names_in(tmp_path / "a") == ["b"]

    def test_an_old_one_is_replaced_whole(self, tmp_path: Path) -> None:
        target = tmp_path / "folder"
        write_folder(target, self.fill("old"))
        (target / "more").touch()
        write_folder(target, self.fill("new"))
        assert names_in(target) == ["one", "two"] and (target / "one").read_text() == "new"
        assert names_in(tmp_path) == ["folder"]

    @pytest.mark.parametrize(
        ("error", "raised"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), RunFailed),
            (PermissionError(errno.EACCES, "Permission denied"), UsageError),
            (KeyboardInterrupt(), KeyboardInterrupt),
            (RunFailed("it differs"), RunFailed),
        ],
        ids=str,
    )
    def test_what_fails_leaves_the_old_one_whole_and_nothing_beside_it(
        self, tmp_path: Path, error: BaseException, raised: type[BaseException]
    ) -> None:
        target = tmp_path / "folder"
        write_folder(target, self.fill("old"))

        def write(folder: Path) -> None:
            (folder / "one").write_text("half")
            raise error

        with pytest.raises(raised):
            write_folder(target, write)
        assert names_in(tmp_path) == ["folder"] and (target / "two").read_text() == "old"

    @pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=str)
    def test_a_rename_that_fails_brings_the_old_one_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        target = tmp_path / "folder"
        write_folder(target, self.fill("old"))
        real = Path.rename

        def rename(path: Path, to: Path) -> Path:
            if path.name == "new":
                raise error
            return real(path, to)

        monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(RunFailed if isinstance(error, OSError) else KeyboardInterrupt):
            write_folder(target, self.fill("new"))
        assert names_in(tmp_path) == ["folder"] and (target / "one").read_text() == "old"

    def test_its_permissions_are_ordinary(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            write_folder(tmp_path / "folder", self.fill("new"))
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750

    def test_under_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match="can't write"):
            write_folder(tmp_path / "file" / "folder", self.fill("new"))


class TestLeftovers:
    """What a process that was killed had half written."""

    def leave(self, target: Path) -> Path:
        """Have another process killed while it writes `target`. What it leaves."""

        def write(temporary: Path) -> None:
            temporary.write_text("ha")
            os.kill(os.getpid(), signal.SIGKILL)

        child = os.fork()
        if child == 0:
            write_atomically(target, write)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        [left] = target.parent.glob(".*.tmp")
        assert left.read_text() == "ha" and not target.exists()
        return left

    def test_the_next_one_that_writes_the_file_removes_it(self, tmp_path: Path) -> None:
        self.leave(tmp_path / "file")
        write_text(tmp_path / "other", "whole")
        assert len(names_in(tmp_path)) == 2
        write_text(tmp_path / "file", "whole")
        assert names_in(tmp_path) == ["file", "other"]

    def test_a_living_ones_file_and_what_is_not_ours_stay(self, tmp_path: Path) -> None:
        kept = [".file.tmp", ".file.abcdefgh.tmp.gz", ".file.ABCDEFGH.tmp", "file.abcdefgh.tmp"]
        for name in kept:
            (tmp_path / name).touch()

        def write(temporary: Path) -> None:
            remove_leftovers(tmp_path)
            write_text(tmp_path / "file", "of another that is quicker")
            temporary.write_text("whole")

        write_atomically(tmp_path / "file", write)
        assert (tmp_path / "file").read_text() == "whole"
        assert names_in(tmp_path) == sorted([*kept, "file"])

    @pytest.mark.parametrize("moment", ["while it is filled", "between the renames", "while the old one is deleted"])
    def test_of_a_folder_nothing_is_lost_and_nothing_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        target = tmp_path / "folder"

        def fill(text: str) -> Callable[[Path], None]:
            return lambda folder: (folder / "file").write_text(text) and None

        def die(*args: object, **options: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        write_folder(target, fill("old"))
        child = os.fork()
        if child == 0:
            rename = Path.rename
            if moment == "between the renames":
                Path.rename = lambda path, to: die() if path.name == "new" else rename(path, to)  # type: ignore
            elif moment == "while the old one is deleted":
                shutil.rmtree = die  # type: ignore[assignment]
            write_folder(target, die if moment == "while it is filled" else fill("new"))
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        assert len(names_in(tmp_path)) == (1 if moment == "between the renames" else 2)
        remove_leftovers(tmp_path)
        assert names_in(tmp_path) == ["folder"]
        assert (target / "file").read_text() == ("new" if "deleted" in moment else "old")

    def test_a_living_ones_folder_stays(self, tmp_path: Path) -> None:
        with temporary_folder(tmp_path / "folder") as temporary:
            remove_leftovers(tmp_path)
            assert temporary.is_dir()
        assert names_in(tmp_path) == []

    def test_where_nothing_can_be_locked_all_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        left = self.leave(tmp_path / "file")

        def refuse(*args: object) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(files.fcntl, "flock", refuse)
        write_text(tmp_path / "file", "whole")
        assert names_in(tmp_path) == sorted([left.name, "file"])
        monkeypatch.setattr(files, "fcntl", None)
        write_text(tmp_path / "file", "again")
        assert names_in(tmp_path) == sorted([left.name, "file"])
