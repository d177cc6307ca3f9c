"""Fixtures of the command line's tests. Nothing here reaches the network, and nothing is kept outside tmp_path."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import NoReturn

import pytest
from safetensors.torch import save_file

from nettailor_cli.core.backbones import download
from tests.cli.helpers import Workshop, make_workshop, random_state


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.getbasetemp())


@pytest.fixture
def run(shop: Workshop, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    return shop.copy_run(tmp_path / "run")


def no_network(*args: object, **options: object) -> NoReturn:
    raise urllib.error.URLError("no network in the tests")


@pytest.fixture(autouse=True)
def surroundings(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workshop's backbones, an empty working directory, no network, and no terminal."""
    monkeypatch.setenv("NETTAILOR_HOME", str(shop.home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for processes
    for name in ("COLUMNS", "LINES", "NETTAILOR_DEBUG", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "urlopen", no_network)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(scope="session")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another resnet18."""
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    save_file(random_state(1), path)
    return path
