# SPDX-License-Identifier: Apache-2.0
r"""mtdoops: dumps in a flash partition of their own, as an image or as /dev/mtdN.

Source: drivers/mtd/mtdoops.c.  The partition is a ring of pages, each of ``mtdoops.record_size`` bytes, a multiple of
4096 (nothing in the image says which)::

    u32 sequence  u32 0x5d005d00  text NUL               up to 5.18
    u32 sequence  u32 0x5d005e00  s64 time  text NUL     since 5.19; nanoseconds since 1970

in the order of the machine's bytes.  Erased flash is 0xff, so that is what an unused page holds, and what follows the
NUL.  The text is that of a dump in pstore, without its header; why it was made is not said.  The sequence goes up by
one, over 0xffffffff to 0.  Nothing is ever marked as read.
"""

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from pstored.readers.model import Options, Reader, Remark, Salvaged, Source

MAGIC_1 = 0x5D005D00
MAGIC_2 = 0x5D005E00
PAGE = 4096
"""Record sizes are multiples of this."""
CHUNK = 256 * PAGE
"""Bytes read at a time."""
MAX_PARTITION = 8 << 20
"""MTDOOPS_MAX_MTD_SIZE; a dump of a whole flash has the partition anywhere, and is not recognized."""
MAX_PAGES = MAX_PARTITION // PAGE
MAX_TEXT = 4 << 20
"""Bytes of one dump: a page is no larger than an erase block."""
LOW, HIGH = 0x40000000, 0xC0000000
"""A sequence below the one is newer than one above the other: find_next_position()."""

# One header at the beginning of a page; by the bytes, the version and the order of bytes.
_MAGICS = {
    struct.pack(order + "I", magic): (order, size) for order in "<>" for magic, size in ((MAGIC_1, 8), (MAGIC_2, 16))
}


class _Page(NamedTuple):
    """A page that holds a dump."""

    at: int
    text_at: int
    sequence: int
    time_ns: int
    """0 if it has none."""


def recognize(source: Source) -> bool:
    """Whether the first dump there is begins as the kernel's text does; of a large source, its first 8 MiB count."""
    page = next((p for p in _pages(source, min(source.size, MAX_PARTITION)) if p is not None), None)
    return page is not None and source.read(page.text_at, 1) in (b"<", b"[")


def read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:
    """Every dump there is, oldest first."""
    pages: list[_Page] = []
    unreadable = 0
    for page in _pages(source, source.size):
        if page is None:
            unreadable += 1
        elif len(pages) < MAX_PAGES:
            pages.append(page)
        else:
            yield Remark(f"more than {MAX_PAGES} dumps: no partition has so many, the rest is left out", is_damage=True)
            break
    if unreadable:
        yield Remark(f"{unreadable} times {PAGE} bytes cannot be read: bad blocks?", is_damage=True)
    if not pages:
        yield Remark("no page holds a dump")
        return
    ends = {page.at: after.at for page, after in pairwise(pages)}
    size = _record_size(options)
    if size is None:
        yield Remark("mtdoops.record_size is no number of bytes, and left aside", is_damage=True)
    size = size or source.size
    ordered = _by_age(pages)
    for page in ordered:
        yield _dump(source, page, min(ends.get(page.at, source.size), page.at + size))
    yield Remark(f"{len(pages)} dumps; number {ordered[-1].sequence} is the newest")


def _pages(source: Source, end: int) -> Iterator[_Page | None]:
    """The pages with a dump, by their place; None for each that cannot be read."""
    at = 0
    while at < end:
        wanted = min(CHUNK, end - at)
        chunk = source.read(at, wanted)
        for start in range(0, len(chunk), PAGE):
            if (page := _page(at + start, chunk[start : start + 16])) is not None:
                yield page
        if len(chunk) < wanted:
            yield None
            at += len(chunk) // PAGE * PAGE + PAGE
        else:
            at += wanted


def _page(at: int, header: bytes) -> _Page | None:
    order, size = _MAGICS.get(header[4:8], ("", 0))
    if not size or len(header) < size:
        return None
    (sequence,) = struct.unpack_from(order + "I", header)
    (time_ns,) = struct.unpack_from(order + "q", header, 8) if size == 16 else (0,)
    return _Page(at, at + size, sequence, max(0, time_ns))


def _by_age(pages: list[_Page]) -> list[_Page]:
    """Oldest first: where the numbers have gone over their end, low ones are newer than high ones."""
    wrapped = any(p.sequence < LOW for p in pages) and any(p.sequence > HIGH for p in pages)
    return sorted(pages, key=lambda p: (wrapped and p.sequence < LOW, p.sequence, p.at))


def _record_size(options: Options) -> int | None:
    """As the user says, 0 if he does not; None if it is no size."""
    try:
        size = int(options.parameters.get("mtdoops.record_size", "0"), 0)
    except ValueError:
        return None
    return size if size >= 0 else None


def _dump(source: Source, page: _Page, end: int) -> Salvaged:
    text = bytearray()
    whole = False
    at = page.text_at
    while not whole and at < end and len(text) < MAX_TEXT:
        piece = source.read(at, min(16 * PAGE, end - at))
        if not piece:
            break
        stop = piece.find(0)
        whole = stop >= 0
        text += piece[:stop] if whole else piece
        at += len(piece)
    damage = () if whole else ("the end of its text is missing: the machine died while it was written",)
    return Salvaged(f"dmesg-mtdoops-{page.sequence}", bytes(text).rstrip(b"\xff"), page.time_ns, damage=damage)


READER = Reader(recognize, read)
