"""How counts are written for people."""

from __future__ import annotations


def millions(count: int) -> str:
    """Parameters: "1.53 M", "9.5 k"."""
    return f"{count / 1e6:.2f} M" if count >= 10_000 else f"{count / 1e3:.1f} k"


def macs(count: int) -> str:
    """ "1.814 G", "4.98 M"."""
    return f"{count / 1e9:.3f} G" if count >= 1e8 else f"{count / 1e6:.2f} M"
