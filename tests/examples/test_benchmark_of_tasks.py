from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "tasks.py"


def test_everything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    module = runpy.run_path(str(SCRIPT))
    words = ["--size", "32", "--tasks", "1", "3", "--together", "2", "--prefixes", "0", "2", "--rounds", "2"]
    words += ["--seconds", "0", "--threads", "1"]
    module["main"]([*words, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert min(spread["median"] for spread in result["switch_ms"].values()) > 0
    memory = result["memory_mb"]
    # two more whole networks are 2 x 45 MB; two more tasks are a few MB each
    assert memory["3"]["whole networks"] - memory["1"]["whole networks"] > 60
    assert memory["3"]["one backbone"] - memory["1"]["one backbone"] < 45
    assert 0 < memory["without any"] < memory["1"]["one backbone"]
    for prefix, rows in result["together"].items():
        assert rows["together"]["macs"] < rows["one by one"]["macs"] < rows["whole networks"]["macs"]
        assert rows["one by one"]["of_one_by_one"]["median"] == 1.0
        assert all(row["ms"]["median"] > 0 for row in rows.values()), prefix
    shares = [rows["together"]["macs"] / rows["one by one"]["macs"] for rows in result["together"].values()]
    assert shares[1] < shares[0], "a longer prefix shares more"
    module["show"](result, as_json=False)
    people = capsys.readouterr().out
    assert f"3 tasks: {memory['3']['one backbone']:.0f} MB" in people and "shared prefix 2:" in people
