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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.files import explained, read_small, remove_leftovers, write_text
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.settings import STAGES
from nettailor_cli.core.strict import LARGEST_TOML, parse_json, parse_toml
from nettailor_cli.core.validation import fingerprint, table, text, whole


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
        """What run.toml says; empty when there is none. Raises FileError when it is damaged.

        What is in the tables is checked where it is used as a setting; what is used as it is, is checked here.
        """
        try:
            document = parse_toml(read_small(self.toml, LARGEST_TOML))
            _check(document)
            return document
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageError(f"can't read {self.toml}: {error.strerror}") from error
        except KeyError as error:
            raise FileError(f"{self.toml} is damaged: [run] has no {error}", _ANOTHER) from error
        except (ValueError, TypeError) as error:
            raise FileError(f"{self.toml} is damaged: {error}", _ANOTHER) from error

    def record(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace these tables of run.toml, all or none. None is left out: TOML has no such value.

        Raises UsageError for a path that is not valid UTF-8, for TOML has none of these, either.
        """
        document = self.read()
        for name, values in tables.items():
            document[name] = {key: value for key, value in values.items() if value is not None}
        content = tomli_w.dumps(document)
        try:
            content.encode()
        except UnicodeEncodeError as error:
            line = content[content.rfind("\n", 0, error.start) + 1 :].partition("\n")[0]
            message = f"{self.toml} can't hold {line}: the name is not valid UTF-8"
            raise UsageError(message, "rename that file or folder") from error
        write_text(self.toml, content)

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
        # what is no text is no line of ours: it was cut short by a crash
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


_ANOTHER = "delete it, or choose another --run"
LONGEST_PATH = 4096
"""Characters; Linux's own limit."""


def _check(document: Mapping[str, Any]) -> None:
    """Raises KeyError, TypeError or ValueError when what stages take from run.toml can't be."""
    for name in ("run", "machine", "fit", "prune", *STAGES):
        table(document.get(name, {}), f"[{name}]")
    run = document.get("run", {})
    for key in ("backbone", "data"):
        text(run.get(key, ""), f"run.{key}", longest=LONGEST_PATH)
    if "fingerprint" in run:
        run["backbone"]  # what has this fingerprint
        fingerprint(run["fingerprint"], "run.fingerprint")
        Preprocessing.from_json(table(run["preprocessing"], "run.preprocessing"))
    machine = document.get("machine", {})
    for key in ("threads", "processes"):
        whole(machine, key, "machine", 1)
    table(document.get("fit", {}).get("flags", {}), "fit.flags")


def _is_after(line: str, stage: str, file: str, epoch: int) -> bool:
    try:
        record = parse_json(line)
        return (record["stage"], record["file"]) == (stage, file) and record["epoch"] > epoch
    except (ValueError, TypeError, KeyError):
        return True  # cut short by a crash


def refuse_to_overwrite(path: Path, *, force: bool) -> None:
    """Raises UsageError when `path` is there already and `force` isn't given."""
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", "--force replaces it; --run or -o writes somewhere else")
