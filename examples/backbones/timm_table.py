"""Which of timm's networks can be tailored, and why the others can't: one line for each, on shapes alone.

    python examples/backbones/timm_table.py                  # all of timm.list_models(), which takes a while
    python examples/backbones/timm_table.py '*lite*' --parts 4 --part 0

Nothing is downloaded. What is said here is found again, and compared with the network's own output bit for bit,
whenever one of them is loaded.
"""

from __future__ import annotations

import argparse
from collections import Counter

from nettailor_cli.core.backbones.decomposition import decompose, make_network
from nettailor_cli.core.backbones.families import TIMM
from nettailor_cli.core.backbones.measures import measured
from nettailor_cli.core.backbones.timm_catalog import names
from nettailor_cli.core.errors import UsageError


def row(arch: str) -> tuple[bool, str]:
    """Whether it can be tailored, and its blocks, or the reason."""
    try:
        parts = decompose(arch, make_network(arch, "meta"))
        channels = measured(arch, parts).channels
    except UsageError as error:
        return False, error.message.removeprefix(f"{arch} can't be tailored: ")
    follows = type(parts.activation).__name__.replace("Identity", "nothing")
    return True, f"{len(parts.blocks)} blocks, {channels[0]} to {channels[-1]} channels, {follows} after a node"


def main() -> None:
    parser = argparse.ArgumentParser(description="Which of timm's networks can be tailored, and why the others can't.")
    parser.add_argument("pattern", nargs="?", default="*", help="of their names, as a shell would expand it")
    parser.add_argument("--parts", type=int, default=1, help="do one of so many equal parts of the list")
    parser.add_argument("--part", type=int, default=0, help="which one: 0 is the first")
    arguments = parser.parse_args()
    found: Counter[str] = Counter()
    for arch in names(TIMM + arguments.pattern)[arguments.part :: arguments.parts]:
        can, text = row(arch)
        found["yes" if can else text.partition(":")[0]] += 1
        print(f"{'yes' if can else 'no '} {arch.removeprefix(TIMM)}: {text}", flush=True)
    print(f"{found['yes']} of {found.total()} can be tailored")
    for reason, count in found.most_common():
        if reason != "yes":
            print(f"{count:4} can't: {reason}")


if __name__ == "__main__":
    main()
