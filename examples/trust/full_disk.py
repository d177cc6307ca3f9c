"""A disk that is full, or fails, from each moment on at which a command changes a file.

    python examples/trust/full_disk.py                                # every moment of teach, tailor, prune, finetune
    python examples/trust/full_disk.py --commands fit --every 20      # every 20th of fit's; --first 2: the next ones
    python examples/trust/full_disk.py --error EROFS                  # as if it were read-only from then on

As `kills.py`, which makes what it needs, but nothing is killed: from operation number N on, making a file or folder,
writing, flushing and renaming fail (ENOSPC: No space left on device), for every N. Half of the times over an older run,
with --force. Then there must be one message that names a file, the exit code of the error (1; 2 where it is about
rights), nothing half written, every file under a final name whole, the older result as it was. The same command with
--resume on a disk with room must end with the bytes of an undisturbed run. What can do without the disk may go on.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from kills import COMMANDS, Attempt, Broken, Looks, Place, compare, get_ready, prepare, temporaries

RESULTS = {"teach": "teacher", "tailor": "student", "prune": "pruned", "finetune": "model", "fit": "model"}
ABOUT_RIGHTS = {errno.EROFS, errno.EACCES, errno.EPERM}


def wait(_: float) -> bool:
    """Leaves the processor to the command; nothing is killed here."""
    time.sleep(0.005)
    return False


def trial(command: str, number: int, place: Place, error: int) -> str:
    """One command with a disk that fails from operation `number` on. How it went. Raises Broken."""
    folder, trace = place.root / "trial", place.root / "trace"
    shutil.rmtree(folder, ignore_errors=True)
    forced = number % 2 == 1
    shutil.copytree(place.whole(command) if forced else place.start(command), folder)
    result = folder / "run" / f"{RESULTS[command]}.safetensors"
    older = result.read_bytes() if forced else None
    args = place.typed(command, folder, again=False)
    attempt = Attempt([*args, "--force"] if forced else args, folder, trace, 0.0, number, error)
    attempt.go(wait)
    Looks(folder)()
    if attempt.code == 0:
        went = "did without"
    else:
        went = "refused"
        said = attempt.said
        expected = 2 if error in ABOUT_RIGHTS else 1
        if attempt.code != expected or said.count("error: ") != 1 or "Traceback" in said or "a bug" in said:
            raise Broken(f"exit {attempt.code}, and it says:\n{said}")
        if str(folder) not in said.partition("error: ")[2].split("\n")[0]:
            raise Broken(f"no file is named:\n{said}")
        if temporaries(folder) or (folder / "run" / ".lock").exists():
            raise Broken("something half written stays behind")
        if older is not None and command != "fit" and result.read_bytes() != older:  # fit's --force takes it away first
            raise Broken("the older result is another")
        again = Attempt(place.typed(command, folder, again=True), folder, trace, 0.0)
        again.go(wait)
        if again.code != 0:
            raise Broken(f"then, with --resume: exit {again.code}\n{again.said}")
    if went == "refused" or forced:
        compare(folder, place.whole(command))
    elif result.read_bytes() != (place.whole(command) / "run" / result.name).read_bytes():
        raise Broken("another result")
    return went


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS[:4])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th moment")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="the moment to begin with")
    parser.add_argument("--error", default="ENOSPC", choices=("ENOSPC", "EIO", "EDQUOT", "EROFS", "EACCES"))
    given = parser.parse_args(args)
    get_ready()
    error = getattr(errno, given.error)
    with tempfile.TemporaryDirectory(prefix="full-disk-") as temporary:
        place = Place(Path(temporary))
        plain = prepare(place, given.commands)
        for command in given.commands:
            went: Counter[str] = Counter()
            for number in range(given.first, plain[command].operations + 1, given.every):
                try:
                    went[trial(command, number, place, error)] += 1
                except Broken as broken:
                    sys.exit(f"{command}, operation {number}, {os.strerror(error)}: {broken}")
            operations = plain[command].operations
            print(json.dumps({"command": command, "operations": operations, "tried": went.total(), **went}), flush=True)


if __name__ == "__main__":
    main()
