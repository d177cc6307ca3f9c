"""examples/trust/pictures.py on every kind of odd picture once; the long run has 1,000 and the commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "trust" / "pictures.py"


def test_every_kind_of_odd_picture_is_shown_right_or_refused_by_name(tmp_path: Path) -> None:
    """In a process of its own: it forks. Left out is what takes long and proves how much memory is taken."""
    command = [sys.executable, SCRIPT, tmp_path / "odd", "--count", "1", "--without-cli", "--without", "large"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row[1]: row.groups()[1:] for row in re.finditer(r"^(.{28}) *(\d+) +(\d+) +(\d+) +\d+$", done.stdout, re.M)}
    assert len(rows) > 25
    (right, refused, failed) = map(int, rows["all".ljust(28)])
    assert right > 150 and refused > 70 and failed == 0
    assert rows["bomb, honest".ljust(28)] == ("0", "2", "0")


def test_what_is_shown_wrong_is_a_failure(tmp_path: Path) -> None:
    """The script can fail: a decoder that does not turn pictures is found out."""
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import runpy, sys\n"
        f"sys.argv[0] = {str(SCRIPT)!r}\n"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "import odd_pictures\n"
        "import nettailor_cli.core.data\n"
        "decoder = sys.modules['nettailor_cli.core.data.decode']\n"
        "decoder._turn = lambda image: None\n"
        "kinds = sorted(set(odd_pictures.KINDS) - {'EXIF rotation'})\n"
        f"sys.argv[1:] = [{str(tmp_path / 'odd')!r}, '--count', '1', '--without-cli', '--without', *kinds]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, broken], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    # of 16, two lie as they should, and the three TIFFs are turned by Pillow
    assert done.stdout.count("FAILED: EXIF rotation") == 11 and "16 files, 11 failures" in done.stdout
