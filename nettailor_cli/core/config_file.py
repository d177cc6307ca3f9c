"""A TOML file of settings; a run's own run.toml is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nettailor_cli.core.errors import UsageError, did_you_mean
from nettailor_cli.core.files import read_small
from nettailor_cli.core.settings import FIELDS, STAGES, fields_of
from nettailor_cli.core.strict import LARGEST_TOML, parse_toml


def read_config(path: Path, stage: str) -> dict[str, Any]:
    """The settings for `stage` in a TOML file: its top-level keys, then those of the table [stage].

    A run's own run.toml is such a file. Raises UsageError when it can't be read or has an unknown key.
    """
    document = _read_toml(path)
    document.pop("size", None)  # see size_in
    for name in ("run", "machine", "prune", "fit"):  # what a run.toml says of these is no setting of a training stage
        if isinstance(document.get(name), dict):
            del document[name]
    tables = {name: document.pop(name) for name in STAGES if isinstance(document.get(name), dict)}
    for where, table in (("", document), *tables.items()):
        for key in table:
            if key not in FIELDS or (where and key not in fields_of(where)):
                place = f"[{where}] of " if where else ""
                known = fields_of(where) if where else (*FIELDS, *STAGES)
                raise UsageError(f"unknown key {key!r} in {place}{path}", did_you_mean(key, known))
    own = tables.get(stage, {})
    return {**document, **own}


def size_in(path: Path) -> int | None:
    """The input size that a config file names: `size` at its top, or the size of the run whose run.toml it is."""
    document = _read_toml(path)
    run = document.get("run", {})
    pictures = run.get("preprocessing") if isinstance(run, dict) else None
    size = document.get("size", pictures.get("size") if isinstance(pictures, dict) else None)
    if size is not None and (type(size) is not int or not 8 <= size <= 4096):
        raise UsageError(f"size in {path} is a number of pixels between 8 and 4096, not {size!r}")
    return size


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(read_small(path, LARGEST_TOML))
    except OSError as error:
        raise UsageError(f"can't read the config file {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the config file {path} is not TOML: {error}") from error
