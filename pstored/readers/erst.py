# SPDX-License-Identifier: Apache-2.0
"""The file in which QEMU's acpi-erst device keeps its records.

Source: hw/acpi/erst.c of QEMU.  Little-endian: magic:u64, record-size:u32, storage-offset:u32, version:u16,
reserved:u16, record-count:u32, and from byte 24 on a map, one record id:u64 for each slot of record-size bytes, those
of the header itself included.  An id of 0 or all ones is a free slot.  Clearing a record frees its slot, and leaves
the record in it.
"""

import struct
from collections.abc import Iterator

from pstored.errors import DamagedError
from pstored.parse.cper import HEADER_SIZE, record_length
from pstored.readers.cper import MAX_RECORDS, salvage
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source

MAGIC = b"ERSTSTOR"
_HEADER = struct.Struct("<8sIIHHI")
_MAP_AT = 24
_FREE = (0, 2**64 - 1)
_SIZES = range(4096, (1 << 20) + 1)
"""Of a slot: QEMU takes a power of two from 4 KiB on, and gives 8 KiB by default."""
_LEAST = 4096
_NAMED = 8
"""Of slots that lack their record, so many are named."""


def _recognize(source: Source) -> bool:
    return source.read(0, len(MAGIC)) == MAGIC


def _read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:
    head = source.read(0, _MAP_AT)
    if len(head) < _MAP_AT:
        yield Remark("the store ends within its header", is_damage=True)
        return
    _, size, start, _, _, count = _HEADER.unpack(head)
    if size not in _SIZES or start % size or not size <= start <= source.size:
        yield Remark(f"the store's header is damaged: slots of {size} bytes from byte {start} on", is_damage=True)
        size = start = _LEAST
    slots = range(start // size, source.size // size)
    if len(slots) > MAX_RECORDS:
        yield Remark(f"{len(slots)} slots, of which the first {MAX_RECORDS} are looked at", is_damage=True)
        slots = slots[:MAX_RECORDS]
    ids = source.read(_MAP_AT, min(start - _MAP_AT, 8 * slots.stop))
    found, missing = 0, 0
    for slot in slots:
        at = slot * size
        length = record_length(source.read(at, HEADER_SIZE))
        number = int.from_bytes(ids[8 * slot : 8 * slot + 8], "little")
        erased = number in _FREE
        if not erased:
            found += 1
        if length is None:
            if not erased:
                missing += 1
                if missing <= _NAMED:
                    yield Remark(f"slot {slot}: record {number} is not there", is_damage=True)
            continue
        if erased and not options.erased:
            continue
        try:
            yield salvage(source.read(at, min(length, size)), erased=erased)
        except DamagedError as e:
            yield Remark(f"slot {slot}: {e}", is_damage=True)
    if missing > _NAMED:
        yield Remark(f"{missing - _NAMED} more slots: their records are not there", is_damage=True)
    if found != count:
        yield Remark(f"the store's header counts {count} records, its map {found}")


READER = Reader(recognize=_recognize, read=_read)
