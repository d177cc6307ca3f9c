from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from nettailor_cli.core.errors import RunFailed, UsageError
from nettailor_cli.core.files import write_atomically, write_text


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
