# SPDX-License-Identifier: Apache-2.0
"""Records into what happened to each boot: dumps, console, pmsg, ftrace and mce of one boot come together.

No record says which boot it is of.  What proves it, strongest first: a stamp line; the running number of ERST; equal
lines at equal times; then count, clock and uptime going together.  What proves that two are of *different* boots
counts as much.  A zone that can be tied to nothing is the previous boot's, i.e. the newest in the store.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pstored.dumps import Dump, assemble
from pstored.logs import Log
from pstored.parse.record import Record

CLOCK_SLACK_NS = 5_000_000_000
"""How far the wall clock and the uptime between two dumps may differ: EFI and ERST have whole seconds."""
NEAR_NS = 60_000_000_000
"""Without timestamps in the text, dumps with rising counts this near in time are one boot's."""


@dataclass(slots=True)
class Incident:
    """What the store holds of one boot."""

    dumps: list[Dump] = field(default_factory=list)
    zones: list[Record] = field(default_factory=list)
    """console, pmsg, ftrace, mce, and what is not understood."""
    evidence: list[str] = field(default_factory=list)
    """Why these belong together."""

    def records(self) -> list[Record]:
        """All of them."""
        return [r for dump in self.dumps for r in dump.records] + self.zones

    def texts(self, kind: str) -> list[bytes]:
        """The texts of the zones of one type."""
        return [r.text for r in self.zones if r.type == kind and r.text]

    def logs(self) -> list[tuple[str, Log]]:
        """All texts that may hold lines of ours or the kernel's, with their names: dumps, oldest first, then zones."""
        zones = [(z.name, Log(z.text)) for z in self.zones if z.type in ("console", "pmsg") and z.text]
        return [(d.title, d.log) for d in self.dumps] + zones

    def add(self, dump: Dump) -> None:
        """Take a dump in; one that is there already (shown packed, then unpacked) only adds its records."""
        for known in self.dumps:
            if (known.reason, known.count, known.text) == (dump.reason, dump.count, dump.text):
                self.zones += dump.records
                return
        self.dumps.append(dump)


@dataclass(slots=True)
class _Item:
    """A dump or a zone, as far as telling boots apart goes."""

    what: str
    stamps: frozenset[str]
    boot_key: int | None
    log: Log | None
    dump: Dump | None
    zone: Record | None


def group(records: Iterable[Record], *, stamp_prefix: str) -> list[Incident]:
    """Put records together by boot, oldest boot first; every record is in exactly one incident."""
    records = list(records)
    dumps = assemble(r for r in records if r.type == "dmesg")
    items = [_dump_item(dump, stamp_prefix) for dump in dumps]
    # console first: what follows may be tied to it
    zones = sorted((r for r in records if r.type != "dmesg"), key=lambda r: (r.type != "console", r.type, r.name))
    items += [_zone_item(zone, stamp_prefix) for zone in zones]
    clusters: list[tuple[Incident, list[_Item]]] = []
    for item in items:
        _place(item, clusters)
    return [incident for incident, _ in clusters]


def _dump_item(dump: Dump, prefix: str) -> _Item:
    stamps = frozenset(boot_id for boot_id, _ in dump.log.stamps(prefix))
    return _Item(dump.title, stamps, dump.records[0].boot_key, dump.log, dump, None)


def _zone_item(zone: Record, prefix: str) -> _Item:
    log = Log(zone.text) if zone.text and zone.type in ("console", "pmsg") else None
    stamps = frozenset(boot_id for boot_id, _ in log.stamps(prefix)) if log is not None else frozenset()
    return _Item(zone.name, stamps, zone.boot_key, log if zone.type == "console" else None, None, zone)


def _place(item: _Item, clusters: list[tuple[Incident, list[_Item]]]) -> None:
    """Put an item where it belongs: proven before likely, likely before new."""
    likely: tuple[int, str] | None = None
    for at, (_, members) in enumerate(clusters):
        same, why = _same_boot(item, members)
        if same:
            _join(item, clusters[at], why)
            return
        if same is None and why:
            likely = at, why
        elif same is None and item.zone is not None and (likely is None or at > likely[0]):
            likely = at, f"{item.what}: nothing in it names its boot; a zone holds the last boot before the collection"
    if likely is not None:
        _join(item, clusters[likely[0]], likely[1])
        return
    incident = Incident()
    clusters.append((incident, []))
    _join(item, clusters[-1], "")


def _join(item: _Item, cluster: tuple[Incident, list[_Item]], why: str) -> None:
    incident, members = cluster
    members.append(item)
    if item.dump is not None:
        incident.add(item.dump)
    if item.zone is not None:
        incident.zones.append(item.zone)
    if why:
        incident.evidence.append(why)


def _same_boot(item: _Item, members: list[_Item]) -> tuple[bool | None, str]:
    """True or False is proof; None with a reason is likely, None without says nothing."""
    likely = ""
    proof = ""
    for member in members:
        same, why = _compare(item, member)
        if same is False:
            return False, why
        if same:
            proof = proof or why
        likely = likely or why
    return (True, proof) if proof else (None, likely)


def _compare(a: _Item, b: _Item) -> tuple[bool | None, str]:
    if a.stamps and b.stamps:
        same = not a.stamps.isdisjoint(b.stamps)
        return same, f"{a.what} and {b.what} bear {'the same stamp' if same else 'different stamps'}"
    if a.boot_key is not None and b.boot_key is not None:
        same = a.boot_key == b.boot_key
        return same, f"{a.what} and {b.what} have ERST ids of {'one boot' if same else 'different boots'}"
    if a.dump is not None and b.dump is not None and _counts_clash(a.dump, b.dump):
        return False, f"{a.what} and {b.what} have the same count, which one boot gives only once"
    if a.log is not None and b.log is not None:
        overlap = a.log.same_boot(b.log)
        if overlap is not None:
            return overlap, f"{a.what} and {b.what} {'have' if overlap else 'do not have'} equal lines at equal times"
    if a.dump is not None and b.dump is not None:
        return _compare_dumps(b.dump, a.dump)
    return None, ""


def _counts_clash(a: Dump, b: Dump) -> bool:
    """One boot gives each count once; the same dump seen twice (packed and unpacked) is no clash."""
    return a.count is not None and a.backend == b.backend and a.count == b.count and a.text != b.text


def _compare_dumps(older: Dump, newer: Dump) -> tuple[bool | None, str]:
    """Two dumps whose texts do not overlap: do count, clock and uptime go together?"""
    if older.backend != newer.backend or older.time_ns is None or newer.time_ns is None:
        return None, ""
    what = f"{older.title} and {newer.title}"
    if older.count is not None and newer.count is not None and older.count > newer.count:
        return None, ""  # the clock was set in between, or another boot
    wall = newer.time_ns - older.time_ns
    if older.log.span is not None and newer.log.span is not None:
        uptime = newer.log.span[1] - older.log.span[1]
        if uptime >= 0 and abs(wall - uptime) <= CLOCK_SLACK_NS:
            return None, f"count, clock and uptime of {what} go together"
        return None, ""
    if 0 <= wall <= NEAR_NS and older.count is not None and newer.count is not None:
        return None, f"{what} are {wall / 1e9:.0f} s apart, with rising counts"
    return None, ""
