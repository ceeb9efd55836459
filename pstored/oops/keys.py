# SPDX-License-Identifier: Apache-2.0
"""What makes an event of one text the same as that of another: dump, console, journal, the running kernel's log."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pstored.oops.model import Event, Severity
from pstored.oops.reports import LONGEST, is_end
from pstored.parse.kmsg import KmsgLine


class EventKey(NamedTuple):
    """What tells one event of a boot from its others, and is the same in every text that holds it."""

    severity: Severity
    time_ns: int | None
    """Of its header; None where the lines have no times, or the kernel says the same again and again."""
    header: bytes
    """Its first line; without its numbers if the kernel says it again and again."""
    number: int
    """Without times: how many-th of those with this header."""


_REPEATED = frozenset(("soft-lockup", "hard-lockup", "rcu-stall", "hung-task", "workqueue-lockup"))
"""Reports of a state that lasts: repeated every 20 to 120 s, with another number of seconds in them."""
_NUMBER = re.compile(rb"[0-9]{1,20}")


def event_keys(lines: Sequence[KmsgLine], events: Sequence[Event]) -> list[EventKey]:
    """The keys of a log's events, in their order."""
    keys: list[EventKey] = []
    untimed: Counter[bytes] = Counter()
    for event in events:
        line = lines[event.header]
        if event.kind in _REPEATED:
            keys.append(EventKey(event.severity, None, _NUMBER.sub(b"", line.text), 0))
            continue
        if line.time_ns is None:
            untimed[line.text] += 1
        keys.append(EventKey(event.severity, line.time_ns, line.text, untimed[line.text]))
    return keys


def is_finished(lines: Sequence[KmsgLine], event: Event) -> bool:
    """Whether the log goes to the end of a report: it has its last line, or as many as any has."""
    last = lines[event.last - 1]
    return event.header + LONGEST <= len(lines) or (not last.facility and is_end(last.text))
