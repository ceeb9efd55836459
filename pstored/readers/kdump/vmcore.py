# SPDX-License-Identifier: Apache-2.0
"""vmcores: the log of the kernel that crashed, out of the memory that kdump saved.

ELF cores and makedumpfile's compressed dumps, either of them flattened; see the modules beside this one.  They may be
far larger than memory, so they are read from in pieces, where something is wanted; of a log, its newest end.
"""

from collections.abc import Iterator
from functools import partial

from pstored.errors import DamagedError
from pstored.parse.filename import KDUMP
from pstored.readers.kdump.diskdump import DiskDump, is_diskdump
from pstored.readers.kdump.elf import ElfCore, is_elf_core
from pstored.readers.kdump.flattened import MAX_PIECES, Flattened, is_flattened
from pstored.readers.kdump.image import Image
from pstored.readers.kdump.info import VmcoreInfo
from pstored.readers.kdump.log import read_log
from pstored.readers.kdump.search import MAX_SEARCH, find_infos
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source

PACKED = 4
"""To look through pages that are packed takes so many times longer, or more."""
MAX_TIME_S = 1 << 33
"""No crash is later."""


def recognize(source: Source) -> bool:
    """Whether it is a dump of a whole machine's memory, and not the core of a process."""
    if is_flattened(source):
        flattened = Flattened(source)
        return is_diskdump(flattened) or is_elf_core(flattened)
    if is_diskdump(source):
        return True
    try:
        return is_elf_core(source) and ElfCore(source).is_of_a_machine()
    except DamagedError:
        return False


def read(
    source: Source, options: Options, *, max_pieces: int = MAX_PIECES, max_search: int = MAX_SEARCH
) -> Iterator[Salvaged | Remark]:
    """The log of the kernel that crashed, as pstore would show it.

    Args:
        source: the dump file.
        options: CONFIG_PRINTK_CALLER, if the kernel had that.
        max_pieces: of a flattened dump so many are looked at.
        max_search: in so many bytes of memory VMCOREINFO is looked for, if no header says where it is.
    """
    flattened = Flattened(source, max_pieces=max_pieces) if is_flattened(source) else None
    image: Image | None = None
    infos: list[VmcoreInfo] = []
    try:
        if flattened is not None and not is_diskdump(flattened):
            flattened.to_the_end()
        image = _open(flattened or source)
        limit = max_search // PACKED if isinstance(image, DiskDump) else max_search
        infos = [image.info] if image.info.text else find_infos(image, limit=limit)
        if not infos:
            raise DamagedError("there is no VMCOREINFO, so it is not known where the kernel's log lies")
    except DamagedError as e:
        yield Remark(f"the log cannot be read: {e}", is_damage=True)
    has_log = False
    for number, info in enumerate(infos):
        assert image is not None
        try:
            log = read_log(image, info, options)
        except DamagedError as e:
            yield Remark(f"the log of kernel {info.word('OSRELEASE')} cannot be read: {e}", is_damage=True)
            continue
        if not log.text:
            yield Remark(f"no message of kernel {info.word('OSRELEASE')} is there", is_damage=True)
            for lost in log.damage:
                yield Remark(lost, is_damage=True)
            continue
        has_log = True
        time_s = info.plain("CRASHTIME", 10)
        time_s = time_s if time_s is not None and 0 < time_s < MAX_TIME_S else None
        damage = (*log.damage, *_damage(flattened, image))
        name = f"dmesg-{KDUMP}-{number if time_s is None else time_s}"
        yield Salvaged(name, log.text, (time_s or 0) * 10**9, notes=log.notes, damage=damage)
    for lost in [] if has_log else _damage(flattened, image):
        yield Remark(lost, is_damage=True)


def _open(source: Source) -> Image:
    """The memory in a dump file that is not flattened (any more).

    Raises:
        DamagedError: its headers make no sense.
    """
    return DiskDump(source) if is_diskdump(source) else ElfCore(source)


def _damage(flattened: Flattened | None, image: Image | None) -> list[str]:
    return ([] if image is None else image.damage) + ([] if flattened is None else flattened.damage)


def quick(max_pieces: int) -> Reader:
    """A reader that gives up on a flattened dump after so many pieces, and looks for nothing."""
    return Reader(recognize, partial(read, max_pieces=max_pieces, max_search=0))


READER = Reader(recognize, read)
