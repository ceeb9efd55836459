# SPDX-License-Identifier: Apache-2.0
"""The archive's JSON files: readable by a person; and of those that cannot be read, which may be another time."""

import errno
import json
import os
import stat
import time
from typing import Any, BinaryIO

from pstored.errors import ArchiveError, DiskError

MAX_JSON = 64 * 1024 * 1024
"""No file of ours is larger; one that is has been tampered with."""


def dump_json(value: object) -> bytes:
    """As all our JSON files are written: readable, one newline at the end; bytes that are no UTF-8 as \\udcXX."""
    return (json.dumps(value, indent=2) + "\n").encode()


def utc(seconds: float | None = None) -> str:
    """A time in our JSON files: ISO 8601, whole seconds, UTC; now, if none is given."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def seal(document: dict[str, Any]) -> dict[str, Any]:
    """The document with a digest of itself, so that a flipped bit in it is noticed by ``pstored verify``."""
    return document | {"digest": _digest(document)}


def is_sealed(document: dict[str, Any]) -> bool:
    """Whether a document still is what :func:`seal` gave."""
    return document.get("digest") == _digest({k: v for k, v in document.items() if k != "digest"})


def _digest(document: dict[str, Any]) -> str:
    """SHA-256 of the document as compact JSON with sorted keys."""
    import hashlib

    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def open_own(path: str) -> BinaryIO:
    """Open a file of the archive, to be read: what stands under that name itself, never what a link or a pipe leads to.

    Raises:
        FileNotFoundError: there is none, or it is no plain file: of us there is none then.
        OSError: it cannot be read now.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as e:
        if e.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise FileNotFoundError(errno.ENOENT, _NO_FILE, path) from e
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return open(fd, "rb")
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise FileNotFoundError(errno.ENOENT, _NO_FILE, path)


_NO_FILE = "it is no plain file, so it is none of ours"


def load_json(path: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ArchiveError: the file is not there, too large, or holds none.
        DiskError: it cannot be read now.
    """
    try:
        with open_own(path) as f:
            data = f.read(MAX_JSON + 1)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise ArchiveError(f"there is no {path!r}" + f": {e.strerror}" * (e.strerror == _NO_FILE)) from e
    except OSError as e:
        raise DiskError(f"cannot read {path!r}: {e.strerror or e}") from e
    try:
        value = json.loads(data) if len(data) <= MAX_JSON else None
    except (ValueError, RecursionError) as e:
        raise ArchiveError(f"cannot read {path!r}: {e}") from e
    if not isinstance(value, dict):
        raise ArchiveError(f"{path!r} does not hold a JSON object")
    return value


def recall(path: str) -> dict[str, Any]:
    """What we have noted in a file, to be written anew with more; empty if it is not there, or damaged.

    Raises:
        DiskError: it cannot be read now: written anew it would forget.
    """
    try:
        return load_json(path)
    except DiskError:
        raise
    except ArchiveError:
        return {}
