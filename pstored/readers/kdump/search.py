# SPDX-License-Identifier: Apache-2.0
"""VMCOREINFO where no header says where it is: in the memory itself, as the kernel keeps it for kdump.

The kernel makes the ELF note once, while booting (kernel/crash_core.c, crash_save_vmcoreinfo_init()); in memory that
has survived a reset, that of an earlier kernel may lie, too.
"""

from collections.abc import Iterator, Sequence

from pstored.readers.kdump.image import Image
from pstored.readers.kdump.info import MAX_INFO, VmcoreInfo

SIGNATURE = b"VMCOREINFO\0\0OSRELEASE="
CHUNK = 1 << 20
MAX_SEARCH = 16 << 30
"""Bytes looked through, some 10 s of them in pages that are not packed."""
MAX_FOUND = 64
"""Of each pattern: more than so many kernels have not run since power on."""


def scan(image: Image, patterns: Sequence[bytes], *, limit: int = MAX_SEARCH) -> list[list[int]]:
    """Where each of some patterns begins; in the first *limit* bytes."""
    found: list[list[int]] = [[] for _ in patterns]
    overlap = max(map(len, patterns)) - 1
    for at, data in _chunks(image, limit, overlap):
        for places, pattern in zip(found, patterns, strict=True):
            start = data.find(pattern)
            while start >= 0 and len(places) < MAX_FOUND:
                if at + start not in places:
                    places.append(at + start)
                start = data.find(pattern, start + 1)
    return found


def has(image: Image, pattern: bytes) -> bool:
    """Whether it is there."""
    return any(pattern in data for _, data in _chunks(image, MAX_SEARCH, len(pattern) - 1))


def _chunks(image: Image, left: int, overlap: int) -> Iterator[tuple[int, bytes]]:
    """All memory in pieces, each with the end of the one before."""
    for start, size in image.ranges():
        end = start + min(size, left)
        left -= end - start
        for at in range(start, end, CHUNK):
            first = max(start, at - overlap)
            yield first, image.physical(first, min(end, at + CHUNK) - first)
        if left <= 0:
            return


def read_note(image: Image, at: int) -> VmcoreInfo:
    """The VMCOREINFO whose note has its name at *at*; zeros follow it."""
    data = image.physical(at + len(SIGNATURE) - len(b"OSRELEASE="), MAX_INFO)
    return VmcoreInfo(data.partition(b"\0")[0])


def find_infos(image: Image, *, limit: int = MAX_SEARCH) -> list[VmcoreInfo]:
    """Every VMCOREINFO in a memory, each once."""
    (places,) = scan(image, [SIGNATURE], limit=limit)
    found = {info.text: info for info in (read_note(image, at) for at in places)}
    return list(found.values())
