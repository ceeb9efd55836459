# SPDX-License-Identifier: Apache-2.0
r"""makedumpfile's flattened form: a dump file in pieces, as it can be written to a pipe (-F).

Source: makedumpfile.h, makedumpfile_header and makedumpfile_data_header; makedumpfile(8), -F and -R.  All numbers are
big endian, whatever machine wrote them::

    "makedumpfile" NUL*4  s64 type = 1  s64 version = 1                      in a block of 4096 bytes
    (s64 offset  s64 size  bytes)*                                           where they belong in the file
    s64 -1  s64 -1                                                           the end

The pieces are of 64 KiB or smaller, so 100 GiB have millions.  They come in the order in which the file was written:
a few areas, each from its beginning to its end (page descriptors, pages), by turns.  So what is kept are runs of
pieces with rising offsets: the place of each piece, of more of them that of every second, fourth, ...; and only as far
into the file as was asked for.  What is written twice, as the program headers of an ELF core are, which are known at
the end only, holds for whoever has gone :meth:`~Flattened.to_the_end`.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from pstored.readers.model import Source

MAGIC = b"makedumpfile\0\0\0\0"
VERSION = struct.pack(">qq", 1, 1)
HEADER = 4096
MAX_MARKS = 1 << 20
"""Places kept: 16 MiB of our memory."""
MAX_RUNS = 16
"""Areas written by turns; makedumpfile has two or three."""
MAX_PIECES = 1 << 22
"""Pieces looked at: 128 GiB of such as makedumpfile writes, and half a minute."""

_PIECE = struct.Struct(">qq")


def is_flattened(source: Source) -> bool:
    """Whether it begins so."""
    return source.read(0, 32) == MAGIC + VERSION


class _Piece(NamedTuple):
    offset: int
    size: int
    place: int
    """Of its bytes in the flattened file."""


class _Run:
    """Pieces with rising offsets."""

    def __init__(self) -> None:
        self.offsets = array("Q")
        self.headers = array("Q")  # where in the flattened file
        self.end = 0
        self.count = 0

    def thin(self) -> None:
        self.offsets, self.headers = self.offsets[::2], self.headers[::2]


class Flattened:
    """The file that the pieces make, as a source; what no piece holds is zeros."""

    size = (1 << 63) - 1
    """How long it is stands nowhere."""

    def __init__(self, source: Source, *, max_marks: int = MAX_MARKS, max_pieces: int = MAX_PIECES) -> None:
        """Take over a source that :func:`is_flattened`."""
        self.name = source.name
        self.damage: list[str] = []
        """What is missing or out of order, in words, as far as it was read."""
        self._source = source
        self._max_marks = max_marks
        self._left = max_pieces
        self._runs: list[_Run] = []
        self._every = 1
        self._marks = 0
        self._strays = 0
        self._next: int | None = HEADER  # None: all is known
        self._last: _Piece | None = None

    def read(self, at: int, count: int) -> bytes:
        """As any source."""
        found = bytearray()
        while len(found) < count:
            piece = self._find(at + len(found))
            if piece is None:
                gap = self._gap(at + len(found), count - len(found))
                if gap is None:
                    break
                found += bytes(gap)
                continue
            within = at + len(found) - piece.offset
            wanted = min(count - len(found), piece.size - within)
            data = self._source.read(piece.place + within, wanted)
            found += data
            if len(data) < wanted:
                break
        return bytes(found)

    def to_the_end(self) -> None:
        """Look at all pieces: from now on the later one counts where there are two."""
        while self._look_on() is not None:
            pass
        self._last = None

    def _gap(self, at: int, count: int) -> int | None:
        """How many of the *count* bytes from *at* on, which is in no piece, are in none; None: all behind it, too."""
        begins = [self._first_after(run, at) for run in self._runs]
        after = min((offset for offset in begins if offset is not None), default=None)
        return None if after is None else min(count, after - at)

    def _first_after(self, run: _Run, at: int) -> int | None:
        """The offset of a run's first piece behind *at*."""
        if at >= run.end:
            return None
        mark = bisect_right(run.offsets, at)
        found = run.offsets[mark] if mark < len(run.offsets) else None
        if self._every > 1 and mark:
            between = (p.offset for p in self._pieces(run, mark - 1) if p.offset > at)
            found = min((o for o in (found, *between) if o is not None), default=None)
        return found

    def _find(self, at: int) -> _Piece | None:
        """The piece that has the byte *at*; looks on in the file until it is there."""
        if self._last is not None and 0 <= at - self._last.offset < self._last.size:
            return self._last
        known = [p for run in self._runs if (p := self._find_in(run, at)) is not None]
        found = max(known, key=lambda p: p.place, default=None)
        while found is None and (piece := self._look_on()) is not None:
            found = piece if 0 <= at - piece.offset < piece.size else None
        self._last = found
        return found

    def _find_in(self, run: _Run, at: int) -> _Piece | None:
        mark = bisect_right(run.offsets, at) - 1
        if mark < 0 or at >= run.end:
            return None
        return next((p for p in self._pieces(run, mark) if 0 <= at - p.offset < p.size), None)

    def _pieces(self, run: _Run, mark: int) -> Iterator[_Piece]:
        """The pieces of a run from one that is kept to the next, and those of others between them."""
        place = run.headers[mark]
        known = self._source.size if self._next is None else self._next
        last = run.headers[mark + 1] if mark + 1 < len(run.headers) else known
        while place < last and (piece := self._piece(place)) is not None:
            yield piece
            place = piece.place + piece.size

    def _piece(self, place: int) -> _Piece | None:
        """The piece whose header is at *place*; None if there is none."""
        header = self._source.read(place, _PIECE.size)
        if len(header) < _PIECE.size:
            return None
        offset, size = _PIECE.unpack(header)
        return _Piece(offset, size, place + _PIECE.size) if offset >= 0 and size > 0 else None

    def _look_on(self) -> _Piece | None:
        """Take the next piece in; None at the end."""
        if self._next is None:
            return None
        piece = self._piece(self._next) if self._left else None
        if piece is None:
            self._end(self._next)
            return None
        self._left -= 1
        self._note(piece, self._next)
        self._next = piece.place + piece.size
        return piece

    def _end(self, place: int) -> None:
        self._next = None
        if not self._left:
            self.damage.append(f"the flattened dump has too many pieces: what is behind byte {place} is left out")
        elif self._source.read(place, _PIECE.size) != _PIECE.pack(-1, -1):
            self.damage.append(f"the flattened dump breaks off at byte {place}")
        if self._strays:
            self.damage.append(f"{self._strays} pieces of the flattened dump are out of order, and left out")

    def _note(self, piece: _Piece, place: int) -> None:
        fitting = [run for run in self._runs if run.end <= piece.offset]
        if fitting:
            run = max(fitting, key=lambda r: r.end)
        elif len(self._runs) < MAX_RUNS:
            run = _Run()
            self._runs.append(run)
        else:
            self._strays += 1
            return
        if run.count % self._every == 0:
            run.offsets.append(piece.offset)
            run.headers.append(place)
            self._marks += 1
        run.count += 1
        run.end = piece.offset + piece.size
        if self._marks > self._max_marks:
            self._every *= 2
            for each in self._runs:
                each.thin()
            self._marks = sum(len(each.offsets) for each in self._runs)
