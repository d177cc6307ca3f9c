"""Freed memory that stays with the process, seen by the page faults of whoever uses memory next."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource, sys
if sys.argv[1] == "kept":
    from nettailor_cli.core.allocation import keep_freed_memory
    keep_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
def use(size):
    memory = ctypes.c_void_p(c.malloc(size))
    c.memset(memory, 1, ctypes.c_size_t(size))
    c.free(memory)
use(90_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use(20_000_000), use(90_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's alone")
def test_kept_memory_is_not_taken_from_the_system_again() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True).stdout)
        for how in ("usual", "kept")
    }
    assert faults["usual"] > 100_000, "90 MB five times, in pages of 4 kB"
    assert faults["kept"] < 100
