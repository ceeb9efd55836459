# SPDX-License-Identifier: Apache-2.0
"""/proc/last_kmsg (or last_klog) of Android's kernels: the console of the boot before, as ramoops has it.

Older kernels had it of a driver of their own (drivers/staging/android/ram_console.c), and vendors still have, fed from
the same zone.  It is the record ``console-ramoops-0``, byte for byte where there is pstore, too.
"""

import os
from collections.abc import Iterator

from pstored.readers import serial
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source

NAMES = ("last_kmsg", "last_klog")
RECORD = "console-ramoops-0"
MAX_RECORD = 16 << 20
"""Bytes; such zones have 128 KiB to 2 MiB."""


def recognize(source: Source) -> bool:
    """Whether it is a log, and has such a name: there is nothing in it that tells it from a serial line's."""
    return os.path.basename(source.name).startswith(NAMES) and serial.recognize(source)


def read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:  # noqa: ARG001 - as all readers
    """The one record."""
    data = source.read(0, MAX_RECORD)
    if not data:
        yield Remark("it is empty: nothing was kept of the boot before")
        return
    more = source.read(MAX_RECORD, 1)
    yield Salvaged(RECORD, data, damage=(f"only the first {MAX_RECORD} bytes are looked at",) if more else ())


READER = Reader(recognize, read)
