from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from nettailor_cli.core.stages.environment import changes_since, environment_of
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.processes import ALONE, Processes

CPU = Machine(torch.device("cpu"), bf16=True, reason="")


def test_it_names_the_machine_its_threads_and_the_versions() -> None:
    found = environment_of(CPU, ALONE)
    assert found["threads"] == torch.get_num_threads() and found["precision"] == "bf16" and found["device"] == "cpu"
    assert found["torch"] == torch.__version__ and found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["name"] and found["simd"] and found["pillow"] and found["nettailor"]
    assert json.loads(json.dumps(found)) == found and found == environment_of(CPU, ALONE)
    assert "processes" not in found
    assert environment_of(CPU, Processes(1, 2, 1))["processes"] == 2


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ({}, []),
        ({"threads": 1, "torch": "2"}, []),
        ({"threads": 4}, ["1 threads now, 4 before"]),
        ({"torch": "1", "name": "B", "device": "cpu"}, ["A now, B before", "torch 2 now, 1 before"]),
        ({"simd": "AVX2", "unknown": 1}, []),  # not known of now
    ],
)
def test_what_has_changed_since(before: dict[str, object], said: list[str]) -> None:
    assert changes_since(before, {"threads": 1, "torch": "2", "name": "A", "python": "3"}) == said
