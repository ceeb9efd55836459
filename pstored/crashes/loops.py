# SPDX-License-Identifier: Apache-2.0
"""Crash loops: the same panic, soon after the start, boot after boot.  Pure.

A *row* is of boots that followed one another, each of which ended in a panic of one loose signature within SOON_S of
its start.  From LEAST boots on it is a loop.  The length of a row is kept with each crash, since the archive's limits
may take those before it.

Between two crashes lies the boot that collected the first; unless that is the one that crashed next, it lived, and so
did those that the ledger has behind it: the row ends.  A boot that crashed before pstored ran in it is in no ledger.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

SOON_S = 600.0
"""What a boot that is no use to anybody lives at the most; a watchdog's patience and a slow start are in it."""
LEAST = 3
"""Twice is bad luck."""


class Row(NamedTuple):
    """The boots in a row up to a crash's."""

    length: int
    """How many; 0: it did not end in a panic soon after its start."""
    since: str | None
    """When the first of them crashed: UTC, ISO 8601, by its own clock; None: not known."""
    collected_by: str | None
    """The boot that collected the crash; None: not known."""

    def document(self) -> dict[str, Any]:
        """As it stands in the summary of a crash, where :func:`read_row` finds it."""
        return {"count": self.length, "since": self.since, "collected_by": self.collected_by}


class End(NamedTuple):
    """How a boot ended."""

    boot: str | None
    signature: str | None
    """The loose one."""
    panicked: bool
    uptime_s: float | None
    wall: str | None
    collected_by: str | None


class Ended(NamedTuple):
    """A crash of the archive, as far as it matters here; in the order of collection."""

    stamp: str
    order: int
    id: str
    boot: str | None
    signature: str | None
    row: Row


class Rows:
    """The crashes of this machine, looked at no further back than is asked for."""

    def __init__(self, newest_first: Iterable[Mapping[str, Any]] = (), *, again: bool = False) -> None:
        """Take lines of ``pstored list``; if all is done *again*, only how much was counted then."""
        told = ((summary, row) for summary in newest_first if (row := read_row(summary)) is not None)
        self._had = {summary["id"]: row for summary, row in told} if again else {}  # before this run
        self._earlier = (_ended(*one) for one in told)  # than those in _all; none left, if all is done again
        self._all: list[Ended] = []  # in the order of collection

    def put(self, summary: Mapping[str, Any]) -> None:
        """Take one more, or a newer revision; one that may be another machine's has no row."""
        row = read_row(summary)
        place = self._place(summary["id"], summary["order"])
        if place < len(self._all) and self._all[place].id == summary["id"]:
            del self._all[place]
        if row is not None:
            insort(self._all, _ended(summary, row), key=_place_of)

    def row(self, crash_id: str, order: int, end: End, boots: Sequence[str]) -> Row:
        """The row that a crash ends: no shorter than it was when the crashes before it were still there."""
        row = follow(self.before(crash_id, order), end, boots)
        had = self._had.get(crash_id, row)
        return had if row.length and had.length > row.length else row

    def before(self, crash_id: str, order: int) -> Ended | None:
        """The crash that was collected before this one."""
        place = self._place(crash_id, order)
        return self._all[place - 1] if place else None

    def _place(self, crash_id: str, order: int) -> int:
        """Where a crash is or would be, with the one before it looked at, if there is one."""
        key = _key(crash_id, order)
        while not self._all or self._all[0][:3] >= key:
            earlier = next(self._earlier, None)
            if earlier is None:
                break
            self._had[earlier.id] = earlier.row
            insort(self._all, earlier, key=_place_of)
        return bisect_left(self._all, key, key=_place_of)


def _ended(summary: Mapping[str, Any], row: Row) -> Ended:
    return Ended(*_key(summary["id"], summary["order"]), summary["boot"], summary["signature_loose"], row)


def _place_of(ended: Ended) -> tuple[str, int, str]:
    return ended[:3]


def _key(crash_id: str, order: int) -> tuple[str, int, str]:
    return crash_id.split("-")[0], order, crash_id


def read_row(summary: Mapping[str, Any]) -> Row | None:
    """The row in a line of ``pstored list``; None in an older one's, and where it may be another machine's."""
    try:
        row = summary["row"]
        found = None if row is None else Row(row["count"], row["since"], row["collected_by"])
    except (KeyError, TypeError):
        return None
    return found if found is not None and all(map(isinstance, found, (int, str | None, str | None))) else None


def follow(before: Ended | None, end: End, boots: Sequence[str]) -> Row:
    """The row that a crash ends.

    Args:
        before: the crash before it, if there is one.
        end: of the boot that crashed.
        boots: the ledger's ids, oldest first.
    """
    if not end.panicked or end.signature is None or end.uptime_s is None or end.uptime_s > SOON_S:
        return Row(0, None, end.collected_by)
    first = Row(1, end.wall, end.collected_by)
    if before is None or before.row.length == 0 or before.signature != end.signature:
        return first
    if end.boot is not None and before.boot == end.boot:  # more of the same boot
        return before.row._replace(collected_by=end.collected_by)
    if _lived_between(before.row.collected_by, end, boots):
        return first
    return Row(before.row.length + 1, before.row.since, end.collected_by)


def _lived_between(collector: str | None, end: End, boots: Sequence[str]) -> bool:
    """Whether a boot that collected the crash before, or came after that, did not crash."""
    if collector not in boots:
        return False
    if end.boot in boots:
        return boots.index(collector) < boots.index(end.boot)
    if end.collected_by not in boots:
        return False
    between = boots.index(end.collected_by) - boots.index(collector)
    return between > (end.boot is None)  # one of them is the one that crashed, if that is not named


def is_loop(row: Row) -> bool:
    """Whether it is long enough to be called one."""
    return row.length >= LEAST


def words(count: int, since: str | None) -> str:
    """A loop in words."""
    when = "" if since is None else f" since {since[:16].replace('T', ' ')}"
    return f"crash loop: {count} boots in a row{when}"
