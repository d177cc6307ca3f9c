"""What holds for every test: one thread of arithmetic, and the same random numbers each time.

The networks are tiny, and a test should not depend on the core count. And torch's own generator starts anywhere: a
test that draws from it would see other numbers in each run, and once in a hundred runs numbers that it can't use.
"""

import sys

import pytest
import torch

torch.set_num_threads(1)
torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra `plot` were not installed."""
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
