"""nettailor: tailor pretrained image networks."""

from nettailor_cli._version import __version__

__all__ = ["__version__"]
