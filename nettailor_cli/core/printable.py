"""Text from files (class names, paths), made harmless for terminals, logs and pictures."""

from __future__ import annotations


def harmless(text: object) -> str:
    """`text` with control characters, terminal escapes and lone surrogates shown as escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii") for c in str(text)
    )
