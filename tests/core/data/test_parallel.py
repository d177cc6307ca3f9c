from __future__ import annotations

import threading

import pytest

from nettailor_cli.core.data.parallel import in_parallel


def test_results_come_in_order():
    assert list(in_parallel(lambda n: n * n, range(1000), 4)) == [n * n for n in range(1000)]


def test_an_error_arrives_and_what_has_not_begun_is_dropped():
    done = []

    def work(n: int) -> int:
        if n == 20:
            raise KeyError(n)
        done.append(n)
        return n

    with pytest.raises(KeyError):
        list(in_parallel(work, range(100_000), 1))
    assert len(done) < 100_000


def test_leaving_early_ends_the_threads():
    results = in_parallel(lambda n: n, range(100_000), 2)
    assert next(results) == 0
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nettailor-data")]
