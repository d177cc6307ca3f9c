"""The page of examples is run as it stands, and what it computes is compared with the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nettailor_cli
from nettailor_cli import NettailorError, choose_machine, load_model, probabilities
from tests.cli.helpers import CLASSES, TEST_IMAGES, Workshop, make_workshop, nettailor, ok

PAGE = Path(__file__).parents[2] / "examples" / "python_api.md"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.getbasetemp())


@pytest.fixture
def folder(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page names: a model, photos (one of them broken) and labelled pictures; the backbone in ~/.nettailor."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".nettailor").symlink_to(shop.home)
    (tmp_path / "model.safetensors").symlink_to(shop.run / "teacher.safetensors")
    (tmp_path / "flowers").symlink_to(shop.data)
    (tmp_path / "photos").mkdir()
    for place, name in enumerate(CLASSES):
        picture = (shop.data / "test" / name / "00.png").read_bytes()
        (tmp_path / "photos" / f"{place}.png").write_bytes(picture)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"nothing")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETTAILOR_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_runs_and_agrees_with_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(snippets) == 5
    names: dict[str, Any] = {}
    printed = []
    for snippet in snippets:
        exec(compile(snippet, str(PAGE), "exec"), names)
        printed.append(capsys.readouterr().out)
    assert all(printed)

    # predict
    told = nettailor("predict", "model.safetensors", "photos", "--format", "jsonl", "--top-k", "3")
    rows = {Path(row["image"]).name: row for row in map(json.loads, told.out.splitlines())}
    for name in ("0.png", "1.png", "2.png"):
        assert re.search(rf"^photos/{name} {rows[name]['classes'][0]['class']} ", printed[1], re.MULTILINE)
    assert "photos/broken.jpg can't be read: not a picture" in printed[1]

    # in memory
    classify: Callable[[bytes], dict[str, float]] = names["classify"]
    for name in ("0.png", "1.png", "2.png"):
        shares = classify((folder / "photos" / name).read_bytes())
        assert shares == pytest.approx({c["class"]: c["probability"] for c in rows[name]["classes"]}, abs=1e-5)

    # evaluate
    document = ok("evaluate", "model.safetensors", "--data", "flowers", "--json").document
    assert names["counts"].tolist() == document["confusion"]
    assert f"{document['accuracy']:.2f} % of {TEST_IMAGES} images on test" in printed[3]
    assert "there is no file none.safetensors" in printed[4]


def test_every_name_is_there_and_none_costs_anything_before_it_is_used() -> None:
    for name in nettailor_cli.__all__:
        assert getattr(nettailor_cli, name) is not None
        assert name in dir(nettailor_cli)
        assert name.startswith("__") or name in str(nettailor_cli.__doc__), name
    with pytest.raises(AttributeError, match="nothing"):
        nettailor_cli.nothing  # noqa: B018
    code = (
        "import sys; from nettailor_cli import read_document, NettailorError; "
        "print([name for name in ('torch', 'numpy', 'PIL', 'typer') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.filterwarnings("error")
def test_pictures_of_another_size_or_type_are_refused(shop: Workshop) -> None:
    model = load_model(shop.run / "teacher.safetensors", home=shop.home)
    side = model.document.preprocessing.resize
    machine = choose_machine("cpu", "fp32")
    square = np.asarray(Image.new("RGB", (side, side)))
    assert probabilities(model, square[None], machine).shape == (1, len(CLASSES))
    for wrong in (square, square[None, 1:], square[None].astype(np.float32), square[None, :, :, :1]):
        with pytest.raises(NettailorError, match=rf"uint8 \(N, {side}, {side}, 3\)"):
            probabilities(model, wrong, machine)
