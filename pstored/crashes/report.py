# SPDX-License-Identifier: Apache-2.0
"""``crash.json``, schema 1: what others read.  Built from an incident, an event and an attribution.

Nothing in it depends on when it was made: the analysis of the same archive gives the same report.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pstored.boots.attribution import Attribution, Confidence, Method
from pstored.crashes.crash import other_reports
from pstored.crashes.dumps import Dump
from pstored.crashes.eventreport import EventReport, build_event, one_line
from pstored.crashes.incidents import Incident
from pstored.crashes.loops import LEAST, SOON_S, End, Row, is_loop
from pstored.logs import EARLIEST_S, build_time_s
from pstored.oops import Event, Severity
from pstored.parse.end import BootEnd
from pstored.parse.filename import KMSG
from pstored.parse.record import Record


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BootReport(_Model):
    """Which boot crashed."""

    id: str | None = Field(description="boot id, as in /proc/sys/kernel/random/boot_id; null if it cannot be named")
    method: Method
    confidence: Confidence
    evidence: list[str] = Field(description="how the id was found out, or why not; one sentence each")


class CollectedReport(_Model):
    """The collection."""

    boot_id: str | None = Field(description="the boot that collected")
    imported_from: str | None = Field(description="the file or directory they were imported from; null: from the store")
    time: str | None = Field(description="UTC, ISO 8601, by the collecting boot's clock")
    harvest_id: str = Field(description="the harvest that brought the first of this crash")
    harvests: list[str] = Field(description="all harvests with records of this crash")


class SenderReport(_Model):
    """Who sent a crash over the net."""

    address: str = Field(description="as the datagrams had it, which anybody can forge; empty: not known")
    host: str | None = Field(description="the host name, as the machine's own words have it; null: they do not")

    def __str__(self) -> str:
        """Both in one word or two."""
        words = [word for word in (self.address, self.host) if word]
        return words[0] if len(words) == 1 else f"{words[0]} ({words[1]})"


class TimeReport(_Model):
    """When it crashed."""

    wall: str | None = Field(description="UTC, ISO 8601, by the crashed boot's clock")
    uptime_s: float | None = Field(description="seconds since that boot began, at the last line")
    doubtful: bool
    why: str | None = Field(description="why the wall time is doubtful or absent")


class KernelReport(_Model):
    """The kernel that crashed; null is what its log does not say."""

    release: str | None
    banner: str | None
    cmdline: str | None
    hardware: str | None


class DumpReport(_Model):
    """One dump of the kernel log."""

    backend: str | None = Field(description="where it was kept; kmsg: it is the log as it was read while that boot ran")
    reason: str | None = Field(description="Panic, Oops, Emergency, ...; null if the record has no header")
    count: int | None = Field(description="dumps since that boot began, this one included")
    title: str | None = Field(description="what its text tells of, in one line")
    parts: list[int] = Field(description="parts there are; part 1 is the newest text")
    missing: list[int] = Field(description="parts that must have been there")
    complete: bool
    lines: int
    damage: list[str]


class EccReport(_Model):
    """What ECC found in the record's zone."""

    corrected_bytes: int
    unrecoverable_blocks: int


class LoopReport(_Model):
    """A crash loop."""

    count: int = Field(description="boots in a row, this one the last")
    since: str | None = Field(description="when the first of them crashed, by its clock; null: not known")


class RecordReport(_Model):
    """One record, as the kernel showed it."""

    name: str
    type: str
    size: int
    sha256: str
    harvest_id: str
    compression: str | None = Field(description="the algorithm, if the record had to be unpacked")
    ecc: EccReport | None
    erased: bool | None = Field(
        description="whether it was erased from the store; null if that is not known, or it never was there"
    )
    outcome: str | None = Field(
        description="erased, live, kept, deferred, changed, failed, unreadable, vanished; or imported"
    )
    why: str | None = Field(description="why, or why not")


class FileReport(_Model):
    """A file beside crash.json."""

    size: int
    sha256: str


MOST_REPORTS = 32
"""Further reports in a crash.json: a kernel that warns all the time says no more with the rest."""


class Report(_Model):
    """A crash: what happened to one boot."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    id: str
    revision: int = Field(description="from 1; goes up when a later harvest tells of more of the same boot")
    title: str
    kind: str
    severity: Severity
    function: str | None
    comm: str | None
    pid: int | None
    event: EventReport | None = Field(
        default=None, description="the kernel's report that names the crash; null if other records tell of it"
    )
    other_events: list[EventReport] = Field(
        default=[], description=f"what else the kernel reported in that log, the last {MOST_REPORTS}, warnings included"
    )
    boot: BootReport
    collected: CollectedReport
    sender: SenderReport | None = Field(
        default=None, description="which machine it was, where the records came over the net; null: they did not"
    )
    time: TimeReport
    kernel: KernelReport
    loop: LoopReport | None = Field(
        default=None,
        description=f"from the {LEAST}rd boot in a row on that ended in a panic of the same loose signature within "
        f"{SOON_S / 60:.0f} minutes of its start; null: it is no crash loop, or that is not known",
    )
    machine_id: str | None
    backend: str | None
    dumps: list[DumpReport]
    records: list[RecordReport]
    files: dict[str, FileReport]
    complete: bool = Field(description="no part missing, nothing damaged")
    notes: list[str] = Field(description="what else is to be known; and why a field above is null")
    summary: dict[str, Any] = Field(description="the line of `pstored list`")
    digest: str | None = Field(
        default=None, description="SHA-256 of all other keys, as compact JSON with sorted keys: `pstored verify`"
    )


# -- the report


def build(
    *,
    crash_id: str,
    revision: int,
    order: int,
    incident: Incident,
    event: Event,
    boot: Attribution,
    harvests: list[dict[str, Any]],
    erased: dict[tuple[str, str], dict[str, Any]],
    files: dict[str, FileReport],
    row: Callable[[End], Row | None] = lambda end: None,  # noqa: ARG005
) -> Report:
    """Put a report together.

    Args:
        crash_id: its id, kept from the first revision on.
        revision: from 1.
        order: its place among the crashes of the same harvest.
        incident: the records.
        event: what happened.
        boot: to which boot.
        harvests: harvest.json of all harvests involved, oldest first.
        erased: (harvest id, record name) to what erased.json says.
        files: the texts beside the report.
        row: gives the boots in a row that ended like this one; None if they may be another machine's.
    """
    notes: list[str] = []
    end = None if incident.dumps else incident.end()
    kernel = _kernel(incident, notes) if end is None else _kernel_of_end(end)
    time = _time(incident, kernel.banner, harvests[0], notes)
    records = sorted(incident.records(), key=lambda r: (r.type != "dmesg", r.type, r.name))
    told = {id(r) for dump in incident.dumps for r in dump.records}
    for record in records:
        notes += [f"{record.name}: {text}" for text in record.notes]
        if id(record) not in told:
            notes += [f"{record.name}: {text}" for text in record.damage]
    notes += [f"a guess: {guess}" for guess in incident.guesses]
    backends = sorted({r.backend for r in records if r.backend is not None}, key=lambda b: (b == KMSG, b))
    if len([b for b in backends if b != KMSG]) > 1:
        notes.append(f"records from several backends: {', '.join(backends)}")
    dumps = [_dump(d) for d in incident.dumps]
    complete = all(d.complete for d in dumps) and not any(r.damage for r in records if r.type != "dmesg")
    title = one_line(event.title)
    sources = {h["id"]: _imported_from(h) for h in harvests}
    source = sources[harvests[0]["id"]]
    if harvests[0].get("machine_id") is None:
        why = "there is no /etc/machine-id" if source is None else f"{source} does not say"
        notes.append(f"machine_id: {why}")
    if source is not None:
        notes.append(f"collected.boot_id: imported from {source}, which does not say which boot left it there")
    elif harvests[0].get("boot_id") is None:
        notes.append("collected.boot_id: the collecting system did not say (/proc/sys/kernel/random/boot_id)")
    if event.function is None and end is None:
        notes.append("function: the text names none, or none that matters for this kind")
    if event.comm is None and end is None:
        notes.append("comm, pid: the text names no task")
    if not backends:
        notes.append("backend: no record has a name that tells it")
    sender = _sender(incident, harvests)
    others = other_reports(incident, event)
    if len(others) > MOST_REPORTS:
        notes.append(f"other_events: {len(others) - MOST_REPORTS} earlier ones are left out")
    ended = row(
        End(
            boot=boot.boot_id,
            signature=event.loose or None,
            panicked=event.severity is Severity.PANIC,
            uptime_s=time.uptime_s,
            wall=time.wall,
            collected_by=harvests[0].get("boot_id"),
        )
    )
    summary = {
        "time": time.wall,
        "doubtful": time.doubtful,
        "boot": boot.boot_id,
        "method": boot.method,
        "confidence": boot.confidence,
        "kernel": kernel.release,
        "title": title,
        "kind": event.kind,
        "severity": event.severity,
        "function": event.function,
        "signature": event.strict or None,
        "signature_loose": event.loose or None,
        "backend": backends[0] if backends else None,
        "sender": None if sender is None else str(sender),
        "complete": complete,
        "order": order,
        "revision": revision,
        "harvests": [h["id"] for h in harvests],
        "row": None if ended is None else ended.document(),
    }
    return Report(
        schema=1,
        id=crash_id,
        revision=revision,
        title=title,
        kind=event.kind,
        severity=event.severity,
        function=event.function,
        comm=event.comm,
        pid=event.pid,
        event=build_event(event) if event.strict else None,
        other_events=[build_event(e) for e in others[-MOST_REPORTS:]],
        boot=BootReport(id=boot.boot_id, method=boot.method, confidence=boot.confidence, evidence=list(boot.evidence)),
        collected=CollectedReport(
            boot_id=harvests[0].get("boot_id"),
            imported_from=source,
            time=harvests[0].get("time"),
            harvest_id=harvests[0]["id"],
            harvests=[h["id"] for h in harvests],
        ),
        sender=sender,
        time=time,
        kernel=kernel,
        loop=LoopReport(count=ended.length, since=ended.since) if ended is not None and is_loop(ended) else None,
        machine_id=harvests[0].get("machine_id"),
        backend=backends[0] if backends else None,
        dumps=dumps,
        records=[_record(r, erased.get((r.harvest_id, r.name)), sources.get(r.harvest_id)) for r in records],
        files=files,
        complete=complete,
        notes=notes,
        summary=summary,
    )


def _dump(dump: Dump) -> DumpReport:
    return DumpReport(
        backend=dump.backend,
        reason=dump.reason,
        count=dump.count,
        title=None if dump.log.event is None else one_line(dump.log.event.title),
        parts=list(dump.parts),
        missing=list(dump.missing),
        complete=dump.is_complete,
        lines=len(dump.log.lines),
        damage=list(dump.damage),
    )


def _imported_from(harvest: dict[str, Any]) -> str | None:
    """The directory that an import was from; None for a harvest of the store."""
    store = harvest.get("store")
    return str(store.get("path")) if isinstance(store, dict) and store.get("kind") else None


def _sender(incident: Incident, harvests: list[dict[str, Any]]) -> SenderReport | None:
    """Of the newest record that has one: a host name may have come late."""
    said = {(h["id"], r["name"]): r.get("sender") for h in harvests for r in h.get("records", ())}
    for record in sorted(incident.records(), key=lambda r: (r.harvest_id, r.name), reverse=True):
        sender = said.get((record.harvest_id, record.name))
        if isinstance(sender, dict):
            return SenderReport(address=str(sender.get("address", "")), host=sender.get("host"))
    return None


def _record(record: Record, erased: dict[str, Any] | None, source: str | None) -> RecordReport:
    if erased is None and source is not None:
        erased = {"outcome": "imported", "why": f"from {source}"}
    return RecordReport(
        name=record.name,
        type=record.type,
        size=record.size,
        sha256=record.sha256,
        harvest_id=record.harvest_id,
        compression=record.compression,
        ecc=None if record.ecc is None else EccReport(**record.ecc._asdict()),
        erased=None if erased is None or erased.get("outcome") == "imported" else erased.get("outcome") == "erased",
        outcome=None if erased is None else erased.get("outcome"),
        why=_why_unknown(record) if erased is None else erased.get("why"),
    )


def _why_unknown(record: Record) -> str | None:
    """Why it is not known what became of a record in the store; None for ours, which were never there."""
    return None if record.end is not None or record.backend == KMSG else "the harvest ended before it was noted"


def _kernel(incident: Incident, notes: list[str]) -> KernelReport:
    found = [log.kernel for _, log in incident.logs()]

    def first(field: str) -> str | None:
        value = next((v for k in found if (v := getattr(k, field)) is not None), None)
        if value is None:
            notes.append(f"kernel.{field}: the records do not hold that line")
        return value

    return KernelReport(
        release=first("release"), banner=first("banner"), cmdline=first("cmdline"), hardware=first("hardware")
    )


def _kernel_of_end(end: BootEnd) -> KernelReport:
    return KernelReport(release=end.kernel, banner=None, cmdline=None, hardware=None)


def _time(incident: Incident, banner: str | None, harvest: dict[str, Any], notes: list[str]) -> TimeReport:
    uptime = _uptime_s(incident)
    if uptime is None and incident.end() is None:
        notes.append("time.uptime_s: no line in the records has a timestamp")
    walls = [d.time_ns for d in incident.dumps if d.time_ns is not None and not d.is_shutdown]
    end = incident.end()
    if not walls and end is not None and end.wall is not None:
        return TimeReport(
            wall=_iso(int(end.wall * 1e9)),
            uptime_s=end.uptime_s,
            doubtful=True,
            why="the last sign of life; when exactly it ended is not known",
        )
    received = [r for r in incident.zones + incident.loose if r.time_ns is not None]
    if not walls and received:
        newest = max(received, key=lambda r: r.time_ns or 0)
        return _time_of_writer(newest, uptime)
    if not walls:
        return TimeReport(
            wall=None,
            uptime_s=uptime,
            doubtful=True,
            why="these records carry no time of their own, only their mount's",
        )
    wall_ns = max(walls)
    why = _doubt(wall_ns, banner, harvest.get("time_ns"))
    return TimeReport(wall=_iso(wall_ns), uptime_s=uptime, doubtful=why is not None, why=why)


def _time_of_writer(record: Record, uptime_s: float | None) -> TimeReport:
    """What the clock of whoever wrote the console down says: a logger of a serial line, a receiver on the net."""
    return TimeReport(
        wall=_iso(record.time_ns or 0),
        uptime_s=uptime_s,
        doubtful=record.backend == "serial",
        why="by the clock of the program that logged the console" if record.backend == "serial" else None,
    )


def _uptime_s(incident: Incident) -> float | None:
    """How long the boot had lived: the last line of its last dump; without one, the last line of its console."""
    logs = [d.log for d in incident.dumps if not d.is_shutdown] or [log for _, log in incident.logs()]
    spans = [log.span[1] for log in logs if log.span is not None]
    return max(spans) / 1e9 if spans else None


def _doubt(wall_ns: int, banner: str | None, collected_ns: int | None) -> str | None:
    built = build_time_s(banner or "")
    if wall_ns // 10**9 < (built or EARLIEST_S):
        what = "the kernel that crashed was built" if built else "there was a kernel with pstore"
        return f"the clock of the boot that crashed was wrong: it showed a time before {what}"
    if collected_ns is not None and wall_ns > collected_ns + 5 * 10**9:
        return "by the collecting boot's clock this time is still to come: one of the two clocks was wrong"
    return None


def _iso(time_ns: int) -> str:
    try:
        when = datetime.fromtimestamp(time_ns // 10**9, UTC)
    except (ValueError, OverflowError, OSError):
        return f"@{time_ns // 10**9}"
    return when.strftime("%Y-%m-%dT%H:%M:%S") + f".{time_ns % 10**9 // 1000:06d}Z"
