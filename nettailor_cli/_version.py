"""The version, alone in a file that anything may import."""

__version__ = "0.1.0"
