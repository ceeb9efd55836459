# SPDX-License-Identifier: Apache-2.0
"""Kernel addresses in a dump: where they lie, and what is there.

Several ways lead from a kernel address to a physical one; the first that ends at memory which is in the dump counts:

- the kernel's image: by ``phys_base`` on x86-64 (Documentation/arch/x86/x86_64/mm.rst), ``kimage_voffset`` on arm64,
  ``va_kernel_pa_offset`` on riscv;
- the segments of an ELF core;
- the page tables of x86-64, whose direct map is anywhere (KASLR) and which VMCOREINFO does not give;
- the direct map of other machines, from VMCOREINFO or because it is always there.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from pstored.errors import DamagedError
from pstored.readers.kdump.image import Image
from pstored.readers.kdump.info import VmcoreInfo

PAGE = 4096
"""Memory is looked up in pieces of this size; every machine's pages are multiples of it."""
KEPT = 256
"""Pieces kept."""
ADDRESS = (1 << 64) - 1
START_KERNEL_MAP = 0xFFFFFFFF80000000
"""__START_KERNEL_map of x86-64: where the image is mapped, KASLR's slide included in phys_base."""
PRESENT, LARGE = 1, 1 << 7
"""Bits of a page-table entry of x86-64."""
FRAME = ((1 << 52) - 1) & ~(PAGE - 1)


class KernelMemory:
    """What the kernel that crashed had at its addresses."""

    def __init__(self, image: Image, info: VmcoreInfo | None = None) -> None:
        """Take an image.

        Args:
            image: the memory.
            info: of the kernel in question, if that is not what the image's file says.
        """
        self.form = image.form
        self.info = image.info if info is None else info
        self._image = image
        self._ways = list(_ways(image, self.info))
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._absent: set[int] = set()

    def read(self, address: int, count: int) -> bytes:
        """The *count* bytes at a kernel address.

        Raises:
            DamagedError: not all of them are in the dump.
        """
        address &= ADDRESS
        number, within = divmod(address, PAGE)
        found = self._page(number)[within : within + count]
        while len(found) < count:
            number += 1
            found += self._page(number)[: count - len(found)]
        return found

    def pointer(self, address: int) -> int:
        """The ``unsigned long`` there.

        Raises:
            DamagedError: it is not in the dump.
        """
        return self.form.pointer(self.read(address, self.form.word), 0)

    def number(self, address: int, size: int = 4) -> int:
        """The unsigned number of *size* bytes there.

        Raises:
            DamagedError: it is not in the dump.
        """
        return self.form.number(self.read(address, size), 0, size)

    def _page(self, number: int) -> bytes:
        if number in self._pages:
            self._pages.move_to_end(number)
            return self._pages[number]
        if number not in self._absent:
            for way in self._ways:
                place = way(number * PAGE)
                page = b"" if place is None else self._image.physical(place, PAGE)
                if len(page) == PAGE:
                    self._pages[number] = page
                    if len(self._pages) > KEPT:
                        self._pages.popitem(last=False)
                    return page
            if len(self._absent) < KEPT:
                self._absent.add(number)
        raise DamagedError(f"what the kernel had at {number * PAGE:#x} is not in the dump")


_Way = Callable[[int], int | None]
_Map = list[tuple[int, int]]
"""Beginnings of ranges of addresses, and the physical address of each; a range ends where the next begins."""


def told_place(image: Image, info: VmcoreInfo, address: int) -> int | None:
    """The physical address of a kernel address by VMCOREINFO alone; None if that does not tell."""
    return _lookup(_told(image, info))(address)


def _ways(image: Image, info: VmcoreInfo) -> Iterator[_Way]:
    """How to get from a kernel address to a physical one, the surest first."""
    told = _lookup(_told(image, info))
    yield told
    yield image.translate
    if image.machine == "x86_64":
        yield from _page_tables(image, info, told)
    yield _lookup(_CUSTOMARY.get(image.machine, []))


def _lookup(places: _Map) -> _Way:
    ordered = sorted(places, reverse=True)

    def way(address: int) -> int | None:
        return next((address - start + place & ADDRESS for start, place in ordered if start <= address), None)

    return way


_CUSTOMARY: dict[str, _Map] = {
    "i386": [(0xC0000000, 0)],
    "ppc64": [(0xC000000000000000, 0)],
    "ppc64le": [(0xC000000000000000, 0)],
    "s390x": [(0, 0)],
    "loongarch64": [(0x9000000000000000, 0)],
}
"""The direct maps that are where they always were, unless somebody configured another."""


def _told(image: Image, info: VmcoreInfo) -> _Map:
    """What VMCOREINFO says of the image and the direct map."""

    def number(name: str) -> int | None:
        value = info.number(name)
        return None if value is None else value & ADDRESS

    # by what it says, for the file may be wrong: QEMU's compressed dumps are all of "x86_64"
    if number("kimage_voffset") is not None:
        return _told_arm64(info, number)
    if number("va_kernel_pa_offset") is not None:
        link, offset = number("KERNEL_LINK_ADDR"), number("va_kernel_pa_offset")
        image_place = None if link is None or offset is None else link - offset
        return _whole([(link, image_place), (number("PAGE_OFFSET"), number("phys_ram_base"))])
    if image.machine == "x86_64":
        phys_base = number("phys_base")
        return _whole([(START_KERNEL_MAP, image.phys_base if phys_base is None else phys_base)])
    return []


def _told_arm64(info: VmcoreInfo, number: Callable[[str], int | None]) -> _Map:
    """Image and direct map each have half of the addresses; 5.4 swapped the halves (arch/arm64/mm/init.c)."""
    offset, bits, size = number("kimage_voffset"), number("VA_BITS"), number("TCR_EL1_T1SZ")
    known = info.symbol("swapper_pg_dir") or info.symbol("_stext")
    if offset is None or bits is None or known is None or not 30 <= bits <= 52:
        return []
    used = bits if size is None or not 12 <= size <= 34 else 64 - size  # built for 52 bits, run with 48
    upper = ADDRESS + 1 - (1 << used - 1)
    if known >= upper:
        return _whole([(upper, upper - offset), (ADDRESS + 1 - (1 << bits), number("PHYS_OFFSET"))])
    lower = ADDRESS + 1 - (1 << used)
    return _whole([(upper, number("PHYS_OFFSET")), (lower, lower - offset)])


def _whole(places: list[tuple[int | None, int | None]]) -> _Map:
    return [(start, place) for start, place in places if start is not None and place is not None]


def _page_tables(image: Image, info: VmcoreInfo, told: _Way) -> Iterator[_Way]:
    """The kernel's own page tables, 4 or 5 levels of 512 entries: arch/x86/include/asm/pgtable_64_types.h."""
    root = next((s for n in _ROOTS if (s := info.symbol(n)) is not None), None)
    if root is None or (top := told(root) or image.translate(root)) is None:
        return
    levels = 5 if info.number("pgtable_l5_enabled") == 1 else 4
    encrypted = info.number("sme_mask") or 0

    def way(address: int) -> int | None:
        table = top
        for level in range(levels, 0, -1):
            shift = 12 + 9 * (level - 1)
            data = image.physical(table + (address >> shift & 511) * 8, 8)
            entry = int.from_bytes(data, "little") & ~encrypted
            if len(data) < 8 or not entry & PRESENT:
                return None
            if level == 1 or (level < 4 and entry & LARGE):
                mask = (1 << shift) - 1
                return (entry & FRAME & ~mask) | (address & mask)
            table = entry & FRAME
        return None

    yield way


_ROOTS = ("init_top_pgt", "swapper_pg_dir", "init_level4_pgt")
