"""What a shell offers for an argument when Tab is pressed. No torch here: nobody waits for a Tab.

Pictures and folders of data are left to the shell's own completion of files, which takes over when we offer nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

SUFFIX = ".safetensors"


def model_files(incomplete: str) -> list[str]:
    """The model files that `incomplete` may become, and the folders on the way; a sole folder is gone into.

    (Shells end a sole offer with a space, and a folder is not the whole answer.) Nothing at all where a name needs
    quotes: every shell has other ones, and its own completion knows them.
    """
    folder, slash, start = incomplete.rpartition("/")
    offers = _offers(folder + slash, start)
    while len(offers) == 1 and offers[0].endswith("/") and (inside := _offers(offers[0], "")):
        offers = inside
    return offers if all(re.fullmatch(r"[\w./~+@%=-]+", offer) for offer in offers) else []


def _offers(folder: str, start: str) -> list[str]:
    """What is in `folder` ("" is the current one) and begins with `start`; what is hidden only if a dot was typed."""
    offers = []
    try:
        for entry in sorted(Path(folder).expanduser().iterdir()):
            if not entry.name.startswith(start) or (not start and entry.name.startswith(".")):
                continue
            if entry.is_dir():
                offers.append(f"{folder}{entry.name}/")
            elif entry.suffix == SUFFIX:
                offers.append(folder + entry.name)
    except (OSError, RuntimeError):  # not there, not allowed, ~nobody
        return []
    return offers
