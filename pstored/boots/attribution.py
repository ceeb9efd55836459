# SPDX-License-Identifier: Apache-2.0
"""Which boot crashed: its own log, stamp, journal, the ledger of boots seen, elimination; each with its evidence.

In order of certainty (the first that answers, wins):

1. *kmsg*: a record was read from the log of the running kernel, so it is of the boot that read it.
2. *stamp*: every boot, pstored writes ``pstored: boot <boot-id>`` to the kernel log; found in a record, it is proof.
3. *journal*: one boot's journal has the record's kernel lines, text and microsecond.  No wall clock is in that.
4. *ledger*: of the boots seen, exactly one has the record's kernel, and began when the record says.
5. *elimination*: console and pmsg zones hold the boot before the collecting one, and one boot only can be meant.
6. *unknown*, with the reason.

The collecting boot is never named but by its own log, its stamp or its lines in the journal, which are as good a proof.
The wall clock alone never decides.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from pstored.boots.ledger import Boot
from pstored.crashes.dumps import Dump
from pstored.crashes.incidents import Incident
from pstored.logs import EARLIEST_S, Log, build_time_s
from pstored.parse.filename import BERT, BESIDE
from pstored.parse.record import Record

START_SLACK_S = 5.0
"""How far the beginning of a boot, worked out twice from clock and uptime, may differ: whole seconds in EFI ids."""
UPTIME_SLACK_S = 1.0
"""Uptime and the kernel's timestamps are two clocks of one machine."""
REBOOT_NS = 120_000_000_000
"""A panic timeout and a firmware take no longer; a whole boot that also dies hardly fits in."""
SAMPLE = 128
"""So many of a record's lines are looked up in the journal."""
PROOF_LINES = 8
"""So many equal lines are proof."""
MIN_EQUAL_LINES = 3
"""Fewer say nothing."""
SETTLED_NS = 2_000_000_000
"""From here on drivers and user space run side by side, and no two boots have a line in the same microsecond.  Before,
a board may bring the same line within some microseconds in every boot, so that some are equal by chance."""
WHOLE = 0.75
"""Early lines count where so many of the lines in between are equal, too: not by chance, then."""
RIVAL = 0.25
"""Another boot with so many of the best one's equal lines: simulators run the same microseconds again and again."""
LIVE_ZONES_OF_PREVIOUS_BOOT = frozenset(("console", "pmsg"))


class Method(StrEnum):
    """How a boot was named."""

    KMSG = "kmsg"
    STAMP = "stamp"
    JOURNAL = "journal"
    LEDGER = "ledger"
    ELIMINATION = "elimination"
    UNKNOWN = "unknown"


class Confidence(StrEnum):
    """How sure that is."""

    CERTAIN = "certain"
    HIGH = "high"
    LOW = "low"
    NONE = "none"


PROOFS = (Method.KMSG, Method.STAMP, Method.JOURNAL)
"""Methods whose answer nothing else overrules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Which boot crashed."""

    boot_id: str | None
    method: Method
    confidence: Confidence
    evidence: tuple[str, ...]


# -- attribution


class KernelLines(Protocol):
    """The journal, as far as it is asked here."""

    problem: str | None
    """Why it knows nothing, or not everything."""

    def equal_lines(self, lines: Iterable[tuple[int, bytes]], /) -> Mapping[str, set[tuple[int, bytes]]]:
        """Boot ids, and those of *lines* (nanoseconds since boot, text) that each boot's journal has."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One incident, and what was known when it was collected."""

    incident: Incident
    ledger: tuple[Boot, ...]
    collecting_boot: str | None
    started_ns: int | None
    """When the collecting boot began, nanoseconds since 1970 by its clock."""
    stamp_prefix: str
    journal: KernelLines | None = None
    """None if it is not to be asked."""
    live: tuple[tuple[str, str], ...] = ()
    """Names of the records that were read from the log of a running kernel, each with the boot that it was."""
    received: bool = False
    """Whether the records came over the net: another machine's, and what they say of themselves is no proof."""
    from_here: bool = True
    """Whether the records are known to be this machine's: an import may be another's, which booted at the same time."""


def attribute(question: Question) -> Attribution:
    """Name the boot that crashed, or say why it cannot be named."""
    reasons: list[str] = []
    if question.received:
        return _of_sender(question)
    for method in METHODS:
        answer = method(question, reasons)
        if answer is not None:
            return replace(answer, evidence=answer.evidence + tuple(question.incident.evidence))
    evidence = (*reasons, *question.incident.evidence)
    return Attribution(boot_id=None, method=Method.UNKNOWN, confidence=Confidence.NONE, evidence=evidence)


def _by_kmsg(question: Question, reasons: list[str]) -> Attribution | None:  # noqa: ARG001 - as all methods
    if len({boot_id for _, boot_id in question.live}) != 1:
        return None
    name, boot_id = question.live[0]
    evidence = f"{name} was read from the log of boot {boot_id} while it ran"
    return Attribution(boot_id=boot_id, method=Method.KMSG, confidence=Confidence.CERTAIN, evidence=(evidence,))


def _by_stamp(question: Question, reasons: list[str]) -> Attribution | None:
    prefix = question.stamp_prefix
    found = _stamps(question.incident.logs(), prefix)
    loose = _stamps(question.incident.loose_logs(), prefix)
    if len(found) == 1:
        ((boot_id, what),) = found.items()
        evidence = f"{what} bears the stamp {prefix}{boot_id}"
        return Attribution(boot_id=boot_id, method=Method.STAMP, confidence=Confidence.CERTAIN, evidence=(evidence,))
    if found:
        why = f"stamps of {len(found)} boots in what seem to be the records of one: {', '.join(found)}"
        return Attribution(boot_id=None, method=Method.UNKNOWN, confidence=Confidence.NONE, evidence=(why,))
    if len(loose) != 1:
        reasons.append(f"no stamp ({prefix}<boot-id>) in the records")
        return None
    ((boot_id, what),) = loose.items()
    evidence = f"{what} bears the stamp {prefix}{boot_id}, and holds the last boot before the collection"
    if _died_last(question) and _shows_its_end(question.incident):
        near = "it ends with a crash, and by its clock the dump was written shortly before the collecting boot began"
        return Attribution(boot_id=boot_id, method=Method.STAMP, confidence=Confidence.HIGH, evidence=(evidence, near))
    far = "whether the dump is of that boot is not proven"
    return Attribution(boot_id=boot_id, method=Method.STAMP, confidence=Confidence.LOW, evidence=(evidence, far))


def _of_sender(question: Question) -> Attribution:
    """The boot that a sender on the net says it is; never one of this machine, whatever it says."""
    stamps = _stamps(question.incident.logs(), question.stamp_prefix)
    ours = {boot.boot_id for boot in question.ledger} | {question.collecting_boot}
    why = f"it came over the net, and bears no stamp ({question.stamp_prefix}<boot-id>)"
    if len(stamps) == 1 and (boot_id := next(iter(stamps))) not in ours:
        said = f"it bears the stamp {question.stamp_prefix}{boot_id}, and came over the net: anybody can have sent it"
        return Attribution(boot_id=boot_id, method=Method.STAMP, confidence=Confidence.LOW, evidence=(said,))
    if stamps:
        why = f"it came over the net with stamps of boots that it cannot be of, or of several: {', '.join(stamps)}"
    return Attribution(boot_id=None, method=Method.UNKNOWN, confidence=Confidence.NONE, evidence=(why,))


def _stamps(logs: list[tuple[str, Log]], prefix: str) -> dict[str, str]:
    """Boot id to where it was found first."""
    found: dict[str, str] = {}
    for what, log in logs:
        for boot_id in log.stamps(prefix):
            found.setdefault(boot_id, what)
    return found


def _shows_its_end(incident: Incident) -> bool:
    """Whether a zone that nothing ties to the dump shows a crash of its own, so that its boot did not just go by."""
    return any(log.event is not None for _, log in incident.loose_logs())


def _died_last(question: Question) -> bool:
    """Whether the newest dump was written so shortly before the collecting boot that no other boot was in between."""
    times = [d.time_ns for d in question.incident.dumps if d.time_ns is not None]
    if question.started_ns is None or not times or question.started_ns // 10**9 < EARLIEST_S:
        return False
    return 0 <= question.started_ns - max(times) <= REBOOT_NS


def _by_end(question: Question, reasons: list[str]) -> Attribution | None:  # noqa: ARG001 - as all methods
    """A record of ours that tells how a boot ended names it."""
    end = question.incident.end()
    if end is None:
        return None
    evidence = f"boot {end.boot_id} is in the ledger, and is over"
    return Attribution(boot_id=end.boot_id, method=Method.LEDGER, confidence=Confidence.CERTAIN, evidence=(evidence,))


def _by_journal(question: Question, reasons: list[str]) -> Attribution | None:
    if question.journal is None:
        reasons.append("the journal is not asked")
        return None
    sample = _sample(question.incident)
    found = question.journal.equal_lines(sample) if sample else {}
    weights = {boot_id: _weight(lines, sample) for boot_id, lines in found.items()}
    best = max(weights, key=weights.__getitem__, default=None)
    if best is None or weights[best] < MIN_EQUAL_LINES:
        equal = max((len(lines) for lines in found.values()), default=0)
        said = f"no boot's journal has more than {equal} of {len(sample)} kernel lines with equal text and microsecond"
        reasons.append(question.journal.problem or said)
        return None
    evidence = f"{len(found[best])} of {len(sample)} kernel lines stand in the journal of boot {best}"
    rivals = [boot_id for boot_id in weights if boot_id != best and weights[boot_id] >= RIVAL * weights[best]]
    if rivals:
        more = ", ".join(f"{len(found[boot_id])} in that of {boot_id}" for boot_id in rivals[:3])
        reasons.append(f"{evidence}, but {more}: boots that repeat each other to the microsecond cannot be told apart")
        return None
    if best == question.collecting_boot and any(dump.reason == "Panic" for dump in question.incident.dumps):
        reasons.append(f"{evidence}, which collected them: it cannot have panicked")
        return None
    return Attribution(
        boot_id=best,
        method=Method.JOURNAL,
        confidence=Confidence.CERTAIN if weights[best] >= PROOF_LINES else Confidence.HIGH,
        evidence=(f"journal: {evidence} with equal text and microsecond",),
    )


def _sample(incident: Incident) -> list[tuple[int, bytes]]:
    """Lines from all over the logs, oldest first: the newest may never have reached the journal."""
    lines = sorted(set[tuple[int, bytes]]().union(*(log.distinctive for _, log in incident.logs())))
    few = min(len(lines), SAMPLE)
    return [lines[at * len(lines) // few] for at in range(few)]


def _weight(equal: set[tuple[int, bytes]], sample: list[tuple[int, bytes]]) -> int:
    """How many of the equal lines count: those of the early log only where nearly all lines are equal."""
    between = sum(min(equal) <= line <= max(equal) for line in sample)
    if len(equal) >= max(PROOF_LINES, WHOLE * between):
        return len(equal)
    return sum(time_ns >= SETTLED_NS for time_ns, _ in equal)


def _by_ledger(question: Question, reasons: list[str]) -> Attribution | None:
    if not question.from_here:
        reasons.append("of which machine the records are is not known, so the ledger of this one says nothing")
        return None
    timed = [d for d in question.incident.dumps if d.time_ns and d.log.span is not None]
    if not timed:
        lack = "time of its own" if not any(d.time_ns for d in question.incident.dumps) else "timestamp in its lines"
        reasons.append(f"no dump with a {lack}, so the ledger cannot be asked")
        return None
    dump = timed[-1]
    assert dump.time_ns is not None
    assert dump.log.span is not None
    uptime = dump.log.span[1] / 1e9
    start = dump.time_ns / 1e9 - uptime
    kernel = next((k.release for d in reversed(timed) if (k := d.log.kernel).release is not None), None)
    banner = next((k.banner for d in reversed(timed) if (k := d.log.kernel).banner is not None), None)
    if start < (build_time_s(banner or "") or EARLIEST_S):
        reasons.append("the clock of the boot that crashed was not set: every boot begins at the same time then")
        return None
    together = [b for b in question.ledger if any(abs(start - began) <= START_SLACK_S for began in b.starts())]
    if len(together) > 1:
        reasons.append(f"{len(together)} boots of the ledger began at the time that the record's clock and uptime give")
        return None
    fitting = [boot for boot in question.ledger if _fits(boot, start, uptime, kernel, dump)]
    names = ", ".join(boot.boot_id for boot in fitting)
    if any(boot.boot_id == question.collecting_boot for boot in fitting):
        reasons.append("by clock, uptime and kernel it may be the collecting boot: without a stamp that is not decided")
        return None
    if len(fitting) != 1:
        reasons.append(
            f"{len(fitting)} boots of the ledger fit by clock, uptime and kernel: {names}"
            if fitting
            else "no boot of the ledger fits by clock, uptime and kernel"
        )
        return None
    (boot,) = fitting
    evidence = (
        f"ledger: boot {boot.boot_id} began at the time the record's clock and uptime give, and no other did",
        f"kernel {kernel} in both" if kernel is not None else "the record does not name its kernel",
    )
    return Attribution(
        boot_id=boot.boot_id,
        method=Method.LEDGER,
        confidence=Confidence.HIGH if kernel is not None else Confidence.LOW,
        evidence=evidence,
    )


def _fits(boot: Boot, start: float, uptime: float, kernel: str | None, dump: Dump) -> bool:
    if kernel is not None and boot.kernel is not None and kernel != boot.kernel:
        return False
    version = dump.log.kernel.version
    if version is not None and boot.version is not None and version != boot.version:
        return False
    is_end = dump.reason in ("Panic", "Emergency")  # an oops may have been survived
    if is_end and boot.last_uptime is not None and uptime < boot.last_uptime - UPTIME_SLACK_S:
        return False  # the boot was alive later than the record's last line
    if _lacks_stamp(boot, dump.log):
        return False
    return any(abs(start - began) <= START_SLACK_S for began in boot.starts())


def _lacks_stamp(boot: Boot, log: Log) -> bool:
    """Whether a log covers the time at which a boot was stamped, and bears no stamp: then it is not that boot's."""
    uptime, slack = boot.stamped_uptime, UPTIME_SLACK_S
    if uptime is None:
        uptime, slack = boot.first_uptime, START_SLACK_S
    if not boot.stamped or log.span is None or uptime is None:
        return False
    first, last = log.span[0] / 1e9, log.span[1] / 1e9
    return first < uptime - slack and uptime + slack < last


def _is_of_previous_boot(zone: Record) -> bool:
    if zone.backend == BERT:
        return True
    return zone.type in LIVE_ZONES_OF_PREVIOUS_BOOT and zone.backend not in BESIDE


def _by_elimination(question: Question, reasons: list[str]) -> Attribution | None:
    zones = [z for z in question.incident.zones + question.incident.loose if _is_of_previous_boot(z)]
    if not zones:
        reasons.append("no console or pmsg zone, which only the boot before the collecting one can have left")
        return None
    ids = [boot.boot_id for boot in question.ledger]
    if question.collecting_boot not in ids:
        reasons.append("the collecting boot is not in the ledger, so the one before it is not known")
        return None
    before = question.ledger[: ids.index(question.collecting_boot)]
    if not before:
        reasons.append("the ledger has no boot before the collecting one")
        return None
    boot = before[-1]
    logs = [log for _, log in question.incident.logs() + question.incident.loose_logs()]
    uptimes = [log.span[1] / 1e9 for log in logs if log.span is not None]
    if uptimes and boot.last_uptime is not None and max(uptimes) < boot.last_uptime - UPTIME_SLACK_S:
        reasons.append(
            f"the last boot in the ledger, {boot.boot_id}, lived longer than this record: another boot was in between,"
            " or it was suspended for a while, which this record does not count"
        )
        return None
    if any(_lacks_stamp(boot, log) for log in logs):
        reasons.append(f"the last boot in the ledger, {boot.boot_id}, was stamped, and this log is not")
        return None
    kernels = {log.kernel.release for log in logs} - {None}
    if boot.kernel is not None and kernels and boot.kernel not in kernels:
        reasons.append(f"the last boot in the ledger, {boot.boot_id}, ran another kernel: another boot was in between")
        return None
    evidence = (
        f"{zones[0].name} holds the boot before the collecting one; the ledger has {boot.boot_id} there",
        "a boot in between that died before pstored ran cannot be ruled out",
    )
    return Attribution(boot_id=boot.boot_id, method=Method.ELIMINATION, confidence=Confidence.LOW, evidence=evidence)


METHODS: tuple[Callable[[Question, list[str]], Attribution | None], ...] = (
    _by_kmsg,
    _by_stamp,
    _by_journal,
    _by_end,
    _by_ledger,
    _by_elimination,
)
"""The order in which the methods are asked."""


def without_twins(boots: list[Attribution]) -> list[Attribution]:
    """What seems to be of different boots cannot be of one: then neither is named, but by a stamp or the journal."""
    count = Counter(boot.boot_id for boot in boots)
    return [
        Attribution(
            boot_id=None,
            method=Method.UNKNOWN,
            confidence=Confidence.NONE,
            evidence=(f"several crashes of different boots would be of boot {boot.boot_id}", *boot.evidence),
        )
        if boot.boot_id is not None and boot.method not in PROOFS and count[boot.boot_id] > 1
        else boot
        for boot in boots
    ]
