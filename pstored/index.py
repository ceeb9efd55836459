# SPDX-License-Identifier: Apache-2.0
"""A cache on disk over the entries of a directory; whoever reads it must be able to make it again."""

from __future__ import annotations

import os

from pstored import durable
from pstored.documents import open_own, to_json
from pstored.errors import ArchiveError
from pstored.lean import TYPE_CHECKING, suppress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any


SPARE = 64
"""So many lines of what is no more are no reason to write a cache anew."""


class Index:
    """A cache over a directory of entries: a JSON line for each, ``{"id": ..., ...}``; the last line of an id counts.

    Appended to without a flush, so a power cut may tear or lose lines: :class:`Archive` makes again what is missing.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def healed(
        self,
        ids: Iterable[str],
        make: Callable[[str], dict[str, Any] | None],
        is_valid: Callable[[dict[str, Any]], bool],
    ) -> dict[str, dict[str, Any]]:
        """The entries for exactly *ids*; what is lacking is made from the files, and kept if we may write.

        Lines that count no more stay until there are more of them than others: an archive at its limit loses a harvest
        with each that comes, and its cache is not to be written anew each time.  A damaged one does not stay: while it
        is there, all take several times longer to read.

        Args:
            ids: what there is.
            make: an entry, from the files; None if there is to be none.
            is_valid: whether a line is what :attr:`make` would give now; what is not at once is not kept.
        """
        lines = self._lines()
        whole = list(self._parse(lines))
        cached = {entry["id"]: entry for entry in whole}
        found: dict[str, dict[str, Any]] = {}
        made = []
        for entry_id in ids:
            entry = cached.get(entry_id)
            if entry is None or not is_valid(entry):
                entry = make(entry_id)
                if entry is not None and is_valid(entry):
                    made.append(entry)
            if entry is not None:
                found[entry_id] = entry
        is_due = len(whole) < len(lines) or len(lines) > 2 * len(found) + SPARE
        if (made or is_due) and os.access(os.path.dirname(self.path), os.W_OK):
            if is_due:
                self._replace(found.values())
            else:
                self.add(*made)
        return found

    def _lines(self) -> list[bytes]:
        try:
            with open_own(self.path) as f:
                return [line for line in f.read().split(b"\n") if line]
        except OSError:
            return []

    def add(self, *entries: Mapping[str, object]) -> None:
        """Append entries; a cache that cannot be written is no error."""
        with suppress(OSError):
            durable.append_line(self.path, self._format(entries))

    def _replace(self, entries: Iterable[Mapping[str, object]]) -> None:
        with suppress(ArchiveError):
            directory, name = os.path.split(self.path)
            durable.replace_files(directory, {name: self._format(entries)}, scratch=directory, durably=False)

    def _format(self, entries: Iterable[Mapping[str, Any]]) -> bytes:
        return b"".join(to_json(e, compact=True).encode() + b"\n" for e in entries)

    def _parse(self, lines: list[bytes]) -> Iterator[dict[str, Any]]:
        """The entries in the lines, without torn ones."""
        return (e for e in _load(lines) if isinstance(e, dict) and isinstance(e.get("id"), str))


def _load(lines: list[bytes]) -> list[object]:
    """What each line holds as JSON; at once, which is many times faster, if all of them are whole."""
    if not lines:
        return []
    import json  # nothing to read, nothing to import

    found: list[object] = []
    with suppress(ValueError, RecursionError):
        found = json.loads(b"[" + b",".join(lines) + b"]")
        if len(found) == len(lines):
            return found
    found = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            found.append(json.loads(line))
    return found


class KeyIndex(Index):
    """Which harvest has which records, as words: ``<id> <key>... <id>``, with tabs between.

    The harvest reads it, and JSON takes longer to import than the rest of its work.  The id stands at both ends, which
    tells a whole line from a torn one.
    """

    def _format(self, entries: Iterable[Mapping[str, Any]]) -> bytes:
        return b"".join(
            "\t".join((e["id"], *map(_to_word, e["keys"]), e["id"])).encode("ascii") + b"\n" for e in entries
        )

    def _parse(self, lines: list[bytes]) -> Iterator[dict[str, Any]]:
        for line in lines:
            entry_id, *keys = line.decode("ascii", "replace").split("\t")
            if not keys or keys.pop() != entry_id or b"\0" in line:
                continue
            with suppress(ValueError):
                yield {"id": entry_id, "keys": list(map(_from_word, keys)) if b"\\" in line else keys}


def _to_word(key: str) -> str:
    """A key as one word of ASCII; those of records that have a record's name are such already."""
    is_one = key.isascii() and key.isprintable() and "\\" not in key
    return key if is_one else key.encode("unicode_escape").decode("ascii")


def _from_word(word: str) -> str:
    return word.encode("ascii").decode("unicode_escape")
