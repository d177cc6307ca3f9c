"""The table of networks, made again for one network of each family."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from nettailor_cli.core.backbones import catalog
from nettailor_cli.core.backbones.families import FAMILIES, family_of

SCRIPT = Path(__file__).parents[2] / "examples" / "backbones" / "table.py"
spec = importlib.util.spec_from_file_location("table", SCRIPT)
assert spec is not None and spec.loader is not None
table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(table)

SMALLEST = [
    min((arch for arch in catalog.ARCHS if family_of(arch) == family), key=lambda arch: catalog.network(arch).macs)
    for family in FAMILIES
]


def test_the_file_has_torchvisions_networks_in_the_scripts_order_and_form() -> None:
    text = catalog.TABLE.read_text(encoding="utf-8")
    assert tuple(table.archs()) == catalog.ARCHS
    assert table.text_of(json.loads(text)) == text


@pytest.mark.parametrize("arch", SMALLEST)
def test_a_row_made_again(arch: str) -> None:
    assert json.loads(catalog.TABLE.read_text(encoding="utf-8"))[arch] == table.row(arch)
