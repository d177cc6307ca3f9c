"""python -m nettailor_cli"""

from nettailor_cli.cli.app import app


def main() -> None:
    """The console script `nettailor`."""
    app()


if __name__ == "__main__":
    main()
