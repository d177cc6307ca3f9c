"""examples/deploy/served.py: what it counts, and that it counts what differs."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest

from tests.cli.helpers import TEST_IMAGES, make_workshop

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "deploy" / "served.py"


def test_every_picture_is_compared(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxruntime")
    assert shutil.which("nettailor"), "the script calls the command"
    shop = make_workshop(tmp_path_factory.getbasetemp())
    monkeypatch.setenv("NETTAILOR_HOME", str(shop.home))
    pictures = str(shop.data / "test")
    model = str(shop.run / "model.safetensors")
    runpy.run_path(str(SCRIPT))["main"](["--out", str(tmp_path), "lean", model, pictures])
    line, last = capsys.readouterr().out.splitlines()
    assert line.startswith("lean: served ")
    assert line.count(f"{TEST_IMAGES} of {TEST_IMAGES} alike, probabilities to ") == 2
    assert last.startswith("switch: ") and " MB at most" in last
    assert (tmp_path / "lean.onnx").exists()


def test_a_difference_is_told() -> None:
    compared = runpy.run_path(str(SCRIPT))["compared"]
    expected = {"a": ("cat", 0.75), "b": ("dog", 0.5)}
    assert compared(expected, {"a": ("cat", 0.5), "b": ("cat", 0.5)}) == "1 of 2 alike, probabilities to 2e-01"
    with pytest.raises(AssertionError):
        compared(expected, {"a": ("cat", 0.75)})
