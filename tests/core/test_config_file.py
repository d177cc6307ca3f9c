from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.presets import resolve
from nettailor_cli.core.run import RunDirectory
from nettailor_cli.core.settings import FINETUNE, STAGES, TAILOR, TEACH, to_document
from tests.core.configs import config


def test_a_stages_table_wins_over_the_top_of_the_config(tmp_path: Path) -> None:
    file = config(tmp_path, "epochs = 3\nlr = 0.5\n[tailor]\nepochs = 4\nskips = 'dense'\n[teach]\nepochs = 5\n")
    assert [resolve(stage, flags={}, config=file).epochs for stage in (TEACH, TAILOR, FINETUNE)] == [5, 4, 3]
    assert {resolve(stage, flags={}, config=file).lr for stage in STAGES} == {0.5}
    assert resolve(TAILOR, flags={}, config=file).skips is None


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ephocs = 3", "epochs"),
        ("[tailor]\ngama1 = 3", "gamma1"),
        ("[tailr]\nepochs = 3", "tailor"),
        ("[teach]\nskips = 3", ""),
        ("something_else_altogether = 3", ""),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(UsageError, match="unknown key") as caught:
        resolve(FINETUNE, flags={}, config=config(tmp_path, text))
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


@pytest.mark.parametrize("text", ["epochs = ", "[tailor", "\xff"])
def test_a_config_that_is_not_toml_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="not TOML"):
        resolve(TEACH, flags={}, config=tmp_path / "config.toml")


def test_a_config_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.toml"):
        with pytest.raises(UsageError, match="can't read"):
            resolve(TEACH, flags={}, config=path)


ODD: dict[str, dict[str, Any]] = {
    TEACH: {"epochs": 7, "lr": 1e-5, "group": 'a\\d+"\n', "augment": "crop", "flip": False},
    TAILOR: {"skips": "dense", "proxy_width": 12, "gamma1": 0.1 + 0.2, "exclusion": "independence", "seed": 2**31 - 1},
    FINETUNE: {"epochs": 9, "hint": "block-local", "memory_limit": 10**12, "cache_limit": 0, "patience": 4},
}


def test_a_run_toml_as_written_is_a_config(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.record(
        {"run": {"backbone": "resnet18.x", "data": "/d", "preprocessing": {"size": 96, "mean": [0.5, 0.5, 0.5]}}}
    )
    written = {stage: resolve(stage, flags=flags) for stage, flags in ODD.items()}
    for stage, settings in written.items():
        run.record({stage: to_document(settings, stage)})
    assert set(tomllib.loads(run.toml.read_text())) == {"run", *STAGES}
    for stage, settings in written.items():
        assert resolve(stage, flags={}, config=run.toml) == settings
