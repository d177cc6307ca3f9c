"""python -m nettailor_cli"""

import os
import sys
import warnings

from nettailor_cli.cli import processes
from nettailor_cli.cli.app import app


def main() -> None:
    """The console script `nettailor`."""
    # Pillow warns of oddities inside pictures that it reads all the same; what it can't read is our error
    warnings.filterwarnings("ignore", module="PIL")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (>&-)
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
        # a terminal that does not know a character gets its number, not a crash
        getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        app()
    except OSError as error:  # of --help and the like: the commands report their own
        sys.exit(f"error: can't write to standard output: {error.strerror}")
    except SystemExit as ending:
        if ending.code is None or isinstance(ending.code, int):
            processes.end(ending.code or 0)
        raise


if __name__ == "__main__":
    main()
