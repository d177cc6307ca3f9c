"""python -m nettailor_cli"""

import warnings

from nettailor_cli.cli.app import app


def main() -> None:
    """The console script `nettailor`."""
    # Pillow warns of oddities inside pictures that it reads all the same; what it can't read is our error
    warnings.filterwarnings("ignore", module="PIL")
    app()


if __name__ == "__main__":
    main()
