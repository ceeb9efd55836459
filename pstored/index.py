# SPDX-License-Identifier: Apache-2.0
"""A cache on disk over the entries of a directory; whoever reads it must be able to make it again."""

from __future__ import annotations

import os
from binascii import crc32

from pstored import durable
from pstored.documents import open_own
from pstored.errors import ArchiveError, DiskError
from pstored.lean import TYPE_CHECKING, suppress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    T = TypeVar("T")


SPARE = 64
"""So many lines of what is no more are no reason to write a cache anew."""


class Index:
    """A line for each entry: ``<id> <word>... <CRC-32 of it>``, with tabs between; the last line of an id counts.

    Lines are appended without a flush, so a power cut may tear or lose them: the sum tells.  A line without words says
    that no older one counts (:meth:`doubt`).  Words are ASCII without blanks (:func:`to_word`), so that a harvest reads
    them without JSON, which takes longer to import than the rest of its work.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.ids: set[str] = set()
        """Which had lines when they were read last, or got some since; also of what is no more."""

    def healed(
        self,
        ids: Iterable[str],
        keep: Callable[[list[str]], T | None],
        make: Callable[[str], tuple[T, list[str] | None] | None],
        *,
        write: bool,
    ) -> dict[str, T]:
        """What the cache holds of exactly *ids*; what is lacking is made from the files.

        Lines that count no more stay until there are more of them than others: an archive at its limit loses a harvest
        with each that comes, and its cache is not to be written anew each time.

        Args:
            ids: what there is.
            keep: what is kept of a line's words, of which the first is the id; None if they do not count.
            make: the same from the files, and the words of a line, None if it shall have none; None if there is no such
                entry.
            write: whether what was made is to be kept, and damaged lines are to go.
        """
        cached: dict[str, T | None] = {}
        number, damaged = 0, False
        for line in self._lines():
            number += 1
            words = _split(line)
            if words is None:
                damaged = True
            else:
                cached[words[0]] = keep(words)
        found: dict[str, T] = {}
        new: dict[str, list[str] | None] = {}
        for entry_id in ids:
            value = cached.get(entry_id)
            if value is None:
                made = make(entry_id)
                if made is None:
                    continue
                value, new[entry_id] = made
            found[entry_id] = value
        self.ids = {*cached, *new}
        if write:
            lines = [words for words in new.values() if words is not None]
            if damaged or number > 2 * len(found) + SPARE:
                self._replace(found.keys() - new.keys(), lines)
            elif lines:
                self.add(*lines)
        return found

    def _lines(self) -> Iterator[bytes]:
        with suppress(OSError), open_own(self.path) as f:
            yield from f

    def add(self, *entries: list[str]) -> None:
        """Append lines, given as the id and the words; a cache that cannot be written is no error."""
        self.ids.update(words[0] for words in entries)
        with suppress(OSError):
            durable.append_line(self.path, _format(entries))

    def doubt(self, entry_id: str) -> None:
        """Make sure, durably, that an entry's lines count no more, before what they tell is changed.

        Raises:
            DiskError: it cannot be made sure; nothing may be changed.
        """
        with durable.archive_errors("write to", self.path), suppress(FileNotFoundError, IsADirectoryError):
            open_own(self.path).close()  # without one there are no lines
            try:
                durable.append_durably(self.path, _format([[entry_id]]))
            except DiskError:  # without the file no line counts, either
                durable.remove_file(self.path)
            durable.flush_directory(os.path.dirname(self.path))  # it may have been written anew, without a flush

    def _replace(self, ids: Iterable[str], entries: Iterable[list[str]]) -> None:
        """Write it anew: the lines that there are of *ids*, and more."""
        stay = set(ids)
        kept = {words[0]: line for line in self._lines() if (words := _split(line)) is not None and words[0] in stay}
        with suppress(ArchiveError):
            directory, name = os.path.split(self.path)
            data = b"".join(kept.values()) + _format(entries)
            durable.replace_files(directory, {name: data}, scratch=directory, durably=False)


def _split(line: bytes) -> list[str] | None:
    """The id and the words of a line; None if it is not whole."""
    text, _, last = line.rpartition(b"\t")
    return text.decode("ascii").split("\t") if text and text.isascii() and last == _sum(text) else None


def _format(entries: Iterable[list[str]]) -> bytes:
    lines = ("\t".join(words).encode("ascii") for words in entries)
    return b"".join(line + b"\t" + _sum(line) for line in lines)


def _sum(text: bytes) -> bytes:
    return b"%08x\n" % crc32(text)


def to_word(text: str) -> str:
    """Any text as one word; the names and keys of records are such already."""
    is_one = text.isascii() and text.isprintable() and "\\" not in text
    return text if is_one else text.encode("unicode_escape").decode("ascii")


def from_word(word: str) -> str:
    """The text; ValueError if the word is none of :func:`to_word`'s."""
    return word.encode("ascii").decode("unicode_escape") if "\\" in word else word
