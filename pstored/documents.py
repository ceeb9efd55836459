# SPDX-License-Identifier: Apache-2.0
"""The archive's JSON files: readable by a person; and of those that cannot be read, which may be another time."""

from __future__ import annotations

import errno
import os
import stat
import time

from pstored.errors import ArchiveError, DiskError
from pstored.lean import TYPE_CHECKING, sha256

if TYPE_CHECKING:
    from typing import Any, BinaryIO

MAX_JSON = 64 * 1024 * 1024
"""No file of ours is larger; one that is has been tampered with."""


def dump_json(value: object) -> bytes:
    """As all our JSON files are written: readable, one newline at the end; bytes that are no UTF-8 as \\udcXX."""
    return (to_json(value) + "\n").encode()


def to_json(value: object, *, compact: bool = False) -> str:
    """As json.dumps() with an indent of 2, or, for digests, with sorted keys and no blanks.

    The harvest writes its receipts with this: importing json, for a reader's regular expressions, takes it longer.
    """
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float) and value - value == 0:  # a number, and finite
        return float.__repr__(value)
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, (dict, list, tuple)):
        return _container(value, compact)
    import json

    return json.dumps(value)


def _container(value: dict[str, object] | list[object] | tuple[object, ...], compact: bool) -> str:
    colon = ":" if compact else ": "
    if isinstance(value, dict):
        rows = [
            to_json(str(key)) + colon + to_json(value[key], compact=compact)
            for key in (sorted(value) if compact else value)
        ]
        first, last = "{}"
    else:
        rows = [to_json(item, compact=compact) for item in value]
        first, last = "[]"
    if compact or not rows:
        return first + ",".join(rows) + last
    return f"{first}\n  " + ",\n".join(rows).replace("\n", "\n  ") + f"\n{last}"


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
    return sha256(to_json(document, compact=True).encode()).hexdigest()


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


def read_own(path: str) -> bytes:
    """What a file of the archive holds, up to one byte more than :data:`MAX_JSON`; errors as :func:`open_own`."""
    with open_own(path) as f:
        return f.read(min(MAX_JSON, os.fstat(f.fileno()).st_size) + 1)  # memory for all of it is taken at once


_NO_FILE = "it is no plain file, so it is none of ours"


def load_json(path: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ArchiveError: the file is not there, too large, or holds none.
        DiskError: it cannot be read now.
    """
    data = read_document(path)
    import json

    try:
        value = json.loads(data) if len(data) <= MAX_JSON else None
    except (ValueError, RecursionError) as e:
        raise ArchiveError(f"cannot read {path!r}: {e}") from e
    if not isinstance(value, dict):
        raise ArchiveError(f"{path!r} does not hold a JSON object")
    return value


def read_document(path: str) -> bytes:
    """What is in the file, up to a byte more than it may hold.

    Raises:
        ArchiveError: it is not there.
        DiskError: it cannot be read now.
    """
    try:
        return read_own(path)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise ArchiveError(f"there is no {path!r}" + f": {e.strerror}" * (e.strerror == _NO_FILE)) from e
    except OSError as e:
        raise DiskError(f"cannot read {path!r}: {e.strerror or e}") from e


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
