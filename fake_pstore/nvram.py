# SPDX-License-Identifier: Apache-2.0
"""The NVRAM of PowerPC machines: partitions, and the error logs of the kernel in two of them.

Source: arch/powerpc/kernel/nvram_64.c: struct nvram_header, struct err_log_info, struct oops_log_info,
nvram_checksum(), oops_to_nvram(); arch/powerpc/include/asm/nvram.h for the numbers.
"""

import struct
import zlib
from collections.abc import Sequence

OF, COMMON, OS, FREE = 0x50, 0x70, 0xA0, 0x7F
"""Signatures."""
LOGGED, RTAS, PANIC, PANIC_GZ = 0, 2, 4, 8
"""Types of error."""
OOPS = b"lnx,oops-log"
RTAS_LOG = b"ibm,rtas-log"
VERSION = 5000


def checksum(signature: int, length: int, name: bytes) -> int:
    """One byte over signature, length (in blocks) and name: 16-bit words with the carry added again, folded."""
    words: tuple[int, ...] = struct.unpack(">6H", name.ljust(12, b"\0"))
    total = signature + length + sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    swapped = (total >> 8) + (total << 8)
    return (total + swapped) >> 8 & 0xFF


def partition(signature: int, name: bytes, data: bytes, size: int) -> bytes:
    """A partition of *size* bytes, a multiple of 16, the header included."""
    blocks = size // 16
    header = struct.pack(">BBH12s", signature, checksum(signature, blocks, name), blocks, name)
    return (header + data).ljust(size, b"\0")


def error_log(kind: int, sequence: int, data: bytes) -> bytes:
    """What the kernel puts before every event."""
    return struct.pack(">II", kind, sequence) + data


def oops(text: bytes, *, seconds: int, packed: bool, sequence: int = 1, header: bytes = b"") -> bytes:
    """An oops, since 3.11; *header* is what pstore puts before its text."""
    data = zlib.compress(header + text, 6) if packed else header + text
    return error_log(PANIC_GZ if packed else PANIC, sequence, struct.pack(">HHQ", VERSION, len(data), seconds) + data)


def old_oops(text: bytes, *, sequence: int = 1, packed: bool = True) -> bytes:
    """An oops of earlier kernels: the length, and zlib's bytes."""
    data = zlib.compress(text) if packed else text
    return error_log(PANIC_GZ if packed else PANIC, sequence, struct.pack(">H", len(data)) + data)


def image(partitions: Sequence[bytes], size: int = 0x10000) -> bytes:
    """Partitions in a row, the rest free."""
    used = b"".join(partitions)
    return used + partition(FREE, b"wwwwwwwwwwww", b"", size - len(used))
