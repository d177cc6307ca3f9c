"""Looking at what is stored must not wait for torch."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_TORCH = """
import sys
from pathlib import Path
import nettailor_cli.core.backbones
import nettailor_cli.core.backbones.download
from nettailor_cli.core.backbones.catalog import ARCHS, download_url, parse_name
from nettailor_cli.core.backbones.listing import listing
listing(Path("/nowhere")), parse_name("resnet18"), download_url(parse_name("resnet50.imagenet1k_v2"))
assert "torch" not in sys.modules and "numpy" not in sys.modules, "torch was imported"
"""


def test_names_and_listing_need_no_torch() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True)
