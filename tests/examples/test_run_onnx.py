"""examples/deploy/run_onnx.py, which has neither nettailor nor torch, against `nettailor predict`."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.helpers import CLASSES, ONE, Workshop, make_workshop, nettailor, ok, picture

SCRIPT = Path(__file__).parents[2] / "examples" / "deploy" / "run_onnx.py"
ALONE = f"""
import runpy, sys
for name in ("nettailor_cli", "torch", "torchvision", "onnx", "safetensors"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.getbasetemp())


@pytest.fixture
def student(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of other attention than the workshop's, which is sure of everything."""
    monkeypatch.setenv("NETTAILOR_HOME", str(shop.home))
    run = shop.copy_run(tmp_path / "run")
    ok("tailor", "--run", run, *ONE, "--logits-clip", "0", "--force")
    return run / "student.safetensors"


@pytest.fixture
def onnx(student: Path, tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    ok("export", student, "--format", "onnx", "-o", path)
    return path


def alone(*args: object) -> subprocess.CompletedProcess[str]:
    code = [sys.executable, "-c", ALONE, "run_onnx.py", *map(str, args)]
    return subprocess.run(code, capture_output=True, text=True, check=False, timeout=100)


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def strange_pictures(folder: Path) -> None:
    """Every kind that decoding treats in a way of its own."""
    rng = np.random.default_rng(0)
    large = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).resize((700, 400))
    large.save(folder / "large.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    large.resize((90, 70)).save(folder / "turned.jpg", exif=turned)
    Image.fromarray(rng.integers(0, 65536, (50, 40), dtype=np.uint16)).save(folder / "deep.png")
    Image.fromarray(rng.random((50, 40), dtype=np.float32)).save(folder / "float.tif")
    Image.fromarray(rng.integers(0, 256, (37, 80, 4), dtype=np.uint8)).save(folder / "transparent.png")
    Image.fromarray(rng.integers(0, 256, (64, 33), dtype=np.uint8)).save(folder / "gray.bmp")
    picture(CLASSES[0], rng).convert("P").save(folder / "palette.gif")


def test_predicts_what_the_tool_predicts_picture_by_picture(
    shop: Workshop, student: Path, onnx: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "strange"
    folder.mkdir()
    strange_pictures(folder)
    pictures = [*sorted((shop.data / "test").rglob("*.png")), *sorted(folder.iterdir())]
    ours = rows(ok("predict", student, *pictures, "--format", "csv").out)
    done = alone(onnx, *pictures)
    assert (done.returncode, done.stderr) == (0, "")
    theirs = rows(done.stdout)
    assert theirs[0] == ours[0] and len(theirs) == 1 + len(pictures)
    for mine, its in zip(ours[1:], theirs[1:], strict=True):
        assert its[0] == mine[0] and its[1:-1:2] == mine[1:-1:2] and its[-1] == mine[-1] == ""
        assert [float(p) for p in its[2:-1:2]] == pytest.approx([float(p) for p in mine[2:-1:2]], abs=2e-6)
    # the comparison says something: pictures differ by far more than that
    assert len({row[2] for row in ours[1:]}) > len(pictures) // 2


def test_pictures_that_cannot_be_read(shop: Workshop, student: Path, onnx: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "\x1b[31m\n\u202e.png"
    hostile.write_bytes(b"nothing")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    good = next((shop.data / "test").rglob("*.png"))
    done = alone(onnx, tmp_path / "bad.png", good, "--top-k", "1")
    assert (done.returncode, done.stderr) == (2, "")
    head, bad, last = rows(done.stdout)
    assert bad[0] == str(tmp_path / "bad.png") and bad[1:3] == ["", ""] and bad[3]
    done = alone(onnx, hostile)
    assert done.returncode == 2 and done.stdout.replace("\n", "").isprintable()
    assert f"{tmp_path}/\\x1b[31m\\n\\u202e.png" in done.stdout
    words = ("predict", student, good, "--top-k", "1", "--format", "csv")
    assert [head, last] == rows(nettailor(*words).out)
