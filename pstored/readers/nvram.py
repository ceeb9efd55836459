# SPDX-License-Identifier: Apache-2.0
"""The NVRAM of PowerPC machines: the kernel's oops in a partition of it; an image, or /dev/nvram.

Source: arch/powerpc/kernel/nvram_64.c.  The NVRAM is a chain of partitions, all of it big-endian::

    u8 signature  u8 checksum  u16 blocks of 16 bytes, this header included  12 bytes of name

Those named ``lnx,oops-log`` and ``ibm,rtas-log`` hold one event each, the last; where the first is missing, an oops is
in the second::

    u32 type  u32 sequence      0 logged already, 1 boot, 2 RTAS, 4 an oops, 8 an oops, packed by zlib
    u16 version >= 5000  u16 length  u64 Unix seconds  oops       of an oops: since 3.11
    u16 length  oops                                              before

With pstore the oops is its record, header and all; without, it is text without levels.  Nothing there is ever erased.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from pstored.errors import DamagedError
from pstored.parse.decompress import unpack
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source

MAX_NVRAM = 4 << 20
"""Machines have 64 KiB to 1 MiB; of a larger image, so much is looked at."""
HEADER = 16
OOPS, RTAS = b"lnx,oops-log", b"ibm,rtas-log"
SIGNATURES = frozenset((0x02, 0x50, 0x51, 0x52, 0x70, 0x71, 0x7F, 0xA0))
"""Of asm/nvram.h: service processor, Open Firmware, firmware, hardware, system, configuration, free, OS."""
LOGGED, RTAS_EVENT, PLAIN, PACKED = 0, 2, 4, 8
VERSION = 5000
ZLIB = b"\x78"
"""What its streams begin with, whose window is the largest."""
MAX_TEXT = 1 << 20
"""Bytes that an oops unpacks to: what a partition holds, 64 KiB at most, is some 400 KiB of log."""


class _Partition(NamedTuple):
    name: bytes
    data: bytes


def recognize(source: Source) -> bool:
    """Whether two partitions follow each other at its beginning, or the one that counts stands there alone."""
    at = 0
    for _ in range(2):
        size = _size(source.read(at, HEADER))
        if size is None:
            return False
        at += size
        if at >= source.size:
            break
    return True


def read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:  # noqa: ARG001 - as all readers
    """The oops, and the event of the firmware that has not been read."""
    seen: set[bytes] = set()
    for found in _partitions(source.read(0, MAX_NVRAM)):
        if isinstance(found, Remark):
            yield found
        elif found.name in (OOPS, RTAS) and found.name not in seen:  # of several, the kernel takes the first, too
            seen.add(found.name)
            yield from _event(found)
    if not seen:
        yield Remark("neither lnx,oops-log nor ibm,rtas-log: no kernel has had a place for an oops there")


# -- partitions


def _size(header: bytes) -> int | None:
    """Bytes of the partition that begins with these 16; None if none does."""
    if len(header) < HEADER or header[0] not in SIGNATURES:
        return None
    blocks = int.from_bytes(header[2:4], "big")
    return blocks * 16 if blocks and header[1] == _checksum(header) else None


def _checksum(header: bytes) -> int:
    """nvram_checksum(): a sum of 16-bit words, carries added again, folded into one byte."""
    words: tuple[int, ...] = struct.unpack_from(">7H", header, 2)
    total = header[0] + sum(words)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (total + (total >> 8 | total << 8)) >> 8 & 0xFF


def _partitions(image: bytes) -> Iterator[_Partition | Remark]:
    """Those of the chain; where it is broken, it goes on at the next block that begins one."""
    at = lost = 0
    while at < len(image):
        size = _size(image[at : at + HEADER])
        if size is None:
            lost += 16
            at += 16
            continue
        yield _Partition(image[at + 4 : at + HEADER].rstrip(b"\0"), image[at + HEADER : at + size])
        at += size
    if lost:
        yield Remark(f"the chain of partitions is broken: {lost} bytes are of none", is_damage=True)
    if at > len(image) and not lost:
        yield Remark(f"the last partition ends {at - len(image)} bytes too early", is_damage=True)


# -- events


def _event(partition: _Partition) -> Iterator[Salvaged | Remark]:
    where = partition.name.decode()
    if len(partition.data) < 8:
        yield Remark(f"{where} is too small to hold an event", is_damage=True)
        return
    kind, sequence = struct.unpack_from(">II", partition.data)
    data = partition.data[8:]
    if kind in (PLAIN, PACKED) or (kind == LOGGED and partition.name == OOPS and any(data[:12])):
        yield _oops(kind, sequence, data)
    elif kind == RTAS_EVENT:
        yield Salvaged(f"rtas-nvram-{sequence}", data)
    else:
        yield Remark(f"{where} holds no oops")


def _oops(kind: int, sequence: int, data: bytes) -> Salvaged:
    name = f"dmesg-nvram-{sequence}"
    data = data.ljust(12, b"\0")
    version, length, seconds = struct.unpack_from(">HHQ", data)
    if version < VERSION:
        seconds, stored, length = 0, data[2 : 2 + version], version
    else:
        stored = data[12 : 12 + length]
    damage = [] if len(stored) == length else [f"{length - len(stored)} bytes at its end are missing"]
    notes = ["the kernel has it marked as logged"] if kind == LOGGED else []
    unpacked = _unpack(stored) if kind == PACKED or (kind == LOGGED and stored[:1] == ZLIB) else (stored, ())
    time_ns = seconds * 10**9
    if unpacked is None:
        return Salvaged(f"{name}.enc.z", stored, time_ns, notes=tuple(notes), damage=tuple(damage))
    text, more = unpacked
    packed = stored if text is not stored else None
    return Salvaged(name, text, time_ns, packed=packed, notes=tuple(notes), damage=(*damage, *more))


def _unpack(data: bytes) -> tuple[bytes, tuple[str, ...]] | None:
    """The text, and what is wrong with it; None if it cannot be unpacked."""
    try:
        unpacked = unpack(data, limit=MAX_TEXT)
    except DamagedError:
        pass  # without pstore there is no header, by which unpack() tells text from nonsense
    else:
        return unpacked.text, unpacked.damage
    inflater = zlib.decompressobj()
    text = bytearray()
    try:
        for at in range(len(data)):  # byte by byte: what stands before the damage comes out whole
            text += inflater.decompress(data[at : at + 1], MAX_TEXT - len(text))
            if inflater.eof or len(text) >= MAX_TEXT:
                break
    except zlib.error:
        pass
    if not text:
        return None
    return bytes(text), () if inflater.eof else ("only its beginning could be unpacked",)


READER = Reader(recognize, read)
