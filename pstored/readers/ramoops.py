# SPDX-License-Identifier: Apache-2.0
"""A region of ramoops: what pstorefs would show of it, and what no kernel shows any more.

Source: fs/pstore/ram.c, ramoops_pstore_read().  The kernel drops a dump whose first line it cannot read; here it is
kept, and said.  Up to 5.5 a new dump went behind the old one in its slot: both are records.  What the kernel has
erased is still there, but for its header: only the length is lost.
"""

import re
from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import NamedTuple

from pstored.errors import DamagedError
from pstored.parse.decompress import unpack
from pstored.parse.ftracelog import MAX_CALLS, show
from pstored.parse.reedsolomon import Correct, corrector
from pstored.readers.dump import OLD_TAIL, as_shown, text_only
from pstored.readers.memory import Window
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source
from pstored.readers.ramoops_layout import (
    MAX_HEADERS,
    Layout,
    by_headers,
    by_parameters,
    find_headers,
    is_ftrace,
    is_region,
    parameters,
    regions,
)
from pstored.readers.ramoops_zone import HEADER, SIGNATURE, Content, Order, Zone, parse_header, read_zone, room

BACKEND = "ramoops"
BEHIND = 4 << 20
"""Bytes that count as the region behind its last header, where its end is not known."""

#   dump = "====" seconds "." microseconds ["-" ("C" / "D")] LF record          ramoops_write_kmsg_hdr()
_DUMP = re.compile(rb"====([0-9]{1,19})\.([0-9]{1,9})(?:-([CD]))?\n")
_RELEASE = re.compile(rb"(?:Linux version |(?:Not tainted|Tainted: [A-Z ]{1,30}) )([0-9]{1,2})\.[0-9]")
NEVER_WRITTEN = bytes(64)
"""So many zeros stand in no log: behind them the zone was not used, or is none any more."""
_NO_USE = "the parameters are of no use, and left aside"
MAX_HEAD = 40
"""Bytes of a dump's first line."""
DROPPED = "the kernel would have dropped it: its first line is damaged"
APPENDED = "it stood in its slot behind an older one: kernels up to 5.5 write so, and show both as one"


def recognize(source: Source) -> bool:
    """Whether it begins with the header of a zone that holds no more than is there."""
    return _order(source) is not None and source.read(HEADER, 4) not in _KMSG_MAGIC


_KMSG_MAGIC = (b"\xe5\x3a\xfc\x4d", b"\x4d\xfc\x3a\xe5")
"""Behind the header of a zone of pstore_blk, which is the same: fs/pstore/zone.c, PSTORE_KMSG_HEADER_MAGIC."""


def _order(source: Source) -> Order | None:
    head = source.read(0, HEADER)
    orders: tuple[Order, ...] = ("little", "big")
    for order in orders:
        header = parse_header(head, order)
        if len(head) == HEADER and header.signature == SIGNATURE and header.fits(source.size):
            return order
    return None


def read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:
    """All regions in a source: one, if it begins with one."""
    try:
        given = parameters(options.parameters)
    except ValueError as e:
        yield Remark(f"{_NO_USE}: {e}", is_damage=True)
        given = parameters({})
    begins = _order(source)
    if begins is None and given.mem_address:
        source = Window(source, given.mem_address, given.mem_size)
        begins = _order(source)
    if given.record_size is not None or given.console_size or given.pmsg_size:
        try:
            layout = by_parameters(source, given, begins or "little")
        except ValueError as e:
            yield Remark(f"{_NO_USE}: {e}", is_damage=True)
        else:
            yield from _region(source, layout, options)
            return
    places = list(islice(find_headers(source), MAX_HEADERS + 1))
    if len(places) > MAX_HEADERS:
        yield Remark(f"more than {MAX_HEADERS} headers of zones: the rest is not looked at", is_damage=True)
    found = [(order, group) for order, group in regions(places) if begins or is_region(source, group, order)]
    if not found:
        yield Remark("there is no header of a zone in it")
    for order, group in found:
        part = Window(source, 0, None if len(found) == 1 and begins else group[-1] + BEHIND)
        layout = by_headers(part, group, order, given.ecc)
        if layout.zones[0].at:
            yield Remark(f"a region of ramoops begins at byte {layout.zones[0].at:#x}")
        yield from _region(part, layout, options)


# -- one region


class _Reading(NamedTuple):
    """A region while it is read."""

    source: Source
    layout: Layout
    correct: Correct | None
    erased: bool

    def read(self, zone: Zone, *, whole: bool = False) -> Content:
        return read_zone(self.source, zone, self.layout.ecc, self.layout.order, self.correct, whole=whole)


def _region(source: Source, layout: Layout, options: Options) -> Iterator[Salvaged | Remark]:
    reading = _Reading(source, layout, corrector(layout.ecc) if layout.ecc else None, options.erased)
    counts = {word: sum(z.type == word for z in layout.zones) for word in ("dmesg", "console", "pmsg", "ftrace")}
    zones = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    ecc = f", {layout.ecc} bytes of ECC a block" if layout.ecc else ""
    yield Remark(f"zones found {layout.how}: {zones}{ecc}")
    modern = True  # the words of the ECC notice: those of the crashed kernel, if a dump names it
    for zone in layout.zones:
        if zone.type == "dmesg":
            for found, content in _dumps(reading, zone):
                modern = _is_modern(found.data, default=modern)
                yield _noted(found, content, _notice(layout, content, modern=modern))
    for zone in layout.zones:
        if zone.type in ("console", "pmsg"):
            for found, content in _log(reading, zone):
                yield _noted(found, content, _notice(layout, content, modern=modern))
    yield from _traces(reading)


def _notice(layout: Layout, content: Content, *, modern: bool) -> bytes:
    """What the kernel puts behind a record of a region with ECC: persistent_ram_ecc_string()."""
    if not layout.ecc:
        return b""
    word = b"ECC: " if modern else b""  # since 6.0
    if not content.corrected and not content.lost:
        return b"\n" + word + b"No errors detected\n"
    return b"\n%s%d Corrected bytes, %d unrecoverable blocks\n" % (word, content.corrected, content.lost)


def _is_modern(text: bytes, *, default: bool) -> bool:
    release = _RELEASE.search(text)
    return default if release is None else int(release[1]) >= 6


def _noted(found: Salvaged, content: Content, notice: bytes) -> Salvaged:
    """The record with its ECC notice, and with what is to be said of its zone."""
    return found._replace(
        data=found.data + notice,
        packed=None if found.packed is None else found.packed + notice,
        notes=(*found.notes, *content.notes),
        damage=(*found.damage, *content.damage),
    )


# -- dumps


def _dumps(reading: _Reading, zone: Zone) -> Iterator[tuple[Salvaged, Content]]:
    """The dumps in one slot."""
    content = reading.read(zone)
    header = content.header
    if header.signature != SIGNATURE or not header.fits(room(zone.size, reading.layout.ecc)):
        damage = "the header of its zone is no header: how long it is, is not known"
        damaged = content._replace(damage=(*content.damage, damage) if damage not in content.damage else content.damage)
        yield from ((found, damaged) for found in _remains(zone, content.area, erased=False))
    elif header.size:
        yield from ((found, content) for found in _written(zone, content.ring))
    elif reading.erased:
        content = reading.read(zone, whole=True)._replace(notes=(), damage=())
        yield from ((found, content) for found in _remains(zone, content.area, erased=True))


def _written(zone: Zone, ring: bytes) -> Iterator[Salvaged]:
    """What the slot's valid bytes hold: one dump, or on old kernels several, the first of which may be cut."""
    heads = [m for m in _DUMP.finditer(ring) if _is_first_line(m)]
    if not heads or heads[0].start() > 0:
        end = heads[0].start() if heads else len(ring)
        yield _headless(zone, ring[:end])
    for number, (head, after) in enumerate(zip_longest(heads, heads[1:])):
        end = len(ring) if after is None else after.start()
        yield _dump(zone, head, ring[head.end() : end], notes=(APPENDED,) if number else ())


def _is_first_line(found: re.Match[bytes]) -> bool:
    """Whether it can be one, and not the end of a line of the log: such a line has no letter behind the time."""
    return found.start() == 0 or found[3] is not None or found.string[found.start() - 1 : found.start()] == b"\n"


def _remains(zone: Zone, area: bytes, *, erased: bool) -> Iterator[Salvaged]:
    """Dumps of which nobody says how long they are."""
    heads = [m for m in _DUMP.finditer(area) if _is_first_line(m)]
    for head, after in zip_longest(heads, heads[1:]):
        stored = area[head.end() : None if after is None else after.start()]
        if head[3] != b"C":
            stored = text_only(stored)
        if stored:
            notes = (OLD_TAIL,) if head[3] != b"C" else ()
            yield _dump(zone, head, stored, notes=notes)._replace(erased=erased, packed=None)


def _name(zone: Zone) -> str:
    return f"{zone.type}-{BACKEND}-{zone.number}"


def _dump(zone: Zone, head: re.Match[bytes], stored: bytes, *, notes: tuple[str, ...]) -> Salvaged:
    shown = as_shown(_name(zone), stored, compressed=head[3] == b"C")
    mtime_ns = int(head[1]) * 1_000_000_000 + int(head[2]) * 1000
    return Salvaged(shown.name, shown.data, mtime_ns=mtime_ns, packed=shown.packed, notes=notes)


def _headless(zone: Zone, stored: bytes) -> Salvaged:
    """Bytes that begin with no first line: it is damaged, or was overwritten."""
    line, newline, rest = stored.partition(b"\n")
    if newline and len(line) <= MAX_HEAD and line.count(b"=") >= 2:
        stored = rest
    try:
        text = unpack(stored).text
    except DamagedError:
        text = stored
    return Salvaged(_name(zone), text, notes=(DROPPED,))


# -- console, pmsg, ftrace


def _log(reading: _Reading, zone: Zone) -> Iterator[tuple[Salvaged, Content]]:
    content = reading.read(zone)
    header = content.header
    is_whole = header.signature == SIGNATURE and header.fits(room(zone.size, reading.layout.ecc))
    if is_whole and header.size:
        yield Salvaged(_name(zone), content.ring), content
    elif not is_whole or reading.erased:
        content = reading.read(zone, whole=True)._replace(notes=(), damage=())
        text = content.area.partition(NEVER_WRITTEN)[0].rstrip(b"\0\xff")
        if text:
            notes = ("where its oldest byte is, is not known",)
            damage = () if is_whole else ("the header of its zone is damaged",)
            yield Salvaged(_name(zone), text, notes=notes, damage=damage, erased=is_whole), content


def _traces(reading: _Reading) -> Iterator[Salvaged]:
    """One record of the zones of all CPUs.  Newer kernels show no notice there, older ones a garbled text."""
    contents = [reading.read(zone) for zone in reading.layout.zones if zone.type == "ftrace"]
    rings = [
        c.ring for c in contents if is_ftrace(c.header.signature) and c.header.start <= c.header.size <= len(c.area)
    ]
    trace = show(rings, reading.layout.order)
    if not trace.calls:
        return
    notes = tuple(dict.fromkeys(note for c in contents for note in c.notes))
    if trace.calls > MAX_CALLS:
        notes += (f"the last {MAX_CALLS} of {trace.calls} calls",)
    damage = tuple(dict.fromkeys(text for c in contents for text in c.damage))
    yield Salvaged(f"ftrace-{BACKEND}-0", trace.text, notes=notes, damage=damage)


READER = Reader(recognize=recognize, read=read)
