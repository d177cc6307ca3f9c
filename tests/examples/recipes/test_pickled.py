from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import miniature
import numpy as np
import pytest
from pickled import read_arrays

from nettailor_cli.core.errors import DataError

VALUES = {"dtdmean": np.array([0.5, 0.25, 0.125]), "dtdstd": [0.1, 0.2, 0.3]}
NUMBERS = {"dtdmean": (0.5, 0.25, 0.125), "dtdstd": (0.1, 0.2, 0.3)}


def test_python_2s_form_is_read_as_unpickling_reads_it() -> None:
    data = miniature.python2_pickle(VALUES)
    unpickled = pickle.loads(data, encoding="latin1")
    assert {name: tuple(map(float, value)) for name, value in unpickled.items()} == NUMBERS
    assert read_arrays(data) == NUMBERS


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_lists_of_todays_pickles_are_read_too(protocol: int) -> None:
    assert read_arrays(pickle.dumps({"a": [0.1, 2]}, protocol=protocol)) == {"a": (0.1, 2.0)}


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_is_called(protocol: int, tmp_path: Path) -> None:
    data = pickle.dumps({"a": _Evil(tmp_path / "made")}, protocol=protocol)
    with pytest.raises(DataError):
        read_arrays(data)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle",
        pickle.dumps([1.0], protocol=2),
        pickle.dumps({"a": "text"}, protocol=2),
        pickle.dumps({"a": {"b": 1}}, protocol=2),
        miniature.python2_pickle(VALUES)[:-20],
        miniature.python2_pickle(VALUES).replace(b"K\x03\x85", b"K\x04\x85"),  # four numbers are promised
        miniature.python2_pickle(VALUES).replace(b"f8", b"O8"),  # an array of objects
        miniature.python2_pickle(VALUES).replace(b"numpy\ndtype", b"posix\nsystem"),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="pickle"):
        read_arrays(data)


def test_every_cut_is_refused_or_complete() -> None:
    data = miniature.python2_pickle(VALUES)
    for end in range(len(data)):
        with pytest.raises(DataError):
            read_arrays(data[:end])
