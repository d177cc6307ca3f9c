"""A run directory: which file lies where, and run.toml and log.jsonl.

RUN/teacher.safetensors student.safetensors pruned.safetensors model.safetensors
RUN/run.toml       every resolved setting, per stage; a later command takes it as its --config if asked
RUN/latency.toml   what the student was tailored for with --cost latency
RUN/log.jsonl      one line per epoch
RUN/checkpoints/   what --resume goes on from
RUN/.lock          while a command writes, see `lock.py`
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.files import explained, remove_leftovers, write_text


class RunDirectory:
    """The files of one run under `path`, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.teacher = path / "teacher.safetensors"
        self.student = path / "student.safetensors"
        self.pruned = path / "pruned.safetensors"
        self.model = path / "model.safetensors"
        self.toml = path / "run.toml"
        self.latencies = path / "latency.toml"
        self.log_file = path / "log.jsonl"

    def checkpoint(self, stage: str, output: Path) -> Path:
        """Where the checkpoint of `stage` lies while it writes `output`, in this directory or elsewhere."""
        elsewhere = output.resolve().parent != self.path.resolve()
        place = "-" + hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:8] if elsewhere else ""
        return self.path / "checkpoints" / f"{stage}-{output.stem}{place}.safetensors"

    def read(self) -> dict[str, Any]:
        """What run.toml says; empty when there is none. Raises FileError when it is damaged."""
        try:
            return tomllib.loads(self.toml.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageError(f"can't read {self.toml}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FileError(f"{self.toml} is damaged: {error}", "delete it, or choose another --run") from error

    def record(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace these tables of run.toml, all or none. None is left out: TOML has no such value."""
        document = self.read()
        for table, values in tables.items():
            document[table] = {key: value for key, value in values.items() if value is not None}
        write_text(self.toml, tomli_w.dumps(document))

    def remove_leftovers(self) -> None:
        """What commands that were killed had half written, here and in the runs of `fit`'s parts."""
        for folder in (self.path, self.path / "checkpoints", self.path / "search"):
            remove_leftovers(folder)
        for parts in (self.path / "folds", self.path / "baselines"):
            for part in parts.iterdir() if parts.is_dir() else ():
                RunDirectory(part).remove_leftovers()

    def forget_after(self, stage: str, output: Path, epoch: int) -> None:
        """Take what log.jsonl says of `stage` at `output` after `epoch` out of it: those epochs are done again."""
        if not self.log_file.is_file():
            return
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        kept = [line for line in lines if not _is_after(line, stage, output.name, epoch)]
        if len(kept) < len(lines):
            write_text(self.log_file, "".join(kept))

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to log.jsonl. Raises as `files.write_atomically`."""
        try:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            with self.log_file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise explained(error, self.log_file) from error


def _is_after(line: str, stage: str, file: str, epoch: int) -> bool:
    try:
        record = json.loads(line)
        return (record["stage"], record["file"]) == (stage, file) and record["epoch"] > epoch
    except (ValueError, TypeError, KeyError):
        return True  # cut short by a crash


def refuse_to_overwrite(path: Path, *, force: bool) -> None:
    """Raises UsageError when `path` is there already and `force` isn't given."""
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", "--force replaces it; --run or -o writes somewhere else")
