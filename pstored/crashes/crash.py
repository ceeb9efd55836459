# SPDX-License-Identifier: Apache-2.0
"""Whether what the store holds of a boot is a crash, what ended that boot, and the texts that a person reads of it."""

import re
from collections import Counter
from dataclasses import replace

from pstored.crashes.dumps import MAX_PART, Dump
from pstored.crashes.incidents import Incident
from pstored.logs import Log, ends_orderly
from pstored.oops import Event, EventKey, Severity, event_keys, find_events
from pstored.parse.filename import BESIDE, split_record_name
from pstored.parse.kmsg import gap_line
from pstored.terminal import some


def find_crash(incident: Incident) -> Event | None:
    """What ended the boot: from its last dump that tells, else its console, else its machine check; None: no crash."""
    fatal = [d for d in incident.dumps if not d.is_shutdown]
    for dump in reversed(fatal):
        event = dump.log.event
        if event is not None and (dump.reason is None or _agrees(dump, event)):
            event = _told_by_mce(event, incident)
            panicked = any(d.reason == "Panic" for d in fatal) and event.severity is not Severity.PANIC
            if panicked:
                event = replace(
                    event, severity=Severity.PANIC, title=f"{event.title} (then a panic; its words are missing)"
                )
            if event.severity is not Severity.PANIC and any(d.is_live for d in fatal):
                return _console_panic(incident) or event
            return event
    told: list[Event] = []
    for name, log in incident.logs() + incident.loose_logs():
        event = log.event if name.startswith("console") else None
        # of an oops that a machine survived, pstore has a dump besides; of what is beside pstore, there is nothing else
        if event is not None and (event.severity is Severity.PANIC or _is_beside(name) or not ends_orderly(log)):
            told.append(event)
    if told:  # of one boot there may be several, one going on where another ended
        return next((e for e in told if e.severity is Severity.PANIC), told[0])
    for record in incident.zones + incident.loose:
        if record.type == "mce" or record.is_fatal:
            return _plain_event("mce", record.summary or "machine check record that cannot be read", Severity.PANIC)
    if fatal:
        return _unexplained(fatal[-1])
    end = incident.end()
    return None if end is None else _plain_event(end.kind, end.title, Severity.RESET)


def _is_beside(name: str) -> bool:
    record = split_record_name(name)
    return record is not None and record.backend in BESIDE


def other_reports(incident: Incident, event: Event) -> list[Event]:
    """What else the kernel reported, warnings included, in the log that tells of the crash; each once.

    Args:
        incident: the records.
        event: what :func:`find_crash` says of them.
    """
    told = [d.log for d in incident.dumps if not d.is_shutdown]
    if not any(_is_same(report, event) for log in told for report in log.reports):
        told += [log for name, log in incident.logs() + incident.loose_logs() if name.startswith("console")]
    found: dict[EventKey, Event] = {}
    named: set[EventKey] = set()
    for log in told:
        for with_end, report in zip(event_keys(log.lines, log.reports), log.reports, strict=True):
            key = with_end._replace(severity=Severity.UNKNOWN)  # an earlier dump cannot know that it was fatal
            found.setdefault(key, report)
            named |= {key} if _is_same(report, event) else set()
    return [report for key, report in found.items() if key not in named]


def _is_same(report: Event, event: Event) -> bool:
    """Whether a log's report is the one that names the crash, which may have another title and end by now."""
    return (report.first, report.header, report.strict) == (event.first, event.header, event.strict)


def _console_panic(incident: Incident) -> Event | None:
    """A panic that only the console saw: the running kernel's log was read before it."""
    consoles = [log.event for name, log in incident.logs() if name.startswith("console")]
    return next((e for e in consoles if e is not None and e.severity is Severity.PANIC), None)


def _told_by_mce(event: Event, incident: Incident) -> Event:
    """A machine check's own record says more than the line the kernel printed of it."""
    hardware = sorted((r for r in incident.zones + incident.loose if r.is_fatal), key=lambda r: r.type != "mce")
    summaries = [r.summary for r in hardware if r.summary]
    return replace(event, title=summaries[0]) if event.kind == "mce" and summaries else event


def _agrees(dump: Dump, event: Event) -> bool:
    """Whether the event can be what the dump was made for: a Panic dump is for a panic."""
    return dump.reason != "Panic" or event.severity is Severity.PANIC


def _unexplained(dump: Dump) -> Event | None:
    if dump.reason is None:
        if any(r.text is None and r.size for r in dump.records):
            return _plain_event("other", "a kernel dump that cannot be unpacked", Severity.UNKNOWN)
        return None
    if dump.reason == "Emergency":
        return _plain_event("reboot", "emergency restart", Severity.UNKNOWN)
    severity = {"Panic": Severity.PANIC, "Oops": Severity.OOPS}.get(dump.reason, Severity.UNKNOWN)
    kind = {"Panic": "panic", "Oops": "oops"}.get(dump.reason, "other")
    return _plain_event(kind, f"{dump.reason}, but the text that says why is not there", severity)


def _plain_event(kind: str, title: str, severity: Severity) -> Event:
    return Event(
        kind=kind, title=title, severity=severity, function=None, comm=None, pid=None, cpu=None, first=0, last=0
    )


def holds_more(whole: Incident, before: Incident) -> bool:
    """Whether there is another event, or what was missing or broken of a dump: worth telling once more.

    A dump of what another source has told already (an oops, read from the running kernel's log) is not.
    """
    mended = all(d.is_complete for d in whole.dumps) and not all(d.is_complete for d in before.dumps)
    had = {(d.backend, d.reason, d.count): len(set(d.parts)) for d in before.dumps}
    fuller = any(len(set(d.parts)) > had.get((d.backend, d.reason, d.count), MAX_PART) for d in whole.dumps)
    return mended or fuller or _panicked(whole) > _panicked(before) or _tells_more(whole, before)


def _panicked(incident: Incident) -> bool:
    event = find_crash(incident)
    return event is not None and event.severity is Severity.PANIC


def _tells_more(whole: Incident, before: Incident) -> bool:
    """By the texts; of dumps whose text tells nothing, by the number of dumps."""
    told_now, told_then = (_events(incident) for incident in (whole, before))
    if told_now - told_then:
        return True
    silent = any(d.log.event is None for d in whole.dumps)
    dumps_now, dumps_then = (sum(d.reason is not None for d in i.dumps) for i in (whole, before))
    return silent and dumps_now > max(dumps_then, len(told_then))


def _events(incident: Incident) -> set[EventKey]:
    lines = Log(merge(incident.dumps)).lines
    return set(event_keys(lines, find_events(lines)))


def texts(incident: Incident) -> dict[str, bytes]:
    """What a person reads: file name to text, only those there are."""
    found = {"dmesg.txt": merge(incident.dumps)}
    for kind in ("console", "pmsg", "ftrace", "mce", "cper", "end"):
        found[f"{kind}.txt"] = b"".join(_without_copies(incident.texts(kind)))
    return {name: text for name, text in found.items() if text}


def _without_copies(texts: list[bytes]) -> list[bytes]:
    """Texts of one boot, without those that another one of them holds: a console that was received twice."""
    if len(texts) > MOST_COPIES:
        return texts
    by_length = sorted(set(texts), key=len, reverse=True)
    return [t for t in dict.fromkeys(texts) if not any(t in other for other in by_length[: by_length.index(t)])]


MOST_COPIES = 32
"""More texts of one boot are not compared with each other."""


def merge(dumps: list[Dump]) -> bytes:
    """The dumps of one boot as one log: what two share stands once; where they do not meet, a line of ours says so."""
    merged = b""
    before = []  # what no dump that is to come can share
    window = 2 * max((len(dump.text) for dump in dumps), default=0) + LOST
    for dump in dumps:
        text = dump.text
        if len(merged) > 2 * window:
            end = merged.find(b"\n", len(merged) - window) + 1
            before.append(merged[:end])
            merged = merged[end:]
        if not merged or merged in text:
            merged = text
        elif text not in merged:
            shared = _overlap(merged, text)
            if shared == 0 and (spliced := _splice(merged, text, trusted=dump.is_live)) is not None:
                merged = spliced
                continue
            if shared == 0:
                merged += gap_line(f"{dump.title}: what was logged before this, if anything, is not in the store")
            merged += text[shared:]
    return b"".join((*before, merged))


LOST = 128 * 1024
"""A dump shares lines with no more of the log before it than twice its own size and this: otherwise thousands of dumps
of one boot, each compared with all before it, take hours."""
OVERLAPS_TRIED = 64
"""Lines of one dump at which another may begin; more of the same line is no log of a kernel."""


def _overlap(older: bytes, newer: bytes) -> int:
    """How many bytes at the beginning of *newer* are the end of *older*."""
    first_line = newer[: newer.find(b"\n") + 1]
    if not first_line:
        return 0
    at = older.find(first_line)
    for _ in range(OVERLAPS_TRIED):
        if at < 0:
            return 0
        if newer.startswith(older[at:]):
            return len(older) - at
        at = older.find(first_line, at + 1)
    return 0


MIN_SHARED = 3
"""Lines that two dumps must share for one to be fitted into the other."""
_TIMED = re.compile(rb"(?:<[0-9]{1,5}>)?\[ {0,4}[0-9]{1,10}\.[0-9]{6}\]")


def _splice(older: bytes, newer: bytes, *, trusted: bool) -> bytes | None:
    """Two texts of one log, of which one is damaged or lacks a part, as one; None if they share too few lines.

    Before, between and behind the first and the last line that both have, whichever has more lines with a time; if
    that is no difference, the newer text's if it is *trusted*.
    """
    ours, theirs = older.split(b"\n"), newer.split(b"\n")
    count = Counter(ours)
    places = {line: at for at, line in enumerate(ours) if count[line] == 1 and _TIMED.match(line)}
    shared = [(places[line], at) for at, line in enumerate(theirs) if line in places]
    if len(shared) < MIN_SHARED or shared[0][0] >= shared[-1][0]:
        return None
    (first, their_first), (last, their_last) = shared[0], shared[-1]
    pieces = (
        (ours[:first], theirs[:their_first]),
        (ours[first : last + 1], theirs[their_first : their_last + 1]),
        (ours[last + 1 :], theirs[their_last + 1 :]),
    )
    return b"\n".join(line for choice in pieces for line in max(choice[::-1] if trusted else choice, key=_count_timed))


def _count_timed(lines: list[bytes]) -> int:
    return sum(_TIMED.match(line) is not None for line in lines)


# -- no crash


def no_crash(incident: Incident) -> str:
    """Why what the store holds of a boot is none, in one line."""
    records = incident.records()
    names = some([r.name for r in records], 5)
    if any(d.is_shutdown for d in incident.dumps):
        return f"no crash: {names}: an orderly end of the boot"
    consoles = [log for name, log in incident.logs() if name.startswith("console")]
    if any(ends_orderly(log) for log in consoles):
        return f"no crash: {names}: the console ends with an orderly shutdown"
    if consoles:
        return f"no crash shown: {names}: but no orderly shutdown, either: a reset, a watchdog or a power loss"
    if any(r.text for r in incident.zones + incident.loose):
        return f"no crash: {names}: nothing in it tells of one"
    return f"no crash: {names}: not understood, archived as it is"
