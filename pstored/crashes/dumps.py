# SPDX-License-Identifier: Apache-2.0
"""Parts into dumps: the parts with one reason and count of one boot, in order, gaps named.

The kernel writes part 1 first (the newest text), then the older ones, and gives each part its own time, so parts of
one dump may carry different seconds; count restarts in every boot, so two boots both have a ``Panic#1``
(fs/pstore/platform.c, pstore_dump(); kernel-formats 2.4).
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from pstored.logs import Log, edge_times
from pstored.parse.filename import BESIDE, HEADERLESS, KMSG
from pstored.parse.header import SHUTDOWN_REASONS
from pstored.parse.kmsg import gap_line
from pstored.parse.record import Record

PART_GAP_NS = 10_000_000_000
"""Writing one part takes a firmware no longer than this: a part that comes later is of another boot."""


@dataclass(frozen=True, kw_only=True)
class Dump:
    """One dump."""

    reason: str | None
    """None for records without a header."""
    count: int | None
    backend: str | None
    records: tuple[Record, ...]
    """One for each part, oldest text (highest part) first."""

    @property
    def parts(self) -> tuple[int, ...]:
        """The part numbers there are, ascending."""
        return tuple(sorted(r.header.part for r in self.records if r.header is not None))

    @property
    def missing(self) -> tuple[int, ...]:
        """Part numbers that must have been there: the gaps below the highest.

        Parts above the highest (older text) leave no trace, and a full store cuts there.
        """
        there = set(self.parts)
        highest = max((p for p in there if p <= MAX_PART), default=0)
        return tuple(p for p in range(1, highest) if p not in there)

    @property
    def damage(self) -> tuple[str, ...]:
        """What is broken, with the record's name."""
        found = [f"{r.name}: {d}" for r in self.records for d in r.damage]
        found += [f"part {p}: no dump has so many parts" for p in self.parts if p > MAX_PART]
        return tuple(found)

    @property
    def is_complete(self) -> bool:
        """Nothing missing, nothing broken, as far as can be known."""
        return not self.missing and not self.damage and (self.reason is not None or self.backend in HEADERLESS)

    @property
    def is_live(self) -> bool:
        """No dump of the kernel's, but its log as it was read while it ran: without a header."""
        return self.backend == KMSG

    @property
    def is_shutdown(self) -> bool:
        """An orderly end, no crash."""
        return self.reason in SHUTDOWN_REASONS

    @cached_property
    def text(self) -> bytes:
        """The parts' texts, oldest first; where a part is missing, a line of ours says so."""
        pieces: list[bytes] = []
        before: int | None = None
        for record in self.records:
            part = None if record.header is None else record.header.part
            if before is not None and part is not None and part < before - 1:
                pieces.append(gap_line(f"{self.title}: part {_span(part + 1, before - 1)} is missing"))
            before = part
            if record.text is not None:
                pieces.append(record.text)
                if record.text and not record.text.endswith(b"\n"):
                    pieces.append(b"\n")
        if before is not None and 1 < before <= MAX_PART:
            pieces.append(gap_line(f"{self.title}: part {_span(1, before - 1)} is missing: the newest text"))
        return b"".join(pieces)

    @cached_property
    def log(self) -> Log:
        """The text as lines."""
        return Log(self.text)

    @property
    def title(self) -> str:
        """``Panic#2``."""
        if self.reason is None:
            return BESIDE.get(self.backend or "", "a dump without header")
        return f"{self.reason}#{self.count}"

    @property
    def time_ns(self) -> int | None:
        """When part 1, or what there is of the newest, was written: nanoseconds since 1970, crashed boot's clock."""
        return self.records[-1].time_ns if self.records else None


MAX_PART = 1000
"""A part number beyond this is damage, not a dump of so many parts: a full EFI store has some sixty."""
OUT_OF_ORDER_NS = 1_000_000_000
"""Lines of several CPUs are not sorted by time."""
RUNS_ASKED = 32
"""So many of the newest dumps are asked whether a part continues them."""


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def assemble(records: Iterable[Record]) -> list[Dump]:
    """Put dmesg records together; every record is in exactly one dump, oldest dump first."""
    bare: list[Dump] = []
    groups: dict[tuple[str | None, str, int, int | None], list[Record]] = defaultdict(list)
    for record in records:
        if record.header is None:
            bare.append(Dump(reason=None, count=None, backend=record.backend, records=(record,)))
        else:
            key = (record.backend, record.header.reason, record.header.count, record.boot_key)
            groups[key].append(record)
    dumps = [
        Dump(reason=reason, count=count, backend=backend, records=tuple(sorted(run, key=_part, reverse=True)))
        for (backend, reason, count, _), group in groups.items()
        for run in _runs(group)
    ]
    return sorted(dumps + bare, key=_dump_order)


def _part(record: Record) -> int:
    return 0 if record.header is None else record.header.part


def _written(record: Record) -> tuple[int, int, int, str]:
    """Sort key: the order in which the crashing kernels wrote."""
    running_number = record.id if record.boot_key is not None and record.id is not None else 0
    return (running_number, record.time_ns or 0, _part(record), record.name)


def _runs(group: list[Record]) -> list[list[Record]]:
    """Split records of equal reason and count where a new boot begins: parts must go up, without a long pause."""
    runs: list[list[Record]] = []
    for record in sorted(group, key=_written):
        fitting = [run for run in runs[-RUNS_ASKED:] if _continues(run[-1], record)]
        if fitting:
            # of two boots that crashed in the same seconds: the one whose text goes on where this ends
            min(fitting, key=lambda run: _pause_in_text(record, run[-1])).append(record)
        else:
            runs.append([record])
    return runs


def _continues(before: Record, after: Record) -> bool:
    step = _part(after) - _part(before)
    if step < 1:
        return False
    pause = (after.time_ns or 0) - (before.time_ns or 0)
    return pause <= PART_GAP_NS * min(step, 100) and _pause_in_text(after, before) < NEVER


NEVER = 1 << 62
"""Longer than any pause: time would run backwards."""


def _pause_in_text(older: Record, newer: Record) -> int:
    """Nanoseconds between the last line of one part and the first of the next newer one; 0 where lines have no time."""
    ends = edge_times(older.text or b"")[1], edge_times(newer.text or b"")[0]
    if ends[0] is None or ends[1] is None:
        return 0
    pause = ends[1] - ends[0]
    # CPUs print a little out of order
    return abs(pause) if pause > -OUT_OF_ORDER_NS else NEVER


def _dump_order(dump: Dump) -> tuple[int, int, int, str]:
    newest = dump.records[-1]
    number = newest.id if newest.boot_key is not None and newest.id is not None else 0
    return (dump.time_ns or 0, number, dump.count or 0, newest.name)
