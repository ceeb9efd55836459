# SPDX-License-Identifier: Apache-2.0
"""Raw memory, as a boot loader or a debugger saved it: the logs of the kernels that ran in it.

Nothing says what it is of, so it is looked through: for VMCOREINFO, which a kernel with kdump or /proc/kcore keeps, and
for the name of that kernel (``init_uts_ns``).  Where that lies tells where in physical memory the dump begins.
"""

from collections.abc import Iterator
from itertools import product
from typing import Literal

from pstored.errors import DamagedError
from pstored.parse.filename import KDUMP
from pstored.readers.kdump.image import Form
from pstored.readers.kdump.info import VmcoreInfo
from pstored.readers.kdump.log import KernelLog, read_log
from pstored.readers.kdump.memory import PAGE, told_place
from pstored.readers.kdump.search import SIGNATURE, has, read_note, scan
from pstored.readers.model import Options, Remark, Salvaged, Source

UTS_NAME = b"Linux".ljust(65, b"\0")
"""The first field of ``struct new_utsname``; each has 65 bytes."""
_RELEASE, _MACHINE = 2 * 65, 4 * 65
ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
"""Of bytes: a machine's name does not always tell."""


class RawMemory:
    """Memory from a physical address on, without a gap."""

    kind = "raw memory"
    phys_base = None

    def __init__(
        self,
        source: Source,
        machine: str = "",
        base: int = 0,
        shift: int | None = None,
        order: Literal["little", "big"] = "little",
    ) -> None:
        """Take a source.

        Args:
            source: the memory.
            machine: as uname -m.
            base: its first byte's physical address.
            shift: what is to be added to a kernel address to get to its place, if that is all that is known.
            order: of bytes.
        """
        self._source = source
        self._base = base
        self._shift = shift
        self.machine = machine
        self.form = Form(order, 8 if "64" in machine or machine == "s390x" else 4)
        self.info = VmcoreInfo(b"")
        self.damage: list[str] = []

    def ranges(self) -> Iterator[tuple[int, int]]:
        """All of it."""
        yield self._base, self._source.size

    def physical(self, at: int, count: int) -> bytes:
        """As any image."""
        return self._source.read(at - self._base, count) if at >= self._base else b""

    def translate(self, address: int) -> int | None:
        """As any image."""
        return None if self._shift is None else address + self._shift


def has_kernel(source: Source) -> bool:
    """Whether a kernel has left its VMCOREINFO there; all of it may have to be read."""
    return has(RawMemory(source), SIGNATURE)


def read_kernels(source: Source, options: Options) -> Iterator[Salvaged | Remark]:
    """The log of each kernel whose VMCOREINFO is there."""
    plain = RawMemory(source)
    notes, names = scan(plain, [SIGNATURE, UTS_NAME])
    infos = {info.text: info for info in (read_note(plain, at) for at in notes)}
    for number, info in enumerate(infos.values()):
        release = info.word("OSRELEASE") or ""
        places = [at for at in names if _word(source, at + _RELEASE) == release]
        log = next(_logs(source, info, places, options), None)
        if log is None:
            yield Remark(f"kernel {release} has run there, but its log cannot be found", is_damage=True)
        else:
            yield Salvaged(f"dmesg-{KDUMP}-{number}", log.text, notes=log.notes, damage=log.damage)
    if not infos:
        yield Remark("no kernel with VMCOREINFO has run there")


def _logs(source: Source, info: VmcoreInfo, places: list[int], options: Options) -> Iterator[KernelLog]:
    """The log, by each place at which the kernel's name is."""
    for at, order in product(places, ORDERS):
        try:
            image = _image(source, info, at, order)
            log = None if image is None else read_log(image, info, options)
        except DamagedError:
            continue
        if log is not None and log.text:
            yield log


def _image(source: Source, info: VmcoreInfo, at: int, order: Literal["little", "big"]) -> RawMemory | None:
    """The memory, if *at* is where ``init_uts_ns`` has the kernel's name; None if it cannot be."""
    machine = _word(source, at + _MACHINE)
    address = info.address("init_uts_ns") + info.offset("uts_namespace.name")
    place = told_place(RawMemory(source, machine), info, address)
    if place is None:  # image and memory are mapped as one
        return RawMemory(source, machine, 0, at - address, order)
    return None if place < at or (place - at) % PAGE else RawMemory(source, machine, place - at, None, order)


def _word(source: Source, at: int) -> str:
    return source.read(at, 65).partition(b"\0")[0].decode(errors="backslashreplace")
