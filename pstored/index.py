# SPDX-License-Identifier: Apache-2.0
"""A cache on disk over the entries of a directory; whoever reads it must be able to make it again."""

from __future__ import annotations

import os

from pstored import durable
from pstored.documents import open_own, to_json
from pstored.errors import ArchiveError
from pstored.lean import TYPE_CHECKING, suppress

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


class Index:
    """A cache over a directory of entries: one JSON line for each, ``{"id": ..., ...}``; the last line of an id counts.

    Appended to without a flush, so a power cut may tear or lose lines: :class:`Archive` makes again what is missing.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def entries(self) -> dict[str, dict[str, Any]]:
        """Id to entry; torn lines are left out."""
        try:
            with open_own(self.path) as f:
                data = f.read()
        except OSError:
            return {}
        import json  # nothing to read, nothing to import

        found = {}
        for line in data.split(b"\n"):
            try:
                entry = json.loads(line) if line else None
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("id"), str):
                found[entry["id"]] = entry
        return found

    def add(self, entry: dict[str, object]) -> None:
        """Append one entry; a cache that cannot be written is no error."""
        with suppress(OSError):
            durable.append_line(self.path, to_json(entry, compact=True).encode() + b"\n")

    def replace(self, entries: Iterable[dict[str, Any]]) -> None:
        """Write the whole cache anew."""
        with suppress(ArchiveError):
            directory, name = os.path.split(self.path)
            data = b"".join(to_json(e, compact=True).encode() + b"\n" for e in entries)
            durable.replace_files(directory, {name: data}, scratch=directory, names_durable=False)
