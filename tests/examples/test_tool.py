"""examples/results/tool.py: what the scripts of results/ and recipes/ share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.recipes import conftest  # noqa: F401  puts examples/results on the path

FOLDER = Path(__file__).parents[2] / "examples" / "results"

# it sleeps first: who starts it is then past the start, and waits for it
COMMAND = """#!/bin/sh
trap 'sleep 0.6; echo saved > saved; exit 130' INT
sleep 0.5
echo ready > ready
while :; do sleep 0.05; done
"""


def test_ctrl_c_waits_for_the_command_to_save_its_state(tmp_path: Path) -> None:
    command = tmp_path / "nettailor"
    command.write_text(COMMAND)
    command.chmod(0o755)
    script = f"import sys; sys.path.append({str(FOLDER)!r}); import tool; tool.nettailor('teach')"
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        # a shell's background job, as this test may be one, has it ignored, and so would all that it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        while not (tmp_path / "ready").exists():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (tmp_path / "saved").exists(), "subprocess.run would have killed it after a quarter of a second"
    assert process.returncode == 1 and told == "nettailor teach: stopped; the same command goes on\n"


def test_test_is_looked_at_once_for_a_file_and_again_for_another_network_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tool

    model, asked = tmp_path / "model.safetensors", []

    def evaluate(*words: object) -> dict[str, object]:
        asked.append(words)
        return {"accuracy": 70.0 + len(asked)}

    monkeypatch.setattr(tool, "nettailor", evaluate)
    model.write_bytes(b"one")
    assert [tool.on_test(model, tmp_path) for _ in range(2)] == [71.0, 71.0]
    model.write_bytes(b"another, of a search that chose anew")
    assert [tool.on_test(model, tmp_path) for _ in range(2)] == [72.0, 72.0]
    assert asked == [("evaluate", model, "--data", tmp_path, "--split", "test")] * 2


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ({1: 90, 2: 90, 3: 90, 4: 90}, 4),
        ({1: 90, 2: 90, 3: 80, 4: 70}, 2),
        ({1: 90, 2: 80, 3: 80, 4: 70}, 1),
        ({1: 80, 2: 70, 3: 60, 4: 50}, 1),  # none: the best of those tried
        ({1: 70, 2: 80, 3: 75, 4: 90}, 2),  # 4 is not tried: as if accuracy only fell
    ],
)
def test_the_leanest_within_reach(accuracies: dict[int, float], expected: int) -> None:
    import tool

    tried: list[int] = []

    def accuracy(k: int) -> float:
        tried.append(k)
        return accuracies[k]

    assert tool.leanest(tuple(accuracies), accuracy, 85.0) == expected
    assert len(tried) <= 3
