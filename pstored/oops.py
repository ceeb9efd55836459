# SPDX-License-Identifier: Apache-2.0
"""What happened, from the kernel's own words: kind, one-line title, the function where it struck.

A first, small reader: headers of the reports that end a machine, newest kernels first.  It names what the log says
and nothing it does not say; a log with no such header shows no crash.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pstored.parse.kmsg import KmsgLine

# Headers of reports, most specific first: kind, pattern.  A log line begins with the pattern, or it is no header.
_HEADERS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("kasan-uaf", rb"BUG: KASAN: \S*use-after-free\b"),
        ("kasan-oob", rb"BUG: KASAN: \S*out-of-bounds\b"),
        ("kasan-other", rb"BUG: KASAN: |KASAN: "),
        ("kfence", rb"BUG: KFENCE: "),
        ("kmsan", rb"BUG: KMSAN: "),
        ("kcsan", rb"BUG: KCSAN: "),
        ("ubsan", rb"UBSAN: "),
        ("null-deref", rb"BUG: kernel NULL pointer dereference|BUG: unable to handle kernel NULL pointer dereference"),
        ("null-deref", rb"Unable to handle kernel NULL pointer dereference|Kernel NULL pointer dereference"),
        ("paging-fault", rb"BUG: unable to handle (?:kernel paging request|page fault)"),
        ("paging-fault", rb"Unable to handle kernel (?:paging request|access)|BUG: Unable to handle kernel "),
        ("stack-overflow", rb"BUG: (?:TASK|IRQ|#DF|#VC\S*|\S+) stack guard page was hit|Insufficient stack space"),
        ("stack-overflow", rb"Kernel stack overflow"),
        ("double-fault", rb"(?:PANIC: )?double fault"),
        ("gpf", rb"general protection fault"),
        ("divide-error", rb"divide error"),
        ("invalid-opcode", rb"invalid opcode"),
        ("soft-lockup", rb"(?:watchdog: )?BUG: soft lockup"),
        ("hard-lockup", rb"(?:NMI watchdog: |watchdog: )?Watchdog detected hard LOCKUP"),
        (
            "rcu-stall",
            rb"rcu: INFO: rcu_\w+ (?:self-detected stall|detected \w*\s?stall)|INFO: rcu_\w+ .*detected stall",
        ),
        ("hung-task", rb"INFO: task \S+ blocked for more than"),
        ("workqueue-lockup", rb"BUG: workqueue lockup"),
        ("sleeping-in-atomic", rb"BUG: (?:sleeping function called from invalid context|scheduling while atomic)"),
        ("spinlock-bug", rb"BUG: spinlock "),
        ("bad-page", rb"BUG: Bad page "),
        ("bug-on", rb"kernel BUG at "),
        ("mce", rb"mce: \[Hardware Error\]: CPU \d+: Machine Check"),
        ("unhandled-fault", rb"Unhandled fault|Internal error: synchronous external abort|SError Interrupt"),
        # x86's die(): the trap's name, error code, how many-th: "int3: 0000 [#1] SMP"
        ("oops", rb"Internal error: Oops|Oops(?:: | - )|[A-Za-z][\w -]{2,40}: [0-9a-f]{4} \[#\d+\]"),
        ("warning", rb"WARNING: "),
    )
)
# A process names itself, up to 15 bytes (prctl(2), PR_SET_NAME), and lines of the kernel's about it begin with that, or
# with what is behind a newline in it: "%s[%d]: segfault at" (x86), "%s[%d]: unhandled" (arm64, RISC-V), "%s: unhandled"
# (ARM), "%s: page allocation failure", "%s (%d): ".  What the name says is no report.
_AFTER_NAME = rb"(?:\[[0-9]{1,10}\](?::| )|: unhandled |: page allocation failure| \([0-9]{1,10}\): )"
_NAME = re.compile(rb"[^\n]{0,15}?" + _AFTER_NAME)
_REST_OF_NAME = re.compile(_AFTER_NAME)
_PANIC = re.compile(rb"Kernel panic - not syncing: ([^\n]*)")

# A panic that only says that the report before it was fatal: kernel/panic.c's callers.  With what they stand for
# where no report is in the log (it was filtered, or is in a part that is missing).
_TAILS: tuple[tuple[str | None, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (None, rb"Fatal exception|panic_on_warn set|kernel: panic_on_warn|Oops: Fatal exception|Fatal hardware error"),
        ("hung-task", rb"hung_task: blocked tasks"),
        ("soft-lockup", rb"softlockup: hung tasks"),
        ("hard-lockup", rb"Hard LOCKUP"),
        ("rcu-stall", rb"RCU Stall"),
        ("mce", rb"Fatal (?:local )?machine check|Fatal Machine check|Machine check from unknown source"),
    )
)
_PANIC_KINDS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("sysrq", rb"sysrq triggered crash"),
        ("oom", rb"Out of memory|System is deadlocked on memory"),
        ("stack-overflow", rb"kernel stack overflow"),
    )
)
# RIP: 0010:lkdtm_EXCEPTION+0x7/0xf | EIP: f+0x1/0x2 | pc : f+0x1/0x2 | PC is at f+0x1/0x2 | NIP [c000...] f+0x1/0x2
# | epc : f+0x1/0x2
_FUNCTION = re.compile(
    rb"(?:RIP: [0-9a-f]{4}:|EIP: |e?pc : |PC is at |NIP \[[0-9a-f]{1,16}\] )"
    rb"(?: {0,2}\[<[0-9a-f]{1,16}>\] ?){0,2}([A-Za-z_][\w.]*)\+0x"
)
_SOURCE = re.compile(rb"(?:WARNING|BUG): [^\n]{0,200} (?:in|at) (?:[^ ]{1,100} )?([A-Za-z_][\w.]{0,100})\+0x")
_TASK = re.compile(
    rb"CPU: (?P<cpu>\d{1,5}) (?:UID: \d{1,10} )?PID: (?P<pid>\d{1,10}) Comm: (?P<comm>.{1,32}?) "
    rb"(?:Not tainted|Tainted: |Kdump: )"
)
_HUNG = re.compile(rb"INFO: task (?P<comm>.{1,32}):(?P<pid>\d{1,10}) blocked for more than")

LOOK_AHEAD = 60
"""Lines after a header in which its registers stand: a KASAN report is the longest."""
LONGEST = 200
"""A report without an end line is taken to have no more lines than this."""
_END = re.compile(rb"---\[ end (?:trace|Kernel panic)")

# Trap lines that follow a header ("kernel BUG at ...", "BUG: kernel NULL pointer ...") and belong to it.
_FOLLOWERS = frozenset(("oops", "invalid-opcode"))
CHAIN_NS = 100_000_000
"""Reports that follow one another faster are one disaster, of which the first is the cause."""
FOLLOWS_WITHIN = 8
"""Lines between a header and such a line."""


class Severity(StrEnum):
    """What died of it."""

    PANIC = "panic"
    """The machine."""
    OOPS = "oops"
    """A task; the machine may have gone on."""
    WARNING = "warning"
    """Nothing."""
    RESET = "reset"
    """The machine, without a word."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The report that tells what ended a boot, or marred it."""

    kind: str
    """``null-deref``, ``sysrq``, ``panic``, ...; the words of the README's table."""
    title: str
    """One line."""
    severity: Severity
    function: str | None
    """Where it struck; None if the log does not say."""
    comm: str | None
    pid: int | None
    cpu: int | None
    first: int
    """Index of the report's first line."""
    last: int
    """Index behind its last line that we know of: the panic line, or the end of what was looked at."""


def find_event(lines: list[KmsgLine]) -> Event | None:
    """What the log's last panic or report says; None if it shows no crash.

    A warning alone is no crash: the machine went on.
    """
    events = find_events(lines)
    return events[-1] if events else None


def find_events(lines: list[KmsgLine]) -> list[Event]:
    """All that the log tells of, in order; a panic that only says "fatal" is one with the report before it."""
    everything = list(_reports(lines))
    reports = [r for r in everything if r[1] != "warning"]
    panics = [(i, found[1]) for i, line in enumerate(lines) if not line.facility and (found := _PANIC.match(line.text))]
    if not panics:
        return [_report(lines, r) for r in reports]
    at, words = panics[-1]
    fatal = _panic(lines, at, words, [r for r in everything if r[0] < at])
    return [_report(lines, r) for r in reports if r[0] < fatal.first] + [fatal]


class EventKey(NamedTuple):
    """What tells one event of a boot from its others, and is the same in every text that holds it."""

    severity: Severity
    time_ns: int | None
    """Of its first line; None where the lines have no times, or the kernel says the same again and again."""
    header: bytes
    """Its first line; without its numbers if the kernel says it again and again."""
    number: int
    """Without times: how many-th of those with this header."""


_REPEATED = frozenset(("soft-lockup", "hard-lockup", "rcu-stall", "hung-task", "workqueue-lockup"))
"""Reports of a state that lasts: repeated every 20 to 120 s, with another number of seconds in them."""
_NUMBER = re.compile(rb"[0-9]{1,20}")


def event_keys(lines: list[KmsgLine], events: list[Event]) -> list[EventKey]:
    """The keys of a log's events, in their order."""
    keys: list[EventKey] = []
    untimed: Counter[bytes] = Counter()
    for event in events:
        line = lines[event.first]
        if event.kind in _REPEATED:
            keys.append(EventKey(event.severity, None, _NUMBER.sub(b"", line.text), 0))
            continue
        if line.time_ns is None:
            untimed[line.text] += 1
        keys.append(EventKey(event.severity, line.time_ns, line.text, untimed[line.text]))
    return keys


def is_finished(lines: list[KmsgLine], event: Event) -> bool:
    """Whether the log goes to the end of a report: it has its last line, or as many as any has."""
    return event.first + LONGEST <= len(lines) or _is_end(lines[event.last - 1])


def _is_end(line: KmsgLine) -> bool:
    return not line.facility and _END.match(line.text) is not None


def _report(lines: list[KmsgLine], report: tuple[int, str, bytes]) -> Event:
    at, kind, header = report
    end = next((i + 1 for i in range(at, min(at + LONGEST, len(lines))) if _is_end(lines[i])), at + LOOK_AHEAD)
    return _event(lines, kind, header, Severity.OOPS, at, end)


def _reports(lines: Sequence[KmsgLine]) -> Iterable[tuple[int, str, bytes]]:
    """Index, kind and text of each report's header; the ``Oops:`` line that follows a header is no second report."""
    last = -LOOK_AHEAD
    for i, line in enumerate(lines):
        if line.facility:
            continue  # written by user space
        for kind, pattern in _HEADERS:
            if pattern.match(line.text):
                if _NAME.match(line.text) or any(_REST_OF_NAME.match(after.text) for after in lines[i + 1 : i + 2]):
                    break
                if kind not in _FOLLOWERS or i - last > FOLLOWS_WITHIN:
                    yield i, kind, line.text
                last = i
                break


def _panic(lines: list[KmsgLine], at: int, words: bytes, before: list[tuple[int, str, bytes]]) -> Event:
    for tail_kind, pattern in _TAILS:
        if not pattern.match(words):
            continue
        report = _cause(lines, before, tail_kind, words)
        if report is not None:
            return _event(lines, report[1], report[2], Severity.PANIC, report[0], at + 1)
        return _event(lines, tail_kind or "panic", b"Kernel panic: " + words, Severity.PANIC, at, at + LOOK_AHEAD)
    kind = next((k for k, pattern in _PANIC_KINDS if pattern.search(words)), "panic")
    return _event(lines, kind, b"Kernel panic: " + words, Severity.PANIC, at, at + LOOK_AHEAD)


def _cause(
    lines: list[KmsgLine], before: list[tuple[int, str, bytes]], kind: str | None, words: bytes
) -> tuple[int, str, bytes] | None:
    """The report that a tail belongs to: of the tail's own kind where it has one; the first of an unbroken chain.

    A warning is the cause only of a panic that says so.
    """
    warned = b"panic_on_warn" in words
    fitting = [r for r in before if (r[1] == kind if kind is not None else warned or r[1] != "warning")]
    if not fitting:
        return None
    at = len(fitting) - 1
    while at > 0 and _follows_at_once(lines[fitting[at - 1][0]], lines[fitting[at][0]]):
        at -= 1
    return fitting[at]


def _follows_at_once(earlier: KmsgLine, later: KmsgLine) -> bool:
    if earlier.time_ns is None or later.time_ns is None:
        return False
    return later.time_ns - earlier.time_ns < CHAIN_NS


def _event(lines: list[KmsgLine], kind: str, header: bytes, severity: Severity, first: int, last: int) -> Event:
    last = min(last, len(lines))
    # what user space says in between is no part of a report
    window = [line.text for line in lines[first : max(last, first + LOOK_AHEAD)] if not line.facility]
    function = None if kind == "sysrq" else _first(_FUNCTION, window[:LOOK_AHEAD]) or _first(_SOURCE, window[:1])
    task = _HUNG.match(header) or next((found for text in window if (found := _TASK.search(text))), None)
    title = header.decode(errors="backslashreplace").strip()
    if function is not None and function not in title:
        title += f" in {function}"
    return Event(
        kind=kind,
        title=title,
        severity=severity,
        function=function,
        comm=None if task is None else task["comm"].decode(errors="backslashreplace"),
        pid=None if task is None else int(task["pid"]),
        cpu=int(task["cpu"]) if task is not None and "cpu" in task.groupdict() else None,
        first=first,
        last=last,
    )


def _first(pattern: re.Pattern[bytes], texts: list[bytes]) -> str | None:
    for text in texts:
        if found := pattern.search(text):
            return found[1].decode(errors="backslashreplace")
    return None
