"""A handful of kills; `examples/trust/kills.py` has hundreds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.trust.conftest import SCRIPTS

pytestmark = pytest.mark.slow


def test_killed_at_random_moments_nothing_is_lost_and_the_bytes_are_the_same() -> None:
    """By itself: it replaces torchvision's network, and forks."""
    command = [sys.executable, str(SCRIPTS / "kills.py"), "--runs", "1", "--commands", "teach", "prune"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    teach, prune = map(json.loads, done.stdout.splitlines())
    for result in (teach, prune):
        assert result["runs"] == 1 and result["kills"] >= 2 and result["files_looked_at"] > 0
    assert {*teach["steps_lost"]} <= {"0", "1"}
