# SPDX-License-Identifier: Apache-2.0
"""The log in a kernel's memory, whichever kind it is, as pstore would show it; and what is known of that kernel."""

from collections.abc import Iterator
from typing import NamedTuple

from pstored.readers.kdump.image import Image
from pstored.readers.kdump.info import VmcoreInfo
from pstored.readers.kdump.memory import KernelMemory
from pstored.readers.kdump.oldlog import RecordLog, TextLog
from pstored.readers.kdump.ring import RingLog
from pstored.readers.model import Options

MAX_TEXT = 8 << 20
"""Bytes of one log; of a longer one, its end.  Kernels have 128 KiB to 1 MiB."""
CALLERS = "CONFIG_PRINTK_CALLER"
"""The parameter that says whether the kernel shows callers."""


class KernelLog(NamedTuple):
    """What a kernel has logged."""

    text: bytes
    notes: tuple[str, ...]
    damage: tuple[str, ...]


def read_log(image: Image, info: VmcoreInfo, options: Options) -> KernelLog:
    """Read the log of the kernel that *info* is of.

    Raises:
        DamagedError: it is not in the memory, or makes no sense.
    """
    log = _find(KernelMemory(image, info), callers=options.parameters.get(CALLERS, "n")[:1] in "yY1")
    text, is_whole = _newest(log)
    cut = () if is_whole else (f"only the last {MAX_TEXT >> 20} MiB of the log are taken",)
    return KernelLog(text, (*_describe(image, info), *log.notes), (*log.damage, *cut))


def _find(memory: KernelMemory, *, callers: bool) -> RingLog | RecordLog | TextLog:
    """By what VMCOREINFO exports."""
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


def _describe(image: Image, info: VmcoreInfo) -> Iterator[str]:
    yield f"out of the memory of kernel {info.word('OSRELEASE') or 'unknown'} ({image.kind})"
    build = info.word("BUILD-ID")
    if build is not None:
        yield f"the kernel's build id is {build}"
    offset = info.plain("KERNELOFFSET", 16)
    if offset:
        yield f"KASLR had moved the kernel by {offset:#x}"
