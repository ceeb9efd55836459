# SPDX-License-Identifier: Apache-2.0
"""Where the reports of a log begin and end, which lines belong together, and which panic belongs to which report."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

from pstored.oops.frames import Words as FrameWords
from pstored.oops.headers import Header, candidates, match_header
from pstored.oops.lines import Line, split_message
from pstored.oops.panics import Words, understand
from pstored.oops.rule import Role
from pstored.oops.view import View
from pstored.parse.header import split_dump_header
from pstored.parse.kmsg import KmsgLine

LONGEST = 1000
"""Lines of one report that are looked at: a stall with the traces of some CPUs, a stack that has overflown."""
TRAP_WITHIN = 30
"""Lines between a header and the line of die(): arm64 and s390 decode the fault and walk the page tables first."""
SAME_WITHIN = 60
"""Lines in which a second header of the same kind is of the same report, if no trace has begun."""
CHAIN_NS = 100_000_000
"""Reports that follow one another faster are one disaster, of which the first is the cause."""
CAUSES = 64
"""So many reports before a panic are asked whether it belongs to them; a log with more of them at once is no log."""
LONGEST_HEADER = 256
"""Bytes in which the lines before a dump's text end."""
DYING_LINES = 400
"""Without times: lines between an oops and the panic that it leads to."""

CUT_WITHIN = 12
"""A report has printed no trace yet when another begins so few lines behind its header."""

_DIES = frozenset(
    (
        "null-deref",
        "paging-fault",
        "bug-on",
        "unhandled-fault",
        "stack-overflow",
        "double-fault",
        "oops",
        "other",
        "gpf",
    )
)
"""Kinds whose header is followed by a line of die()."""
_MERGED = frozenset(
    ("hard-lockup", "rcu-stall", "mce", "oom", "slab-corruption", "other", "workqueue-lockup", "bad-page", "memleak")
)
"""Kinds of which one report has several headers."""
_CLOSED = frozenset(("kasan-uaf", "kasan-oob", "kasan-other", "kfence", "kmsan", "kcsan", "ubsan"))
"""Kinds whose report ends with a rule of ``=``."""
_STALLS = frozenset(("rcu-stall", "soft-lockup", "hard-lockup", "hung-task", "workqueue-lockup", "spinlock-bug"))
"""Kinds in whose report the traces of other CPUs stand."""

_END = re.compile(rb"---\[ end (?:trace|Kernel panic)")
_RULE = re.compile(rb"={20,200}")
#   what is printed right before a header, and belongs to it
_PRELUDE = re.compile(
    rb"-{4,40}\[ cut here ?\]|8<--- cut here|={20,200}|ODEBUG: |list_(?:add|del) corruption|usercopy: "
    rb"|refcount_t: |kernel tried to|"
    rb"Kernel attempted to|unable to execute userspace|kasan: |[ ]{10,40}(?:\\\|/|\"@'|/_\||\\__U_)"
    rb"|rust_kernel: panicked|detected buffer overflow"
)
PRELUDE_LINES = 6


@dataclass(slots=True)
class Report:
    """One report of a log."""

    header: Header
    first: int
    """Of its prelude."""
    at: int
    """Of its header."""
    last: int
    """Behind its last line."""
    line: Line
    """The header's."""
    words: Words | None = None
    """Of a panic with a reason of its own."""
    tails: list[bytes] = field(default_factory=list)
    panicked_at: int | None = None
    ended: bool = False
    """The log has its end mark."""
    trapped: bool = False
    """A line of die() was seen: a task was killed."""
    principal: bool = True
    reach: int = 0
    """Where the report that cut this one short ends: its trace is of the same task at almost the same place."""
    headless: bool = False
    """A panic that belongs to a report whose first line is missing: what stands before it is what is left of that."""
    damaged: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """What the header says."""
        return self.header.kind if self.words is None else self.words.kind


def view_text(text: bytes) -> tuple[View, list[tuple[int, Header, Line]]]:
    """The lines of a text and the headers among them; a text without any is not split into lines at all."""
    found = candidates(text)
    if not found:
        return View([]), []
    view = View(text.split(b"\n"))
    return view, list(_headers(view, text, found))


def view_lines(lines: Sequence[KmsgLine]) -> tuple[View, list[tuple[int, Header, Line]]]:
    """The same of lines that are parsed already."""
    raw = [line.text for line in lines]
    text = b"\n".join(raw)
    view = View(raw, lines)
    return view, list(_headers(view, text, candidates(text)))


def _headers(view: View, text: bytes, found: list[tuple[int, bytes]]) -> Iterator[tuple[int, Header, Line]]:
    """Index, header and message of each line that is a header."""
    index, at = 0, 0
    position = 0
    while position < len(found):
        offset = found[position][0]
        index += text.count(b"\n", at, offset)
        at = offset
        end = text.find(b"\n", offset)
        end = len(text) if end < 0 else end
        anchors = []
        while position < len(found) and found[position][0] < end:
            anchors.append(found[position][1])
            position += 1
        line = view[index]
        if line.foreign:
            continue
        header = match_header(line.text, anchors)
        if (
            header is None
            and b"[" in line.text
            and (inner := split_message(line, line.text.find(anchors[0]))) is not line
        ):
            line = inner
            header = match_header(line.text, anchors)
        if header is not None and not _names_process(view, index, line):
            yield index, header, line


# A process names itself, up to 15 bytes (prctl(2), PR_SET_NAME), and lines of the kernel's about it begin with that, or
# with what is behind a newline in it: "%s[%d]: segfault at" (x86), "%s[%d]: unhandled" (arm64, RISC-V), "%s: unhandled"
# (ARM), "%s: page allocation failure", "%s (%d): ".  What the name says is no report.  "[80004000] *pgd=" is no name.
_AFTER_NAME = rb"(?:\[[1-9][0-9]{0,9}\](?::| (?!\*p))|: unhandled |: page allocation failure| \([0-9]{1,10}\): )"
_NAME = re.compile(rb"[^\n]{0,15}?" + _AFTER_NAME)
_REST_OF_NAME = re.compile(_AFTER_NAME)


def _names_process(view: View, index: int, line: Line) -> bool:
    """Whether a line begins with a process's name, which may be anything, and not with the kernel's words."""
    behind = view.text(index + 1) if index + 1 < len(view) else b""
    return _NAME.match(line.text) is not None or _REST_OF_NAME.match(behind) is not None


def find_reports(view: View, headers: list[tuple[int, Header, Line]]) -> list[Report]:
    """The reports of a log, in order; panics that only say that one was fatal belong to it."""
    reports: list[Report] = []
    for index, header, line in headers:
        if header.role is Role.PANIC:
            _take_panic(reports, index, header, line)
        elif not _belongs(view, reports, index, header, line):
            reports.append(Report(header, index, index, index + 1, line, trapped=header.role is Role.TRAP))
    _set_bounds(view, reports)
    _mark_chains(reports)
    return reports


def lost_report(view: View, text: bytes) -> Report | None:
    """The report that a dump was made for and whose first line is in another part; None if *text* is no dump."""
    found = split_dump_header(text[:LONGEST_HEADER]).header
    kind = {"Panic": "panic", "Oops": "oops"}.get("" if found is None else found.reason)
    if found is None or kind is None:
        return None
    title = Line(f"{found.reason}#{found.count} Part{found.part}".encode(), None, None)
    return Report(
        Header(kind, Role.REPORT, {}),
        first=0,
        at=0,
        last=min(len(view), LONGEST),
        line=title,
        panicked_at=0 if kind == "panic" else None,
        headless=True,
        damaged=["the first line of its report is not in this part of the dump"],
    )


def _same_writer(one: Line, other: Line) -> bool:
    return one.caller is None or other.caller is None or one.caller == other.caller


def _belongs(view: View, reports: list[Report], index: int, header: Header, line: Line) -> bool:
    """Whether a header is only another line of the report before it."""
    for report in reversed(reports[-4:]):
        if report.panicked_at is not None and report.panicked_at == report.at:
            return False
        if not _same_writer(report.line, line):
            continue
        distance = index - report.at
        explains = header.role is Role.TRAP and report.kind in _DIES and distance <= TRAP_WITHIN
        if explains and not (report.trapped and _has_trace(view, report.at, index)):
            report.trapped = True
            return True
        if header.kind == report.kind and header.kind in _MERGED and report.panicked_at is None:
            if header.kind in ("oom", "other", "mce"):
                return distance <= LONGEST
            return distance <= SAME_WITHIN and not _has_trace(view, report.at, index)
        return False
    return False


def _has_trace(view: View, first: int, last: int) -> bool:
    return next(view.holding(b"+0x", first + 1, last), None) is not None


# -- panics


def _take_panic(reports: list[Report], index: int, header: Header, line: Line) -> None:
    words = header.groups.get("words", b"")
    meaning = understand(words)
    if meaning.is_tail:
        cause = _cause(reports, meaning, index, line, words)
        if cause is not None:
            cause.tails.append(words)
            cause.panicked_at = index
            return
    report = Report(header, index, index, index + 1, line, words=meaning, panicked_at=index)
    if meaning.is_tail:
        report.headless = True
        report.damaged.append("the report that it belongs to is not in the log, or has lost its beginning")
    reports.append(report)


def _cause(reports: list[Report], words: Words, index: int, line: Line, text: bytes) -> Report | None:
    """The report a tail belongs to: of the tail's own kind where it has one; the first of an unbroken chain.

    A warning is the cause only of a panic that says so.
    """
    fitting = [
        r
        for r in reports[-CAUSES:]
        if (r.kind == words.kind if words.kind != "panic" else words.warned or r.kind != "warning")
        and not (r.words is not None)
    ]
    if not fitting:
        return None
    at = len(fitting) - 1
    if text.startswith((b"Attempted", b"Aiee")) and not (fitting[at].trapped and _soon(fitting[at], index, line)):
        return None
    while at > 0 and _follows_at_once(fitting[at - 1], fitting[at]):
        at -= 1
    return fitting[at]


def _soon(report: Report, index: int, line: Line) -> bool:
    """Whether the panic came of the report: a task that dies takes its time to say why."""
    if report.line.time_ns is None or line.time_ns is None:
        return index - report.at <= DYING_LINES
    return 0 <= line.time_ns - report.line.time_ns <= 20 * CHAIN_NS


def _follows_at_once(earlier: Report, later: Report) -> bool:
    if earlier.line.time_ns is None or later.line.time_ns is None:
        return False
    return later.line.time_ns - earlier.line.time_ns < CHAIN_NS


def _mark_chains(reports: list[Report]) -> None:
    """A report that follows another at once is no disaster of its own."""
    for earlier, later in pairwise(reports):
        later.principal = not _follows_at_once(earlier, later)


# -- bounds


def _set_bounds(view: View, reports: list[Report]) -> None:
    starts = [r.at for r in reports]
    cut: list[tuple[Report, Report]] = []
    for n, report in enumerate(reports):
        previous = reports[n - 1].at if n else -1
        report.first = _prelude(view, report, previous)
    for n, report in enumerate(reports):
        if report.headless:
            report.first = max(reports[n - 1].at + 1 if n else 0, report.at - DYING_LINES)
        limit = min(len(view), report.at + LONGEST)
        following = next(
            (r for r in reports[n + 1 : n + 9] if r.at < limit and _same_writer(r.line, report.line)), None
        )
        if following is not None:
            limit = following.first
            if following.at - report.at < CUT_WITHIN and following.kind != "panic":
                report.damaged.append("another report begins within it")
                cut.append((report, following))
        elif len(reports) > n + 9:
            limit = min(limit, starts[n + 9])
        report.last = _end(view, report, limit)
    for report, following in cut:
        report.reach = following.last


def _prelude(view: View, report: Report, previous: int) -> int:
    first = report.at
    while first - 1 > previous and report.at - first < PRELUDE_LINES:
        if not _PRELUDE.match(view.text(first - 1)) or not _same_writer(view[first - 1], report.line):
            break
        first -= 1
    return first


def is_end(text: bytes) -> bool:
    """Whether a line is the last of a report."""
    return _END.match(text) is not None


def _end(view: View, report: Report, limit: int) -> int:
    """Behind the report's last line: at its end mark, else where it must have ended."""
    marks = set(view.holding(b"---[ end ", report.at + 1, limit))
    if report.kind in _CLOSED:
        marks.update(view.holding(b"==========", report.at + 1, limit))
    for i in sorted(marks):
        line = view[i]
        if line.foreign or not _same_writer(line, report.line):
            continue
        if is_end(line.text):
            report.ended = True
            # x86: once more where the one was that died first
            summary = i + 1 < limit and view.text(i + 1).startswith(b"RIP: ")
            return i + 2 if summary else i + 1
        if report.kind in _CLOSED and _RULE.match(line.text):
            report.ended = True
            return i + 1
    return max(limit, report.at + 1)


def lines_of(view: View, report: Report, *, reach: bool = False) -> Iterator[tuple[int, bytes | list[FrameWords]]]:
    """The lines of a report by their indices, as texts, or as the words of what is nothing but a frame.

    Those of other tasks and CPUs are left out where the log tells.

    Args:
        view: the log.
        report: the report.
        reach: go on into the report that cut this one short.
    """
    caller = report.line.caller
    stalls = report.kind in _STALLS

    def is_ours(writer: str | None) -> bool:
        # in a stall, the other CPUs answer with their traces
        return writer == caller or (stalls and writer is not None and writer.startswith("C"))

    before = range(report.first, report.at) if report.headless else ()
    head = [(i, line.text) for i in before if _same_writer(line := view[i], report.line)]
    last = max(report.last, report.reach) if reach else report.last
    body = view.messages(report.at + 1, last, None if caller is None else is_ours)
    return chain(head, [(report.at, report.line.text)], body)
