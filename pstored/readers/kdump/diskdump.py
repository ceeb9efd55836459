# SPDX-License-Identifier: Apache-2.0
r"""makedumpfile's own form, each page packed by itself: "KDUMP" (-c, -l, -p, -z, or none of them).

Source: makedumpfile's diskdump_mod.h and IMPLEMENTATION; QEMU's dump/dump.c writes it, too.  Blocks of one page::

    0                  struct disk_dump_header: "KDUMP   ", version, utsname, time, status, sizes
    1                  struct kdump_sub_header: where VMCOREINFO is
    1 + sub_hdr_size   two bitmaps, one bit a page: what memory there is; which pages are in this file
    behind them        struct page_desc for each page in the file: s64 offset  u32 size  u32 flags  u64 page flags
                       the pages, packed

in the order of bytes and with the word size of the machine that crashed, which stand nowhere: found out by trying.
"""

import struct
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import NamedTuple

from pstored.errors import DamagedError
from pstored.parse.decompress import import_zstd, make_zstd
from pstored.parse.lz import decode_lzo
from pstored.parse.snappy import decode_snappy
from pstored.readers.kdump.image import Form
from pstored.readers.kdump.info import MAX_INFO, VmcoreInfo
from pstored.readers.model import Source

MAGIC = b"KDUMP   "
OLD_MAGIC = b"DISKDUMP"
"""What there was before kdump; without VMCOREINFO."""
ZLIB, LZO, SNAPPY, INCOMPLETE, ZSTD = 1, 2, 4, 8, 0x20
"""Flags of a page, and of the status."""
MIN_PAGE, MAX_PAGE = 1 << 12, 1 << 16
MAX_VERSION = 100
"""Of the header; 6 is the newest there is."""
MAX_BITMAP = 1 << 30
"""Bytes of one bitmap: 32 TiB of memory."""
CHUNK = 1 << 16
CACHE = 4 << 20
"""Bytes of pages kept."""
SAID = 4
"""So many pages that cannot be unpacked are named; of the rest, the number."""

_DESC = struct.Struct("qIIQ")


_STATUS = {4: 412, 8: 424}
"""Of ``status`` in the header, by word size: behind a ``struct timeval``."""
_MACHINE = 272
"""Of ``utsname.machine``."""


class _Sub(NamedTuple):
    """Where fields of the sub header stand."""

    word: int
    info: int
    """offset_vmcoreinfo (8 bytes), and size_vmcoreinfo behind it."""
    pfns: str
    """start_pfn and end_pfn."""
    pfns_64: int
    """The same in 64 bits, and max_mapnr_64; from version 6 on."""


_SUBS = (_Sub(8, 32, "16xQQ", 80), _Sub(4, 20, "12xII", 56), _Sub(4, 24, "12xII", 72))
"""With words of 4 bytes, 8 bytes may stand at any multiple of 4 (i386), or only at one of 8 (arm)."""


class _Header(NamedTuple):
    form: Form
    version: int
    status: int
    block: int
    sub_blocks: int
    bitmap_blocks: int
    pages: int
    """max_mapnr: one more than the number of the last page."""
    machine: str


def is_diskdump(source: Source) -> bool:
    """Whether it begins so."""
    return source.read(0, len(MAGIC)) in (MAGIC, OLD_MAGIC)


def _read_header(source: Source) -> _Header:
    head = source.read(0, 464)
    if head.startswith(OLD_MAGIC):
        raise DamagedError("a dump of the old diskdump has no VMCOREINFO, so it is not known where the log lies")
    for word, at in _STATUS.items():
        for mark in "<>":
            try:
                (version,) = struct.unpack_from(mark + "i", head, 8)
                status, block, sub, bitmaps, pages = struct.unpack_from(mark + "IiiII", head, at)
            except struct.error:
                raise DamagedError(f"the KDUMP header breaks off after {len(head)} bytes") from None
            sane = MIN_PAGE <= block <= MAX_PAGE and block & (block - 1) == 0 and 0 < sub < 1 << 16
            if sane and 0 < version < MAX_VERSION:
                machine = head[_MACHINE : _MACHINE + 65].split(b"\0")[0].decode(errors="replace")
                form = Form("little" if mark == "<" else "big", word)
                return _Header(form, version, status, block, sub, bitmaps, pages, machine)
    raise DamagedError("the KDUMP header makes no sense with any order of bytes")


class DiskDump:
    """One dump; it is read from when it is asked."""

    kind = "compressed dump"

    def __init__(self, source: Source, *, find_zstd: Callable[[], ModuleType | None] = import_zstd) -> None:
        """Read its headers.

        Raises:
            DamagedError: they make no sense.
        """
        self._source = source
        self._find_zstd = find_zstd
        header = _read_header(source)
        self.form, self.machine, self._block = header.form, header.machine, header.block
        self._mark = "<" if self.form.order == "little" else ">"
        self._sub = source.read(header.block, 256)
        self._damage = ["makedumpfile could not write all of the dump: no room?"] * bool(header.status & INCOMPLETE)
        self.phys_base: int | None = self.form.pointer(self._sub, 0)
        layout, text = self._find_info()
        self.info = VmcoreInfo(text)
        self._first, self._last, pages = self._range(header, layout)
        # the second bitmap; only as much of it as there are pages, since behind them nothing need be
        bitmaps = (1 + header.sub_blocks) * header.block
        half = header.bitmap_blocks // 2 * header.block
        self._bits = _Bits(source, bitmaps + half, min(half, (pages + 7) // 8))
        self._descs = bitmaps + 2 * half
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._bad = 0
        self._base: int | None = None  # pages of the pieces before this one

    def _find_info(self) -> tuple[_Sub, bytes]:
        for layout in _SUBS:
            at = layout.info
            place, size = self.form.number(self._sub, at, 8), self.form.pointer(self._sub, at + 8)
            if layout.word == self.form.word and place < self._source.size:
                text = self._source.read(place, min(size, MAX_INFO))
                if b"OSRELEASE=" in text:
                    return layout, text
        return next(layout for layout in _SUBS if layout.word == self.form.word), b""

    def _range(self, header: _Header, layout: _Sub) -> tuple[int, int, int]:
        """The first page that this file may have, the one behind the last, and how many there are in all."""
        pages = header.pages
        if header.version >= 6:
            first, last, wide = struct.unpack_from(self._mark + "QQQ", self._sub.ljust(256, b"\0"), layout.pfns_64)
            pages = wide or pages
        else:
            first, last = struct.unpack_from(self._mark + layout.pfns, self._sub.ljust(256, b"\0"))
        if not self.form.number(self._sub, layout.word + 4, 4) or not last:  # split
            return 0, 1 << 64, pages
        self._damage.append(f"it is one piece of a dump in several: pages {first} to {last - 1} only")
        return first, last, pages

    @property
    def damage(self) -> list[str]:
        """As any image."""
        more = [f"{self._bad - SAID} more pages cannot be unpacked"] if self._bad > SAID else []
        return self._damage + more

    def translate(self, address: int) -> int | None:  # noqa: ARG002 - as any image
        """As any image: it has no segments that would say."""
        return None

    def ranges(self) -> Iterator[tuple[int, int]]:
        """As any image."""
        for first, last in self._bits.runs():
            if first < self._last and last > self._first:
                yield first * self._block, (last - first) * self._block

    def physical(self, at: int, count: int) -> bytes:
        """As any image."""
        found = bytearray()
        while len(found) < count:
            number, within = divmod(at + len(found), self._block)
            page = self._page(number)
            if page is None:
                break
            found += page[within : within + count - len(found)]
        return bytes(found)

    def _page(self, number: int) -> bytes | None:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number] or None
        if not self._first <= number < self._last or not self._bits.has(number):
            return None
        if self._base is None:
            self._base = self._bits.before(self._first)
        index = self._bits.before(number) - self._base
        desc = self._source.read(self._descs + index * _DESC.size, _DESC.size)
        try:
            page = self._unpack(desc)
        except DamagedError as e:
            self._bad += 1
            if self._bad <= SAID:
                self._damage.append(f"page {number} cannot be unpacked: {e}")
            page = b""
        self._cache[number] = page
        if len(self._cache) * self._block > CACHE:
            self._cache.popitem(last=False)
        return page or None

    def _unpack(self, desc: bytes) -> bytes:
        if len(desc) < _DESC.size:
            raise DamagedError("the dump breaks off before its descriptor")
        offset, size, flags, _ = struct.unpack(self._mark + _DESC.format, desc)
        if offset < 0 or size > self._block:
            raise DamagedError(f"a descriptor of {size} bytes at byte {offset} is none")
        data = self._source.read(offset, size)
        if len(data) < size:
            raise DamagedError("the dump breaks off before its end")
        page = _unpack(data, flags, self._block, self._find_zstd)
        if len(page) != self._block:
            raise DamagedError(f"{len(page)} bytes, not {self._block}")
        return page


def _unpack(data: bytes, flags: int, block: int, find_zstd: Callable[[], ModuleType | None]) -> bytes:
    if flags & ZLIB:
        try:
            return zlib.decompressobj().decompress(data, block)
        except zlib.error as e:
            raise DamagedError(f"zlib: {e}") from e
    if flags & LZO:
        out = bytearray()
        try:
            decode_lzo(data, out, block)
        except IndexError:
            raise DamagedError("the lzo stream ends without its end mark") from None
        return bytes(out)
    if flags & SNAPPY:
        return decode_snappy(data, block)
    if flags & ZSTD:
        return _unpack_zstd(data, block, find_zstd())
    return data


def _unpack_zstd(data: bytes, block: int, zstd: ModuleType | None) -> bytes:
    if zstd is None:
        raise DamagedError("no zstd library: pip install 'pstored[compress]'")
    try:
        page = make_zstd(zstd).decompress(data, block + 1)
    except zstd.ZstdError as e:
        raise DamagedError(f"zstd: {e}") from e
    assert isinstance(page, bytes)
    return page


class _Bits:
    """A bitmap in the file; counts as far as it was asked."""

    def __init__(self, source: Source, at: int, size: int) -> None:
        self._source = source
        self._at = at
        self._size = min(size, MAX_BITMAP)
        self._counts = array("Q", [0])  # bits before each chunk
        self._chunk = -1
        self._bytes = b""

    def has(self, number: int) -> bool:
        """Whether the bit is set."""
        at = number >> 3
        if at >= self._size:
            return False
        piece = self._read(at // CHUNK)
        return at % CHUNK < len(piece) and bool(piece[at % CHUNK] >> (number & 7) & 1)

    def before(self, number: int) -> int:
        """How many bits are set before this one."""
        at = min(number >> 3, self._size)
        while len(self._counts) <= at // CHUNK:
            piece = self._read(len(self._counts) - 1)
            self._counts.append(self._counts[-1] + _count(piece))
        piece = self._read(at // CHUNK)
        rest = piece[at % CHUNK] & (1 << (number & 7)) - 1 if at % CHUNK < len(piece) else 0
        return self._counts[at // CHUNK] + _count(piece[: at % CHUNK]) + rest.bit_count()

    def runs(self) -> Iterator[tuple[int, int]]:
        """The first bit of each run of those that are set, and the one behind its last."""
        first = None
        for number, byte in enumerate(self._all()):
            if byte == (0 if first is None else 0xFF):
                continue
            for bit in range(number * 8, number * 8 + 8):
                if byte >> (bit & 7) & 1:
                    first = bit if first is None else first
                elif first is not None:
                    yield first, bit
                    first = None
        if first is not None:
            yield first, self._size * 8

    def _all(self) -> Iterator[int]:
        for chunk in range((self._size + CHUNK - 1) // CHUNK):
            yield from self._read(chunk)

    def _read(self, chunk: int) -> bytes:
        if chunk != self._chunk:
            at = chunk * CHUNK
            self._chunk, self._bytes = chunk, self._source.read(self._at + at, max(0, min(CHUNK, self._size - at)))
        return self._bytes


def _count(piece: bytes) -> int:
    return int.from_bytes(piece).bit_count()
