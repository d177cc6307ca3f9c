from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from tests.core.data.images import write_folder

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "data.py"


def test_every_way_is_measured_and_nothing_stays_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "data", *(f"train/{name}/{n}.png" for name in "ab" for n in range(4)))
    (tmp_path / "home").mkdir()
    main = runpy.run_path(str(SCRIPT))["main"]
    home = ("--home", str(tmp_path / "home"))
    main([str(folder), "--size", "16", "--repeats", "1", "--device", "cpu", "--precision", "fp32", *home])
    out, table = capsys.readouterr()
    result = json.loads(out)
    assert result["images"] == 8
    speeds = result["evaluate_images_per_second"]
    assert set(speeds) == {"files", "filling", "cache"} and min(speeds.values()) > 0
    assert result["evaluate_speed_up"] == pytest.approx(speeds["cache"] / speeds["files"])
    assert all(0 < result["epoch"][way]["share_of_data"] < 1 for way in ("files", "cache"))
    assert f"{speeds['cache']:.0f} images/s" in table
    assert not any((tmp_path / "home").iterdir())
