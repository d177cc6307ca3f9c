"""One thread of arithmetic per test process: the networks are tiny, and a test should not depend on the core count."""

import sys

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra `plot` were not installed."""
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
