"""Fetching one file from the web, checked against the SHA-256 that its name gives. Needs no torch."""

from __future__ import annotations

import hashlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from nettailor_cli.core.backbones.catalog import hash_in_url
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.progress import Progress

_TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 18  # bytes
_MB = 1_000_000


class DownloadError(Exception):
    """The file could not be had; the text says why in a few words."""


def download(url: str, path: Path, progress: Progress) -> None:
    """Write what `url` gives to `path`. Leaves something at `path` also when it fails: hand in a temporary one.

    Raises DownloadError when the web doesn't give the whole file, FileError when it is another file than its name says,
    and OSError when `path` can't be written.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:
        try:
            response = urlopen(Request(url, headers={"User-Agent": "nettailor"}), timeout=_TIMEOUT)
        except HTTPError as error:
            raise DownloadError(f"the server answers {error.code} {error.reason}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise DownloadError(f"no connection: {getattr(error, 'reason', error)}") from error
        with response:
            announced = int(response.headers.get("Content-Length") or 0)
            progress.start(f"download {url.rpartition('/')[2]} (MB)", announced // _MB)
            received = 0
            while True:
                try:
                    chunk = response.read(_CHUNK)
                except (OSError, HTTPException) as error:
                    raise DownloadError(f"the connection broke: {error}") from error
                if not chunk:
                    break
                file.write(chunk)
                digest.update(chunk)
                progress.advance((received + len(chunk)) // _MB - received // _MB)
                received += len(chunk)
            progress.finish()
    if received < announced:
        raise DownloadError(f"the connection broke after {received} of {announced} bytes")
    check_hash(url, digest.hexdigest(), url)


def check_hash(url: str, sha256: str, what: str) -> None:
    """Raises FileError, calling the file `what`, unless its SHA-256 starts as the name in `url` says."""
    expected = hash_in_url(url)
    if not sha256.startswith(expected):
        starts = sha256[: len(expected)]
        raise FileError(f"{what} is not the file it should be: its SHA-256 starts {starts}, not {expected}")
