# SPDX-License-Identifier: Apache-2.0
"""A file with one JSON object a line; or, if the path is a directory, a file for each parcel in it."""

import json
import os
from typing import Any

from pstored import durable
from pstored.delivery.payload import Parcel
from pstored.errors import ArchiveError, SinkError
from pstored.sinks.base import OutgoingSink
from pstored.sinks.settings import File

LAST = 16 * 1024 * 1024
"""The last line is looked for in so many bytes: a run that was killed may have written it, and not noted it down."""


class FileSink(OutgoingSink):
    """Delivers to a file, durably; each parcel once, unless somebody moved the file in between."""

    def __init__(self, table: File) -> None:
        self._path = table.path

    def deliver(self, parcel: Parcel) -> dict[str, Any]:
        """Append a line, or make a file, unless it is there; the receipt says where.

        Raises:
            SinkError: it cannot be written.
        """
        line = json.dumps(parcel.document(), separators=(",", ":")).encode() + b"\n"
        try:
            if os.path.isdir(self._path):
                name = f"{parcel.uid}.json"
                durable.replace_files(self._path, {name: line}, scratch=self._path)
                return {"file": os.path.join(self._path, name)}
            if last_line(self._path) != line:
                durable.append_durably(self._path, line)
            return {"file": self._path}
        except ArchiveError as e:
            raise SinkError(str(e), hint="the service may write only where a drop-in says so: ReadWritePaths=") from e


def last_line(path: str) -> bytes:
    """The last whole line of a file; empty if there is none."""
    try:
        with open(path, "rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(0, size - LAST))
            end = f.read(LAST)
    except OSError:
        return b""
    whole = end[: end.rfind(b"\n") + 1]
    return whole[whole.rfind(b"\n", 0, -1) + 1 :]
