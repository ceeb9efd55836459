# SPDX-License-Identifier: Apache-2.0
"""A device of pstore_blk as 64-bit little-endian kernels, and others, write it: fs/pstore/zone.c."""

import struct
from typing import NamedTuple

SIGNATURE = 0x43474244
MAGIC = 0x4DFC3AE5
TYPES = {"dmesg": 0, "console": 2, "ftrace": 3, "pmsg": 7}
REASONS = {b"Panic": 1, b"Oops": 2, b"Emergency": 3, b"Shutdown": 4}

HEADERS = {"lp64": "<IxxxxqqBxxxII4x", "be64": ">IxxxxqqBxxxII4x", "arm": "<IxxxxqixxxxBxxxII4x", "i386": "<IqiBxxxII"}
"""struct psz_kmsg_header, by what the machine's words and alignment make of it; padded to 8 but on i386."""


class Dump(NamedTuple):
    """A dump in a zone of its own."""

    log: bytes
    seconds: int
    nanoseconds: int = 0
    compressed: bool = False
    reason: bytes = b"Panic"
    counter: int = 1
    erased: bool = False


def zone(
    kind: str, data: bytes, size: int, *, start: int | None = None, order: str = "<", used: int | None = None
) -> bytes:
    """A zone with its header; *start* and *used* as a ring that has wrapped, or an erased zone, has them."""
    length = len(data) if used is None else used
    head = struct.pack(f"{order}3I", SIGNATURE ^ TYPES[kind], length, length if start is None else start)
    assert len(head) + len(data) <= size
    return (head + data).ljust(size, b"\xff")


def dump_zone(dump: Dump, size: int, machine: str = "lp64") -> bytes:
    """A dmesg zone."""
    form = HEADERS[machine]
    head = struct.pack(form, MAGIC, dump.seconds, dump.nanoseconds, dump.compressed, dump.counter, REASONS[dump.reason])
    data = head + dump.log
    return zone("dmesg", data, size, start=0, order=form[0], used=0 if dump.erased else None)


def ring(content: bytes, size: int) -> tuple[bytes, int]:
    """What is in a zone with room for *size* bytes once *content* has gone through it, and where it goes on."""
    if len(content) <= size:
        return content, len(content)
    at = len(content) % size
    return content[len(content) - at :] + content[-size : len(content) - at], at
