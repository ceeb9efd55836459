# SPDX-License-Identifier: Apache-2.0
r"""ELF cores of a whole machine: /proc/vmcore, what makedumpfile -E makes of it, what QEMU saves.

Source: fs/proc/vmcore.c; kernel/crash_core.c, crash_prepare_elf64_headers(); elf(5)::

    ELF header, type ET_CORE           e_flags bit 0: makedumpfile ran out of room
    PT_NOTE                            one merged; holds VMCOREINFO, type 0
    PT_LOAD of the kernel's image      p_vaddr: where it was mapped, p_paddr: where it lay
    PT_LOAD of each piece of memory    likewise, in the direct map; what lies between p_filesz and p_memsz is zeros

Of more than 65,534 headers, section header 0 has the number, in sh_info.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator

from pstored.errors import DamagedError
from pstored.readers.kdump.image import Form
from pstored.readers.kdump.info import MAX_INFO, NOTE, VmcoreInfo
from pstored.readers.model import Source

MAGIC = b"\x7fELF"
ET_CORE = 4
PT_LOAD, PT_NOTE = 1, 4
PN_XNUM = 0xFFFF
INCOMPLETE = 1

MAX_HEADERS = 1 << 18
"""Program headers looked at: 12 MiB of our memory.  makedumpfile makes one for each run of pages that it keeps."""
MAX_NOTES = 1 << 17
"""Notes looked at: each CPU has one or two, and VMCOREINFO stands behind them."""
MAX_OVERLAPS = 64
"""Segments of which one place may be part: the image is in the direct map, too, so two."""
CHUNK = 1 << 16

# e_machine to uname -m, those whose kernels can be understood without a PT_LOAD; elf.h
_MACHINES = {
    3: "i386",
    21: "ppc64",
    22: "s390x",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
_WIDTHS = {1: 4, 2: 8}  # EI_CLASS
_ORDERS = {1: "<", 2: ">"}  # EI_DATA
# type, offset, vaddr, paddr, filesz, memsz; flags and alignment are passed over
_HEADERS = {4: ("IIIIII8x", 32), 8: ("I4xQQQQQ8x", 56)}


def is_elf_core(source: Source) -> bool:
    """Whether it is an ELF core; that of a process, too."""
    try:
        return _kind(source.read(0, 20))[1] == ET_CORE
    except DamagedError:
        return False


def _kind(head: bytes) -> tuple[str, int, int, int]:
    """Order of bytes, type, machine, bytes of a word."""
    order, word = _ORDERS.get(head[5] if len(head) == 20 else 0), _WIDTHS.get(head[4] if len(head) == 20 else 0)
    if not head.startswith(MAGIC) or order is None or word is None:
        raise DamagedError(f"no ELF header: {head!r} at byte 0")
    file_type, machine = struct.unpack_from(order + "HH", head, 16)
    return order, file_type, machine, word


class ElfCore:
    """One core; it is read from when it is asked."""

    kind = "ELF core"
    phys_base = None

    def __init__(self, source: Source) -> None:
        """Read its headers.

        Raises:
            DamagedError: it is no ELF file.
        """
        self._source = source
        self._order, _, machine, word = _kind(source.read(0, 20))
        self.form = Form("little" if self._order == "<" else "big", word)
        self.machine = _MACHINES.get(machine, "")
        self.damage: list[str] = []
        self._columns = tuple(array("Q") for _ in range(5))  # offset, vaddr, paddr, filesz, memsz
        self.info = VmcoreInfo(self._read_headers())
        self._by_physical = _Places(self._columns[2], self._columns[4])
        self._by_virtual = _Places(self._columns[1], self._columns[4])

    # -- headers

    def _read_headers(self) -> bytes:
        """Take the segments in; gives VMCOREINFO, if it is there."""
        found = b""
        for kind, *columns in self._headers():
            if kind == PT_LOAD and columns[4]:
                for column, value in zip(self._columns, columns, strict=True):
                    column.append(value)
            elif kind == PT_NOTE and not found:
                found = self._find_info(columns[0], columns[3])
        return found

    def _headers(self) -> Iterator[tuple[int, ...]]:
        wide = self.form.word == 8
        head = self._source.read(0, 64 if wide else 52)
        try:
            at, section_at = struct.unpack_from(self._order + ("QQ" if wide else "II"), head, 32 if wide else 28)
            flags, _, size, count = struct.unpack_from(self._order + "IHHH", head, 48 if wide else 36)
        except struct.error:
            raise DamagedError(f"the ELF header breaks off after {len(head)} bytes", offset=len(head)) from None
        if flags & INCOMPLETE:
            self.damage.append("makedumpfile could not write all of the dump: no room?")
        if count == PN_XNUM:
            info = self._source.read(section_at + (44 if wide else 28), 4)
            count = self.form.number(info, 0, 4) or PN_XNUM
        layout, least = _HEADERS[self.form.word]
        if size < least:
            raise DamagedError(f"program headers of {size} bytes: none is so short", offset=at)
        if count > MAX_HEADERS:
            self.damage.append(f"{count} program headers: all but the first {MAX_HEADERS} are left out")
            count = MAX_HEADERS
        one = struct.Struct(f"{self._order}{layout}")
        step = max(1, CHUNK // size)
        for first in range(0, count, step):
            wanted = min(step, count - first) * size
            data = self._source.read(at + first * size, wanted)
            for start in range(0, len(data) - least + 1, size):
                yield one.unpack_from(data, start)
            if len(data) < wanted:
                self.damage.append(f"the dump breaks off within its {count} program headers")
                return

    def _find_info(self, at: int, size: int) -> bytes:
        """Find VMCOREINFO among the notes; empty if it is not there."""
        end = min(at + size, self._source.size)
        for _ in range(MAX_NOTES):
            head = self._source.read(at, 12 + len(NOTE))
            if len(head) < 12 or at >= end:
                break
            name_size, data_size, _ = struct.unpack_from(self._order + "III", head)
            data_at = at + 12 + (name_size + 3 & ~3)
            if head[12:].startswith(NOTE) and name_size == len(NOTE) + 1:
                return self._source.read(data_at, min(data_size, MAX_INFO))
            at = data_at + (data_size + 3 & ~3)
        return b""

    # -- memory

    def is_of_a_machine(self) -> bool:
        """Whether it can be: the core of a process has no physical addresses."""
        return bool(self.info.text) or any(self._columns[2])

    def ranges(self) -> Iterator[tuple[int, int]]:
        """As any image."""
        return zip(self._columns[2], self._columns[3], strict=True)

    def physical(self, at: int, count: int) -> bytes:
        """As any image."""
        found = bytearray()
        while len(found) < count:
            place = at + len(found)
            segment = self._by_physical.find(place)
            if segment is None:
                break
            offset, _, start, stored, size = (column[segment] for column in self._columns)
            within = place - start
            wanted = min(count - len(found), size - within)
            piece = self._source.read(offset + within, min(wanted, stored - within)) if within < stored else b""
            found += piece
            if within + len(piece) < min(stored, within + wanted):
                break  # the file ends here, though it should not
            found += bytes(wanted - len(piece))
        return bytes(found)

    def translate(self, address: int) -> int | None:
        """As any image."""
        segment = self._by_virtual.find(address)
        if segment is None:
            return None
        return self._columns[2][segment] + address - self._columns[1][segment]


class _Places:
    """Finds the segment that a place is in."""

    def __init__(self, starts: "array[int]", sizes: "array[int]") -> None:
        self._order = array("I", sorted(range(len(starts)), key=starts.__getitem__))
        self._starts = array("Q", (starts[i] for i in self._order))
        self._sizes = array("Q", (sizes[i] for i in self._order))

    def find(self, place: int) -> int | None:
        """The segment that begins last before *place* and reaches beyond it."""
        at = bisect_right(self._starts, place) - 1
        for before in range(at, max(-1, at - MAX_OVERLAPS), -1):
            if place - self._starts[before] < self._sizes[before]:
                return self._order[before]
        return None
