# SPDX-License-Identifier: Apache-2.0
"""Where the zones of a ramoops region are: by the driver's parameters, or by what is found there.

Source: fs/pstore/ram.c, ramoops_probe(), ramoops_init_przs().  From the region's beginning on::

    dmesg * n, console, ftrace * cpus, pmsg       up to Linux 6.1
    dmesg * n, console, pmsg, ftrace * cpus       since 6.2

What the sizes of console, ftrace and pmsg leave is divided among as many dmesg zones as records of record_size go into
it, so that a zone may be larger than that, of any size; since 6.8 of an even one.  Each of the other sizes is a power
of two.  The kernel writes a header into every zone when it takes the region, so that all of them show.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from itertools import pairwise
from operator import xor
from typing import NamedTuple

from pstored.parse.reedsolomon import MAX_PARITY, damaged_blocks
from pstored.readers.memory import Window
from pstored.readers.model import Source
from pstored.readers.ramoops_zone import HEADER, SIGNATURE, Order, Zone, parse_header

MAX_ZONE = 128 << 20
"""No zone is larger."""
MIN_ZONE = 64
MAX_HEADERS = 20_000
"""So many that look like a header of a zone are looked at."""
MAX_ZONES = 65_536
"""Where the kernel gives up reading, too."""
MAX_CPUS = 8192
MAX_TRACE = 16 << 20
"""No zone of one CPU's ftrace is larger."""
GAP = 2
"""So many headers in a row may be damaged, and their zones are found all the same."""
CHUNK = 1 << 20
_ZEROS = bytes(CHUNK + HEADER)
_SIZES = [1 << shift for shift in range(8, 28)]
_DEFAULT_ECC = 16


class Layout(NamedTuple):
    """The zones of one region."""

    order: Order
    ecc: int
    """Bytes of parity for each block; 0: there is none."""
    zones: tuple[Zone, ...]
    how: str
    """How they were found, in words."""


class Parameters(NamedTuple):
    """What the driver was told, in bytes; None is what is not known."""

    mem_address: int = 0
    """Where the region is, in a dump of all memory from address 0 on."""
    mem_size: int | None = None
    record_size: int | None = None
    console_size: int = 0
    ftrace_size: int = 0
    pmsg_size: int = 0
    ecc: int | None = None


def parameters(given: Mapping[str, str]) -> Parameters:
    """Those of ``ramoops.*``, with or without that word.

    Raises:
        ValueError: one of them is no number, or none that it can be.
    """
    found: dict[str, int] = {}
    for name, text in given.items():
        word = name.removeprefix("ramoops.").replace("-", "_")
        if word in Parameters._fields:
            found[word] = int(text, 0)
            if found[word] < 0:
                raise ValueError(f"{word}={text} is below 0")
    if found.get("ecc") == 1:  # what it means to the driver
        found["ecc"] = _DEFAULT_ECC
    for word in ("record_size", "console_size", "ftrace_size", "pmsg_size"):
        if size := found.get(word, 0):
            found[word] = 1 << size.bit_length() - 1
    return Parameters(**found)


# -- by parameters


def by_parameters(source: Source, given: Parameters, order: Order) -> Layout:
    """The layout that the parameters give; of the ones of all kernels, that which most headers agree with.

    Raises:
        ValueError: they give no zone, or more than any machine has, or none has a header, and elsewhere there are some.
    """
    size = min(source.size, given.mem_size or source.size)
    record = given.record_size or 0
    rest = size - given.console_size - given.ftrace_size - given.pmsg_size
    count = rest // record if record and rest > 0 else 0
    if count > MAX_HEADERS:
        raise ValueError(f"record_size={record} makes {count} zones")
    guesses: list[tuple[int, int, tuple[Zone, ...]]] = []
    whole = rest // count if count else 0
    for zone_size in dict.fromkeys((whole, whole // 2 * 2, record)):
        dmesg = [Zone("dmesg", n, n * zone_size, zone_size) for n in range(count)]
        for pmsg_first in (True, False):
            zones = tuple(_lay_out(source, given, order, dmesg, count * zone_size, pmsg_first=pmsg_first))
            agree = sum(_has_header(source, zone, order) for zone in zones)
            guesses.append((agree, -len(guesses), zones))
    agree, _, zones = max(guesses)
    if not zones or (not agree and next(find_headers(source), None) is not None):
        raise ValueError(f"none of {len(zones)} zones has a header where they say")
    ecc = find_ecc(source, zones) if given.ecc is None else given.ecc
    return Layout(order, ecc, zones, f"by its parameters: {agree} of {len(zones)} zones have a header")


def _lay_out(
    source: Source, given: Parameters, order: Order, dmesg: list[Zone], at: int, *, pmsg_first: bool
) -> Iterator[Zone]:
    yield from dmesg
    if given.console_size:
        yield Zone("console", 0, at, given.console_size)
        at += given.console_size
    if given.pmsg_size and pmsg_first:
        yield Zone("pmsg", 0, at, given.pmsg_size)
        at += given.pmsg_size
    if given.ftrace_size:
        part = _Reading(Window(source, 0, at + given.ftrace_size), order, 0)
        yield from _ftrace_zones(part, at) or [Zone("ftrace", 0, at, given.ftrace_size)]
        at += given.ftrace_size
    if given.pmsg_size and not pmsg_first:
        yield Zone("pmsg", 0, at, given.pmsg_size)


def _has_header(source: Source, zone: Zone, order: Order) -> bool:
    header = parse_header(source.read(zone.at, HEADER), order)
    signed = is_ftrace(header.signature) if zone.type == "ftrace" else header.signature == SIGNATURE
    return signed and header.fits(zone.size)


# -- by what is there


def is_region(source: Source, places: list[int], order: Order) -> bool:
    """Whether headers at these places are those of a region: one alone may be any four bytes of a memory."""
    return len(places) > 1 or _begins_dump(source, places[0], order) or _is_console(source, places[0], order)


def find_headers(source: Source) -> Iterator[tuple[int, Order]]:
    """Where something that looks like the header of a zone is, ftrace's left aside."""
    for start in range(0, source.size, CHUNK):
        data = source.read(start, CHUNK + HEADER - 1)
        if _ZEROS.startswith(data):  # as much of a memory is
            continue
        orders: tuple[Order, ...] = ("little", "big")
        for order in orders:
            mark = SIGNATURE.to_bytes(4, order)
            at = data.find(mark)
            while 0 <= at < CHUNK:
                header = parse_header(data[at : at + HEADER], order)
                if at + HEADER <= len(data) and header.fits(MAX_ZONE):
                    yield start + at, order
                at = data.find(mark, at + 1)


def regions(places: Iterable[tuple[int, Order]]) -> list[tuple[Order, list[int]]]:
    """Headers put together that may be of one region: of one byte order, and no further apart than a zone is large."""
    found: dict[Order, list[list[int]]] = {}
    for at, order in places:
        groups = found.setdefault(order, [])
        if not groups or at - groups[-1][-1] > MAX_ZONE:
            groups.append([])
        groups[-1].append(at)
    return sorted(((order, group) for order, groups in found.items() for group in groups), key=lambda pair: pair[1])


def by_headers(source: Source, places: list[int], order: Order, told: int | None) -> Layout:
    """The layout that headers at these places tell of.

    Args:
        source: up to the end of the region, if that is known.
        places: of all headers but ftrace's, ascending; some may be none.
        order: of the machine's bytes.
        told: bytes of parity for each block; None: to be found out.
    """
    run, step = _run(source, places, order)
    zones = [Zone("dmesg", n, at, step) for n, at in enumerate(run)]
    ecc = find_ecc(source, zones[:-1] or [Zone("", 0, run[-1], s) for s in _SIZES]) if told is None else told
    reading = _Reading(source, order, ecc)
    found = _behind_dumps(reading, zones, places) if step else None
    if found is None:
        *zones, last = _sort_out(reading, zones)
        found = _last(reading, last, step)
    return Layout(order, ecc, (*zones, *found), f"by {len(places)} headers of zones")


class _Reading(NamedTuple):
    """What all steps of the search go by."""

    source: Source
    order: Order
    ecc: int


def _behind_dumps(reading: _Reading, zones: list[Zone], places: list[int]) -> list[Zone] | None:
    """Console, pmsg and ftrace, which are taken out of *zones* where they are; None if that is not so clear."""
    source, order, _ = reading
    last = zones[-1]
    if len(zones) > 1 and (between := _with_ftrace(reading, "console", zones[-2].at, last.at)):
        del zones[-2:]
        return between + _end(reading, "pmsg", last.at)
    behind = None if _begins_dump(source, last.at, order) else _behind(source, last.at, places, order)
    if behind is not None and (between := _with_ftrace(reading, "console", last.at, behind)):
        del zones[-1]
        return between + _end(reading, "pmsg", behind)
    if traces := _ftrace_zones(reading, last.at + last.size):  # of a console as large as a dump's zone, or of none
        end = traces[-1].at + traces[-1].size
        pmsg = next((at for at in places if end <= at <= end + len(traces)), None)
        if pmsg is not None:
            return [*_sort_out(reading, [zones.pop()]), *traces, *_end(reading, "pmsg", pmsg)]
    if behind is None:
        return None
    del zones[-1]
    return [_fit(reading, Zone("console", 0, last.at, behind - last.at)), *_end(reading, "pmsg", behind)]


def _run(source: Source, places: list[int], order: Order) -> tuple[list[int], int]:
    """Places that are equally far apart, as many as there are, headers that are damaged among them; and how far."""
    near = Counter(b - a for a, b in pairwise(places) if MIN_ZONE <= b - a <= MAX_ZONE)
    best: list[int] = places[:1]
    step = 0
    there = set(places)
    for distance, _ in near.most_common(4):
        for first in places:
            if first + distance in there and first - distance not in there:
                run = _follow(source, first, distance, there, order)
                if len(run) > len(best):
                    best, step = run, distance
    while step and best[0] >= step and (best[0] == step or _was_header(source, best[0] - step, order)):
        best.insert(0, best[0] - step)
    return best, step


def _follow(source: Source, first: int, step: int, there: set[int], order: Order) -> list[int]:
    """All places from the first on; one that shows no header counts if it once had one, or if two behind it have."""
    run = [first]
    while len(run) < MAX_ZONES:
        at = run[-1] + step
        if at not in there and not _was_header(source, at, order):
            later = [n for n in range(2, GAP + 4) if run[-1] + n * step in there]
            if len(later) < 2 or later[0] > GAP + 1:
                return run
        run.append(at)
    return run


def _behind(source: Source, last: int, places: list[int], order: Order) -> int | None:
    """The header behind that of the console, one byte of it wrong or none; None if there is none."""
    found = next((at for at in places if at > last and _is_sum_of_two(at - last)), None)
    if found is not None:
        return found
    sums = sorted({a + b for a in _SIZES for b in (0, *_SIZES) if MIN_ZONE <= a + b < source.size - last})
    return next((last + size for size in sums if _is_nearly(source, last + size, order)), None)


def _is_nearly(source: Source, at: int, order: Order) -> bool:
    """Whether a header is there, one byte of its signature wrong or none."""
    head = source.read(at, HEADER)
    right = sum(a == b for a, b in zip(head, SIGNATURE.to_bytes(4, order), strict=False))
    return len(head) == HEADER and right >= 3 and parse_header(head, order).fits(MAX_ZONE)


def _was_header(source: Source, at: int, order: Order) -> bool:
    return _is_nearly(source, at, order) or _begins_dump(source, at, order)


def _is_sum_of_two(size: int) -> bool:
    """Whether a distance is the size of one zone, or of console and ftrace: a power of two, or a sum of two."""
    return size >= min(_SIZES) and size.bit_count() <= 2


def _sort_out(reading: _Reading, zones: list[Zone]) -> list[Zone]:
    """Equal zones: whether the last two are no dumps, but console and pmsg, which are as large."""
    source, order, _ = reading
    *rest, last = zones
    if _begins_dump(source, last.at, order):
        return zones
    if rest and _is_used(source, rest[-1].at, order) and not _begins_dump(source, rest[-1].at, order):
        return [*rest[:-1], rest[-1]._replace(type="console", number=0), last._replace(type="pmsg", number=0)]
    if not _is_used(source, last.at, order):
        return zones
    word = "console" if _is_console(source, last.at, order) else "pmsg"
    return [*rest, last._replace(type=word, number=0)]


def _last(reading: _Reading, last: Zone, step: int) -> list[Zone]:
    """What is behind the last header of all: ftrace, if anything."""
    if last.type != "dmesg" or not step or last.at + step > reading.source.size:
        return _end(reading, last.type, last.at)
    traces = [last, *_ftrace_zones(reading, last.at + step)]
    if _begins_dump(reading.source, last.at, reading.order):
        return traces
    console = _with_ftrace(reading, "console", last.at, None)
    # the one that has ftrace's first zone, which is nearer than those behind it
    return console if console and (len(traces) == 1 or console[1].at < traces[1].at) else traces


def _end(reading: _Reading, word: str, at: int) -> list[Zone]:
    """The zones from the last header on: one, and those of ftrace behind it."""
    size = min(reading.source.size - at, MAX_ZONE)
    return _with_ftrace(reading, word, at, None) or [_fit(reading, Zone(word, 0, at, size))]


def _with_ftrace(reading: _Reading, word: str, at: int, until: int | None) -> list[Zone]:
    """A zone, and those of ftrace behind it, up to the next header, if there is one; nothing if there are none."""
    for size in _SIZES:
        if at + size >= (reading.source.size if until is None else until):
            break
        if until is None or (until - at - size).bit_count() == 1:
            part = reading if until is None else reading._replace(source=Window(reading.source, 0, until))
            if traces := _ftrace_zones(part, at + size):
                return [Zone(word, 0, at, size), *traces]
    return []


def _fit(reading: _Reading, zone: Zone) -> Zone:
    """A zone with its size: one that the parity of its header agrees with, else the largest for which there is room."""
    source, order, ecc = reading
    sizes = [zone.size, *(s for s in reversed(_SIZES) if s < zone.size)]
    if ecc:
        found = next((s for s in sizes if _has_parity(source, zone._replace(size=s), ecc)), None)
        return zone if found is None else zone._replace(size=found)
    if zone.size.bit_count() == 1:
        return zone
    header = parse_header(source.read(zone.at, HEADER), order)
    return next((zone._replace(size=s) for s in sizes[1:] if header.fits(s - HEADER)), zone)


# -- what a zone begins with


def _peek(source: Source, at: int, order: Order) -> bytes:
    """The oldest bytes in a zone, or what its first are if its header is damaged."""
    header = parse_header(source.read(at, HEADER), order)
    start = header.start if header.start < header.size <= MAX_ZONE else 0
    return source.read(at + HEADER + start, 4096)


def _begins_dump(source: Source, at: int, order: Order) -> bool:
    """Whether a dump's first line is there, perhaps with a byte that is wrong."""
    head = _peek(source, at, order)[:5]
    return head[:4].count(b"=") >= 3 and (head[4:5].isdigit() or head[:4] == b"====")


def _is_used(source: Source, at: int, order: Order) -> bool:
    return 0 < parse_header(source.read(at, HEADER), order).size <= MAX_ZONE


def _is_console(source: Source, at: int, order: Order) -> bool:
    return _TIME.search(_peek(source, at, order)) is not None


_TIME = re.compile(rb"^\[ {0,4}[0-9]{1,10}\.[0-9]{6}\]", re.MULTILINE)


# -- ftrace


def is_ftrace(signature: int) -> bool:
    """Whether it is that of a zone of ftrace: combined with a version that a kernel can have."""
    version = signature ^ SIGNATURE
    return 2 <= version >> 16 <= 31


def _ftrace_zones(reading: _Reading, at: int) -> list[Zone]:
    """The zones of all CPUs, from *at* on; none if there is no first.  All have the same signature, and one size."""
    source, order, _ = reading
    head = source.read(at, HEADER)
    header = parse_header(head, order)
    if len(head) < HEADER or not is_ftrace(header.signature) or not header.fits(source.size - at):
        return []
    mark = head[:4]
    data = source.read(at + MIN_ZONE, MAX_TRACE)
    step = data.find(mark) + MIN_ZONE
    if step < MIN_ZONE or not parse_header(data[step - MIN_ZONE :][:HEADER], order).fits(step):
        size = max((s for s in _SIZES if s <= source.size - at), default=source.size - at)
        return [Zone("ftrace", 0, at, size)]
    zones = [Zone("ftrace", 0, at, step)]
    while source.read(zones[-1].at + step, 4) == mark and len(zones) < MAX_CPUS:
        zones.append(Zone("ftrace", len(zones), zones[-1].at + step, step))
    return zones


# -- ECC


def find_ecc(source: Source, zones: Iterable[Zone]) -> int:
    """How many bytes of parity each block has, by those of the headers; 0 if they have none."""
    votes: Counter[int] = Counter()
    zones = [zone for zone in zones if zone.size > HEADER + MAX_PARITY][:8]
    for ecc in range(4, MAX_PARITY + 1):  # less than that may be so by chance
        votes[ecc] = sum(_has_parity(source, zone, ecc) for zone in zones)
    best, count = votes.most_common(1)[0]
    return best if count else 0


def _has_parity(source: Source, zone: Zone, ecc: int) -> bool:
    """Whether the bytes at the zone's end are the parity of its header."""
    head, parity = source.read(zone.at, HEADER), source.read(zone.at + zone.size - ecc, ecc)
    if len(head) < HEADER or len(parity) < ecc or not any(parity) or reduce(xor, head + parity):
        return False  # the sum of all is the first thing that must be 0, and quickly looked at
    return not damaged_blocks(head, parity, ecc, block=HEADER)
