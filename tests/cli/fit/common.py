"""What the tests of fit have in common."""

from __future__ import annotations

from pathlib import Path

from tests.cli.helpers import BASE

MACHINE = BASE[4:]


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "search").glob("*.safetensors"))}
