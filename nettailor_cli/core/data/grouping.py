"""Which group each picture belongs to: what a pattern finds in its name (see `splits`).

Somebody else's model file brings its own pattern, for `evaluate`. A regular expression can take longer than anybody
waits ("(a+)+$"), and re has no limit of time. So another process looks, which can be stopped from any thread on any
system; it costs some 20 ms.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from nettailor_cli.core.data.dataset import Example
from nettailor_cli.core.errors import DataError, UsageError

SECONDS = 20.0
"""For all names together; a million of them take an honest pattern about one."""

_SEARCH = """
import json, re, sys
pattern, names = json.load(sys.stdin)
pattern = re.compile(pattern)
key = 1 if pattern.groups else 0
found = map(pattern.search, names)
json.dump([match and match.group(key) for match in found], sys.stdout)
"""


def check_group(group: str) -> None:
    """Raises UsageError when it is no regular expression."""
    try:
        re.compile(group)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f'--group "{group}" is not a regular expression: {error}') from error


def group_keys(examples: Sequence[Example], group: str) -> list[str]:
    """The group of each example: the first capture group of `group` in its name, or the whole match without one.

    Raises UsageError for a pattern that is none or takes longer than `SECONDS`, DataError for a name without a group.
    """
    check_group(group)
    asked = json.dumps([group, [example.name for example in examples]])
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SEARCH], input=asked, text=True, capture_output=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f'--group "{group}" takes more than {SECONDS:g} seconds for {len(examples)} names',
            "a repetition of a repetition, like (a+)+, can take for ever; a simpler pattern does not",
        ) from None
    if done.returncode != 0:
        raise UsageError(f'--group "{group}" could not be searched for: {done.stderr.strip()[-200:]}')
    keys: list[str] = []
    for example, key in zip(examples, json.loads(done.stdout), strict=True):
        if not key:  # an empty key, too, names no group: it would tie together all that have nothing in common
            raise DataError(
                f'--group "{group}" finds no group in "{example.name}"', "the pattern has to match every image's name"
            )
        keys.append(key)
    return keys
