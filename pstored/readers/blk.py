# SPDX-License-Identifier: Apache-2.0
"""A device of pstore_blk, or whatever else pstore_zone writes to: mtdpstore's partitions, too.

Source: fs/pstore/zone.c.  From byte 0 on: a zone of pmsg, one of the console, those of ftrace, and dmesg zones up to
the end; each on a page, and with a header that is like ramoops', but in another order::

    zone = signature:u32 length:u32 start:u32 data           signature = "DBGC" combined with the record's type
    data of dmesg = magic:u32 seconds:s64 nanoseconds:long compressed:u8 counter:u32 reason:u32 log

A zone that was never written to has no header, so the zones' sizes need not be seen; what lies there is.
"""

import struct
from collections.abc import Iterator
from math import gcd
from typing import NamedTuple

from pstored.parse.ftracelog import MAX_CALLS, show
from pstored.readers.dump import OLD_TAIL, as_shown, text_only
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source
from pstored.readers.ramoops_zone import SIGNATURE, Order

BACKEND = "pstore_blk"
MAX_DEVICE = 128 << 20
"""PSTORE_ZONE_MAX_SIZE: the kernel uses no more of a device."""
PAGE = 4096
HEADER = 12
MAGIC = 0x4DFC3AE5
"""PSTORE_KMSG_HEADER_MAGIC."""
_TYPES = {0: "dmesg", 2: "console", 3: "ftrace", 7: "pmsg"}
_REASONS = (b"Unknown", b"Panic", b"Oops", b"Emergency", b"Shutdown")
"""kmsg_dump_reason_str()."""
_LOOKED_AT = 16 << 20
"""Where the first zone with a header must be for a device to be known as one."""


class _Zone(NamedTuple):
    """One that has been written to."""

    type: str
    at: int
    end: int
    """Where the next one begins."""
    order: Order
    length: int
    start: int

    def ring(self, source: Source) -> bytes:
        """The valid bytes, oldest first, as far as they are there."""
        at, length = self.at + HEADER, min(self.length, self.end - self.at - HEADER)
        if self.start >= length:
            return source.read(at, length)
        return source.read(at + self.start, length - self.start) + source.read(at, self.start)

    def damage(self) -> tuple[str, ...]:
        """What is wrong with its header."""
        if self.length > self.end - self.at - HEADER:
            return (f"its header says {self.length} bytes, and the next zone begins before: the kernel drops it",)
        return ("its header says that it begins behind its end",) if self.start > self.length else ()


def _zone(source: Source, at: int) -> _Zone | None:
    head = source.read(at, HEADER)
    orders: tuple[Order, ...] = ("little", "big")
    for order in orders:
        signature, length, start = (int.from_bytes(head[n : n + 4], order) for n in (0, 4, 8))
        kind = _TYPES.get(signature ^ SIGNATURE)
        if kind is None or len(head) < HEADER or length > MAX_DEVICE:
            continue
        if kind != "dmesg" or int.from_bytes(source.read(at + HEADER, 4), order) == MAGIC:
            return _Zone(kind, at, source.size, order, length, start)
    return None


def _recognize(source: Source) -> bool:
    first = _zone(source, 0)
    if first is not None and first.length <= source.size:
        return True
    pages = range(0, min(source.size, _LOOKED_AT), PAGE)
    return any((zone := _zone(source, at)) is not None and zone.type == "dmesg" for at in pages)


def _read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:
    zones = [z for at in range(0, min(source.size, MAX_DEVICE), PAGE) if (z := _zone(source, at)) is not None]
    if not zones:
        yield Remark("there is no header of a zone in it")
        return
    ends = [zone.at for zone in zones[1:]] + [min(source.size, MAX_DEVICE)]
    zones = [zone._replace(end=end) for zone, end in zip(zones, ends, strict=True)]
    dumps = [zone for zone in zones if zone.type == "dmesg"]
    step = gcd(*(zone.at - dumps[0].at for zone in dumps)) if dumps else 0
    for zone in dumps:
        number = (zone.at - dumps[0].at) // step if step else 0
        yield from _dump(source, zone, number, erased=options.erased)
    traces: list[_Zone] = []
    for zone in zones:
        if zone.type == "ftrace":
            traces.append(zone)
        elif zone.type != "dmesg" and zone.length:
            name = f"{zone.type}-{BACKEND}-0"
            yield Salvaged(name, zone.ring(source), damage=zone.damage())
    if traces:
        yield from _trace(source, traces)


# -- dumps


class _Kmsg(NamedTuple):
    """The header of a dump."""

    seconds: int
    nanoseconds: int
    compressed: int
    counter: int
    reason: int

    def is_sane(self) -> bool:
        return 0 <= self.seconds < 1 << 40 and 0 <= self.nanoseconds < 10**9 and self.compressed <= 1


def _kmsg(data: bytes, order: Order) -> tuple[_Kmsg, int]:
    """The header, and where the log begins: on i386 the 64-bit seconds stand right behind the magic number."""
    mark = "<" if order == "little" else ">"
    # the nanoseconds are a word of the machine, which counts where the high byte comes first
    forms = (("4xqiB3xII", 28), ("8xqqB3xII", 40), ("8xqi4xB3xII", 40))
    narrow, *wide = ((_Kmsg(*struct.unpack_from(mark + form, data.ljust(40, b"\0"))), size) for form, size in forms)
    if narrow[0].is_sane() and narrow[0].seconds:  # elsewhere these are padding and the lower half
        return narrow
    return next((pair for pair in wide if pair[0].is_sane()), wide[0])


def _dump(source: Source, zone: _Zone, number: int, *, erased: bool) -> Iterator[Salvaged]:
    """psz_kmsg_read(), and what that would not show."""
    if not zone.length and not erased:
        return
    room = zone.end - zone.at - HEADER
    data = source.read(zone.at + HEADER, min(zone.length or room, room))
    header, size = _kmsg(data, zone.order)
    damage = zone.damage()
    if not header.is_sane():
        damage += ("the header of the dump is damaged: its time and whether it is packed are not known",)
        header = _Kmsg(0, 0, 0, 0, 0)
    log = data[size:]
    if not zone.length and not header.compressed:
        log = text_only(log)
    shown = as_shown(f"dmesg-{BACKEND}-{number}", log, compressed=header.compressed == 1)
    if not header.compressed:
        reason = _REASONS[header.reason] if header.reason < len(_REASONS) else _REASONS[0]
        shown = shown._replace(data=b"%b: Total %d times\n" % (reason, header.counter) + shown.data)
    yield Salvaged(
        name=shown.name,
        data=shown.data,
        mtime_ns=header.seconds * 1_000_000_000 + header.nanoseconds,
        packed=shown.packed if zone.length else None,
        notes=(OLD_TAIL,) if not zone.length and not header.compressed else (),
        damage=damage,
        erased=not zone.length,
    )


def _trace(source: Source, zones: list[_Zone]) -> Iterator[Salvaged]:
    trace = show((zone.ring(source) for zone in zones), zones[0].order)
    if trace.calls:
        notes = (f"the last {MAX_CALLS} of {trace.calls} calls",) if trace.calls > MAX_CALLS else ()
        damage = tuple(dict.fromkeys(text for zone in zones for text in zone.damage()))
        yield Salvaged(f"ftrace-{BACKEND}-0", trace.text, notes=notes, damage=damage)


READER = Reader(recognize=_recognize, read=_read)
