"""The engine: a library that knows nothing of the terminal."""
