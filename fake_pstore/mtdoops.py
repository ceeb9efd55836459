# SPDX-License-Identifier: Apache-2.0
"""A flash partition as mtdoops leaves it: drivers/mtd/mtdoops.c, mtdoops_do_dump(), mtdoops_write()."""

import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

ERASED = b"\xff"
Order = Literal["<", ">"]
"""Of bytes: little, big."""


class Dump(NamedTuple):
    """What one page holds."""

    sequence: int
    text: bytes
    time_ns: int | None = None
    """Since 1970; None: the header of kernels up to 5.18, which have no time."""


def page(dump: Dump, size: int, *, order: Order = "<") -> bytes:
    """One page of *size* bytes; text that does not fit keeps its end, as kmsg_dump_get_buffer() gives it."""
    if dump.time_ns is None:
        header = struct.pack(order + "II", dump.sequence, 0x5D005D00)
    else:
        header = struct.pack(order + "IIq", dump.sequence, 0x5D005E00, dump.time_ns)
    room = size - len(header) - 1
    text = dump.text
    while len(text) > room:
        text = text.partition(b"\n")[2]  # whole lines only
    return (header + text + b"\0").ljust(size, ERASED)


def partition(dumps: Sequence[Dump | None], size: int = 4096, *, order: Order = "<") -> bytes:
    """Pages in a row; None is one that is unused."""
    return b"".join(ERASED * size if dump is None else page(dump, size, order=order) for dump in dumps)
