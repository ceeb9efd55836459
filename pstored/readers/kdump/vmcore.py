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
from pstored.readers.kdump.memory import KernelMemory
from pstored.readers.kdump.oldlog import RecordLog, TextLog
from pstored.readers.kdump.ring import RingLog
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source

MAX_TEXT = 8 << 20
"""Bytes of one log; of a longer one, its end.  Kernels have 128 KiB to 1 MiB."""
MAX_TIME_S = 1 << 33
"""No crash is later."""
CALLERS = "CONFIG_PRINTK_CALLER"
"""The parameter that says whether the kernel shows callers."""


def recognize(source: Source) -> bool:
    """Whether it is a dump of a whole machine's memory, and not the core of a process."""
    if is_flattened(source):
        flattened = Flattened(source)
        return is_diskdump(flattened) or is_elf_core(flattened)
    if is_diskdump(source):
        return True
    try:
        return is_elf_core(source) and bool(ElfCore(source).info)
    except DamagedError:
        return False


def read(source: Source, options: Options, *, max_pieces: int = MAX_PIECES) -> Iterator[Salvaged | Remark]:
    """The log of the kernel that crashed, as pstore would show it; of a flattened dump so many pieces are looked at."""
    flattened = Flattened(source, max_pieces=max_pieces) if is_flattened(source) else None
    image: Image | None = None
    try:
        if flattened is not None and not is_diskdump(flattened):
            flattened.to_the_end()
        image = open_image(flattened or source)
        log = find_log(KernelMemory(image), callers=options.parameters.get(CALLERS, "n")[:1] in "yY1")
        text, is_whole = _newest(log)
    except DamagedError as e:
        yield Remark(f"the log cannot be read: {e}", is_damage=True)
        for lost in _damage(flattened, image):
            yield Remark(lost, is_damage=True)
        return
    time_s = image.info.plain("CRASHTIME", 10)
    time_s = time_s if time_s is not None and 0 < time_s < MAX_TIME_S else None
    cut = () if is_whole else (f"only the last {MAX_TEXT >> 20} MiB of the log are taken",)
    yield Salvaged(
        f"dmesg-{KDUMP}-{time_s or 0}",
        text,
        (time_s or 0) * 10**9,
        notes=(*_facts(image, flattened is not None), *log.notes),
        damage=(*log.damage, *cut, *_damage(flattened, image)),
    )


def open_image(source: Source) -> Image:
    """The memory in a dump file that is not flattened (any more).

    Raises:
        DamagedError: its headers make no sense, or it has no VMCOREINFO.
    """
    return DiskDump(source) if is_diskdump(source) else ElfCore(source)


def find_log(memory: KernelMemory, *, callers: bool = False) -> RingLog | RecordLog | TextLog:
    """The log in a kernel's memory, by what VMCOREINFO exports.

    Raises:
        DamagedError: it is not in the dump, or makes no sense.
    """
    if memory.info.symbol("prb") is not None:
        return RingLog(memory, callers=callers)
    if memory.info.symbol("log_first_idx") is not None:
        return RecordLog(memory)
    return TextLog(memory)


def _newest(log: RingLog | RecordLog | TextLog) -> tuple[bytes, bool]:
    """The log's text, and whether it is all of it."""
    found: list[bytes] = []
    size = 0
    for text in log.newest_first():
        if size + len(text) > MAX_TEXT:
            return b"".join(reversed(found)), False
        found.append(text)
        size += len(text)
    return b"".join(reversed(found)), True


def _facts(image: Image, is_flattened: bool) -> Iterator[str]:
    form = "flattened " * is_flattened + image.kind
    yield f"read from a vmcore ({form}) of kernel {image.info.word('OSRELEASE') or 'unknown'}"
    build = image.info.word("BUILD-ID")
    if build is not None:
        yield f"the kernel's build id is {build}"
    offset = image.info.plain("KERNELOFFSET", 16)
    if offset:
        yield f"KASLR had moved the kernel by {offset:#x}"


def _damage(flattened: Flattened | None, image: Image | None) -> list[str]:
    return ([] if image is None else image.damage) + ([] if flattened is None else flattened.damage)


def quick(max_pieces: int) -> Reader:
    """A reader that gives up on a flattened dump after so many pieces."""
    return Reader(recognize, partial(read, max_pieces=max_pieces))


READER = Reader(recognize, read)
