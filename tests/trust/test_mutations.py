"""A few hundred rounds of examples/trust/mutations.py; ten thousand, and those through commands, are run by hand."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[2] / "examples" / "trust"
ROUNDS = 400


@pytest.fixture
def mutations(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import mutations

    yield mutations
    for name in ("mutations", "mutating", "specimens"):
        sys.modules.pop(name, None)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_whatever_is_done_to_a_file_it_is_refused_or_read_as_it_is(
    mutations: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # memory and time are the long run's affair: other tests share this process
    results = list(mutations.rounds(range(ROUNDS), 7, measured=False))
    assert mutations.show(results) == 0, capsys.readouterr().out
    outcomes = Counter(result.outcome for result in results)
    assert len(results) == ROUNDS == sum(outcomes.values())
    assert outcomes["refused"] > ROUNDS / 2 and outcomes["same content"] > 0 and outcomes["as forged"] > 0
    assert len({result.kind for result in results}) == 10


def test_a_reader_that_lets_something_through_is_found(mutations: Any, tmp_path: Path) -> None:
    from mutating import ANY
    from specimens import Specimen

    def careless(path: Path) -> str:
        return path.read_bytes().decode("latin-1")

    def broken(path: Path) -> str:
        raise KeyError("x")

    path = tmp_path / "f"
    path.write_bytes(b"changed")
    way = mutations.Way("bit flips", ANY["bit flips"])
    for read, reason in ((careless, "another content"), (broken, "KeyError")):
        specimen = Specimen("any", "f", b"whole", read)
        outcome, why = mutations._outcome(specimen, way, path, "whole", 7, measured=False)
        assert outcome == "FAILED" and reason in why
    refused = mutations.Way("code", ANY["cut"], mutations.REFUSED)
    assert mutations._outcome(Specimen("any", "f", b"", careless), refused, path, "changed", 7, measured=False) == (
        "FAILED",
        "was read",
    )
