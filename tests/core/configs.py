"""A config file for tests."""

from __future__ import annotations

from pathlib import Path


def config(tmp_path: Path, text: str) -> Path:
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    return tmp_path / "config.toml"
