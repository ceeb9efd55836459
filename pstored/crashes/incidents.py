# SPDX-License-Identifier: Apache-2.0
"""Records into what happened to each boot: dumps, console, pmsg, ftrace and mce of one boot come together.

No record says which boot it is of.  What proves it, strongest first: a stamp line; the running number of ERST; equal
lines at equal times.  What proves that two are of *different* boots counts as much.  Without proof, two dumps whose
counts, clock and uptime go together are taken as one boot's, and a zone that nothing ties to a dump is put with the
newest one, since console and pmsg hold the last boot before the collection: both are guesses, and said to be.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pstored.crashes.dumps import Dump, assemble
from pstored.logs import EARLIEST_S, Log, build_time_s, ends_orderly
from pstored.parse.end import BootEnd
from pstored.parse.filename import BERT, BESIDE
from pstored.parse.record import Record

CLOCK_SLACK_NS = 5_000_000_000
"""How far the wall clock and the uptime between two dumps may differ: EFI and ERST have whole seconds."""
NEAR_NS = 60_000_000_000
"""Without timestamps in the text, dumps with rising counts this near in time are one boot's."""


OF_FIRMWARE = "firmware tells of the boot before the one that reads it"
NEIGHBOURS = 64
"""So many of the newest boots are asked whether a record is theirs: a store with more is hostile, or a test."""


@dataclass(slots=True)
class Incident:
    """What the store holds of one boot."""

    dumps: list[Dump] = field(default_factory=list)
    zones: list[Record] = field(default_factory=list)
    """console, pmsg, ftrace, mce, and what is not understood, that is proven to be of this boot, or alone."""
    loose: list[Record] = field(default_factory=list)
    """The same, not proven: put with the newest boot in the store."""
    evidence: list[str] = field(default_factory=list)
    """Why these belong together: proofs."""
    guesses: list[str] = field(default_factory=list)
    """Why these are taken to belong together: no proofs."""
    _zone_logs: dict[int, Log] = field(default_factory=dict, repr=False, compare=False)  # a console is parsed once

    def records(self) -> list[Record]:
        """All of them."""
        return [r for dump in self.dumps for r in dump.records] + self.zones + self.loose

    def texts(self, kind: str) -> list[bytes]:
        """The texts of the zones of one type."""
        return [r.text for r in self.zones + self.loose if r.type == kind and r.text]

    def is_of_firmware(self) -> bool:
        """Whether there is nothing but ACPI's boot error record, which has no line that could prove its boot."""
        return all(record.backend == BERT for record in self.records())

    def end(self) -> BootEnd | None:
        """How the boot ended, if it left no record that tells."""
        return next((r.end for r in self.zones if r.end is not None), None)

    def logs(self) -> list[tuple[str, Log]]:
        """All texts that may hold lines of ours or the kernel's, with their names: dumps, oldest first, then zones.

        Only what is proven to be of this boot.
        """
        return [(d.title, d.log) for d in self.dumps] + self._logs_of(self.zones)

    def loose_logs(self) -> list[tuple[str, Log]]:
        """The same of the zones that nothing ties to the dumps."""
        return self._logs_of(self.loose)

    def _logs_of(self, zones: list[Record]) -> list[tuple[str, Log]]:
        return [(z.name, self._zone_logs.setdefault(id(z), Log(z.text))) for z in zones if _is_log(z) and z.text]

    def add(self, dump: Dump) -> None:
        """Take a dump in; of one that is there already (shown packed, then unpacked) the better copy counts."""
        at = next((n for n, known in enumerate(self.dumps) if _is_twin(known, dump)), None)
        if at is None:
            self.dumps.append(dump)
            return
        if dump.is_complete and not self.dumps[at].is_complete:
            self.dumps[at], dump = dump, self.dumps[at]
        self.zones += dump.records


def _is_log(zone: Record) -> bool:
    return zone.type in ("console", "pmsg")


@dataclass(slots=True)
class _Item:
    """A dump or a zone, as far as telling boots apart goes."""

    what: str
    stamps: frozenset[str]
    boot_key: int | None
    log: Log | None
    dump: Dump | None
    zone: Record | None


@dataclass(slots=True)
class _Cluster:
    incident: Incident = field(default_factory=Incident)
    members: list[_Item] = field(default_factory=list)

    def join(self, item: _Item, *, proof: str = "", guess: str = "") -> None:
        self.members.append(item)
        if item.dump is not None:
            self.incident.add(item.dump)
        if item.zone is not None:
            is_loose = bool(guess) and bool(self.incident.dumps)
            (self.incident.loose if is_loose else self.incident.zones).append(item.zone)
        self.incident.evidence += [proof] if proof else []
        self.incident.guesses += [guess] if guess else []

    def newest_dump_ns(self) -> int:
        return max((d.time_ns or 0 for d in self.incident.dumps), default=0)


def group(records: Iterable[Record], *, stamp_prefix: str, started_ns: int | None = None) -> list[Incident]:
    """Put records together by boot, oldest boot first; every record is in exactly one incident.

    Args:
        records: all of one harvest.
        stamp_prefix: what stands before the boot id in a stamp.
        started_ns: when the collecting boot began, nanoseconds since 1970 by its clock.  What was dumped later is of
            that boot itself, and no zone is put with it for want of a better place.
    """
    clusters: list[_Cluster] = []
    for item in _items(records, stamp_prefix):
        _place(item, clusters, started_ns)
    return [cluster.incident for cluster in clusters]


def are_one_boot(some: list[Record], others: list[Record], *, stamp_prefix: str) -> bool:
    """Whether it is proven that two lots of records are of one boot; parts of one dump are."""
    ours = {id(r) for r in some}
    for dump in assemble(r for r in some + others if r.type == "dmesg"):
        if len({id(r) in ours for r in dump.records}) == 2:
            return True
    verdicts = {_compare(a, b)[0] for a in _items(some, stamp_prefix) for b in _items(others, stamp_prefix)}
    return True in verdicts and False not in verdicts


def _by_uptime(dumps: list[Dump]) -> list[Dump]:
    """Dumps of one boot in the order of its own clock: the wall clock may have been set since the log was read."""
    if not any(d.is_live for d in dumps) or any(d.log.span is None for d in dumps):
        return dumps

    def order(dump: Dump) -> tuple[bool, int, bool]:
        end = 0 if dump.log.span is None else dump.log.span[1]
        return dump.reason not in (None, "Oops"), end, not dump.is_live  # what a boot survives comes first

    return sorted(dumps, key=order)


def group_as_one(records: list[Record]) -> Incident:
    """Records that are known to be of one boot."""
    incident = Incident()
    for dump in _by_uptime(assemble(r for r in records if r.type == "dmesg")):
        incident.add(dump)
    zones = [r for r in records if r.type != "dmesg"]
    firmware = [r for r in zones if r.backend == BERT and len(records) > 1]
    incident.zones += [r for r in zones if r not in firmware]
    incident.loose += firmware
    incident.guesses += [f"{r.name}: {OF_FIRMWARE}" for r in firmware]
    return incident


def _items(records: Iterable[Record], stamp_prefix: str) -> list[_Item]:
    """Dumps, oldest first; then zones, console first: what follows may be tied to it."""
    records = list(records)
    zones = sorted((r for r in records if r.type != "dmesg"), key=lambda r: (r.type != "console", r.type, r.name))
    dumps = assemble(r for r in records if r.type == "dmesg")
    return [_dump_item(d, stamp_prefix) for d in dumps] + [_zone_item(z, stamp_prefix) for z in zones]


def _dump_item(dump: Dump, prefix: str) -> _Item:
    return _Item(dump.title, frozenset(dump.log.stamps(prefix)), dump.records[0].boot_key, dump.log, dump, None)


def _zone_item(zone: Record, prefix: str) -> _Item:
    log = Log(zone.text) if zone.text and _is_log(zone) else None
    stamps = frozenset(log.stamps(prefix)) if log is not None else frozenset()
    return _Item(zone.name, stamps, zone.boot_key, log if zone.type == "console" else None, None, zone)


def _place(item: _Item, clusters: list[_Cluster], started_ns: int | None) -> None:
    """Put an item where it belongs: proven before likely, likely before new."""
    likely: tuple[_Cluster, str] | None = None
    for cluster in reversed(_candidates(item, clusters)):
        same, why = _same_boot(item, cluster.members)
        if same:
            cluster.join(item, proof=why)
            return
        if same is False or likely is not None:
            continue
        if why:
            likely = cluster, why
        elif item.zone is not None and _may_be_newest(item.zone, cluster, started_ns):
            likely = cluster, f"{item.what}: nothing in it ties it to the rest; {_why_newest(item.zone)}"
    if likely is not None:
        likely[0].join(item, guess=likely[1])
        return
    clusters.append(_Cluster())
    clusters[-1].join(item)


def _may_be_newest(zone: Record, cluster: _Cluster, started_ns: int | None) -> bool:
    """Whether a zone that nothing ties to a boot may be put with this one for want of a better place."""
    if zone.backend in BESIDE:
        return False
    return not started_ns or cluster.newest_dump_ns() <= started_ns + CLOCK_SLACK_NS


def _candidates(item: _Item, clusters: list[_Cluster]) -> list[_Cluster]:
    """The newest clusters, and any older one that bears the item's stamp or key."""
    recent = clusters[-NEIGHBOURS:]
    if not item.stamps and item.boot_key is None:
        return recent
    marked = [
        c
        for c in clusters[:-NEIGHBOURS]
        if any(m.stamps & item.stamps or (m.boot_key is not None and m.boot_key == item.boot_key) for m in c.members)
    ]
    return marked + recent


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
    if a.zone is not None and b.zone is not None and _senders_differ(a.zone, b.zone):
        return False, f"{a.what} and {b.what} came from {a.zone.sender} and {b.zone.sender}"
    if a.zone is not None and b.zone is not None and _hold_one_boot(a.zone, b.zone):
        return True, f"{a.what} and {b.what} both hold the last boot before the collection"
    if a.dump is not None and b.dump is not None and _counts_clash(a.dump, b.dump):
        return False, f"{a.what} and {b.what} have the same count, which one boot gives only once"
    if a.log is not None and b.log is not None:
        overlap = a.log.same_boot(b.log)
        if overlap is not None:
            return overlap, f"{a.what} and {b.what} {'have' if overlap else 'do not have'} equal lines at equal times"
    for zone, dump in ((a, b), (b, a)):
        if _ended_before(zone, dump):
            return False, f"{zone.what} ends before {dump.what} was made, which it would show"
    if a.dump is not None and b.dump is not None:
        if _is_twin(a.dump, b.dump):
            return True, f"{a.what} is there twice"
        return _compare_dumps(b.dump, a.dump)
    return None, ""


def _senders_differ(a: Record, b: Record) -> bool:
    """Two machines, whatever they say."""
    return a.sender is not None and b.sender is not None and a.sender != b.sender


def _ended_before(console: _Item, other: _Item) -> bool:
    """Whether a console ends earlier in its boot than a dump was made, or with an orderly shutdown before a panic.

    What an oops or a panic prints always reaches the console, whatever its level; but whoever reads a serial line may
    have stopped before.
    """
    if console.zone is None or console.log is None or other.dump is None or console.zone.backend in BESIDE:
        return False
    if other.dump.reason == "Panic" and ends_orderly(console.log):
        return True
    if console.log.span is None or other.dump.log.span is None:
        return False
    return console.log.span[1] + CLOCK_SLACK_NS < other.dump.log.span[1]


def _why_newest(zone: Record) -> str:
    """Why a zone that names no boot is put with the newest: only console and pmsg are emptied at every boot."""
    if _is_log(zone):
        return "its zone holds the last boot before the collection"
    if zone.backend == BERT:
        return OF_FIRMWARE
    if zone.type == "ftrace":
        return "its zone goes on over boots, and may hold several"
    return "put with the newest for want of a better place"


def _hold_one_boot(a: Record, b: Record) -> bool:
    """console and pmsg zones are emptied at every boot: fs/pstore/ram.c, ramoops_init_prz(); zone.c likewise."""
    return a.harvest_id == b.harvest_id and a.backend == b.backend and {a.type, b.type} == {"console", "pmsg"}


def _is_twin(a: Dump, b: Dump) -> bool:
    """The same dump twice: packed in one mount, unpacked in another; of the same moment; or one of them damaged."""
    if (a.reason, a.count) != (b.reason, b.count):
        return False
    if a.text == b.text:
        return a.time_ns == b.time_ns or any(r.name.endswith(".enc.z") for r in a.records + b.records)
    if a.backend != b.backend or a.time_ns is None or b.time_ns is None or a.count is None:
        return False
    # a copy may have whole seconds only
    return a.time_ns // 1_000_000_000 == b.time_ns // 1_000_000_000 and a.log.same_boot(b.log) is True


def _counts_clash(a: Dump, b: Dump) -> bool:
    """One boot gives each count once."""
    return a.count is not None and a.backend == b.backend and a.count == b.count and not _is_twin(a, b)


def _compare_dumps(older: Dump, newer: Dump) -> tuple[bool | None, str]:
    """Two dumps whose texts do not overlap: do count, clock and uptime go together?"""
    if older.backend != newer.backend or older.time_ns is None or newer.time_ns is None:
        return None, ""
    if older.count is None or newer.count is None or older.count >= newer.count:
        return None, ""  # the clock was set in between, or another boot
    what = f"{older.title} and {newer.title}"
    wall = newer.time_ns - older.time_ns
    if older.log.span is not None and newer.log.span is not None:
        began_s = (older.time_ns - older.log.span[1]) // 1_000_000_000
        if began_s < (build_time_s(older.log.kernel.banner or "") or EARLIEST_S):
            return None, ""  # without a clock every boot begins at the same time: that it fits says nothing
        uptime = newer.log.span[1] - older.log.span[1]
        if uptime >= 0 and abs(wall - uptime) <= CLOCK_SLACK_NS:
            return None, f"count, clock and uptime of {what} go together"
        return None, ""
    if 0 <= wall <= NEAR_NS:
        return None, f"{what} are {wall / 1e9:.0f} s apart, with rising counts"
    return None, ""
