# SPDX-License-Identifier: Apache-2.0
"""What happened, from the kernel's own words: every report of a log as an event.

::

    lines      prefixes off            headers    what begins a report, of which kind
    reports    where it ends, tails    panics     what a panic's words mean
    details    its traces and facts    frames, facts
    blame      whom to blame           helpers, entries, names
    events     all of it               signature, kinds

It names what the log says and nothing that it does not say; a log with no report gives no event.  Any bytes give
events, never an error.  Time is linear in the text, and a text without a report is only searched, not split.
"""

import gc
from collections.abc import Sequence

from pstored.oops.events import make_event
from pstored.oops.facts import explain_taint
from pstored.oops.keys import EventKey, event_keys, is_finished
from pstored.oops.kinds import KINDS
from pstored.oops.model import Event, Frame, Severity, Stack
from pstored.oops.reports import LONGEST, Report, lost_report, view_lines, view_text
from pstored.oops.reports import find_reports as split_reports
from pstored.oops.view import View
from pstored.parse.kmsg import KmsgLine

__all__ = [
    "KINDS",
    "LONGEST",
    "Event",
    "EventKey",
    "Frame",
    "Severity",
    "Stack",
    "analyze",
    "event_keys",
    "explain_taint",
    "find_events",
    "find_reports",
    "is_finished",
    "principal",
]


def analyze(text: bytes) -> list[Event]:
    """Every report of a log, in order, warnings included.

    Args:
        text: any log: of the kernel, of syslog or journald, of a serial line, or no log at all.
    """
    view, headers = view_text(text)
    reports = split_reports(view, headers)
    if not reports and text.startswith((b"Panic", b"Oops", b"====")):
        view = View(text.split(b"\n"))
        lost = lost_report(view, text)
        reports = [] if lost is None else [lost]
    return _make_events(view, reports)


def principal(events: Sequence[Event]) -> Event | None:
    """What the log is about: its first report.  What comes after may have come of it."""
    return next(iter(events), None)


def find_events(lines: Sequence[KmsgLine]) -> list[Event]:
    """All crashes that the log tells of, in order; a panic that only says "fatal" is one with the report before it.

    A warning alone is no crash: the machine went on.
    """
    return [e for e in find_reports(lines) if e.severity is not Severity.WARNING]


def find_reports(lines: Sequence[KmsgLine]) -> list[Event]:
    """The same, and the warnings before them."""
    view, headers = view_lines(lines)
    reports = split_reports(view, headers)
    fatal = [r for r in reports if r.panicked_at is not None]
    if fatal:
        last = max(fatal, key=lambda r: r.panicked_at or 0)
        reports = [r for r in reports if r.first < last.first] + [last]
    return _make_events(view, reports)


def _make_events(view: View, reports: Sequence[Report]) -> list[Event]:
    """The events of all reports.

    Python's collector is off meanwhile: it would go through all frames again and again, one time in twelve, and find
    nothing, since none of what is made here refers to itself.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return [make_event(view, report) for report in reports]
    finally:
        if collects:
            gc.enable()
