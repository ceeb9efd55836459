# SPDX-License-Identifier: Apache-2.0
"""A crashed kernel's log as journald would have kept it, in the Journal Export Format.

Source: systemd, JOURNAL_EXPORT_FORMATS.md (the format) and src/journal/journald-kmsg.c, dev_kmsg_record() (the fields).
Pure: text in, entries out.

Limits: a line without a time before the first that has one is left out, since nothing says when it was logged; so is
everything of a kernel that prints no times.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, NamedTuple

from pstored.parse.kmsg import parse_kmsg

MAX_LINES = 20_000
"""Of a longer log only the last so many lines: more than a kernel's ring holds (CONFIG_LOG_BUF_SHIFT, 17 on most)."""
MAX_USEC = 1 << 55
"""Larger times are none to the journal (VALID_REALTIME, VALID_MONOTONIC in systemd)."""

LAST_LINES = 16
"""One of them is the last that was logged, whatever is damaged."""

_OURS = b"--- pstored: "
"""Begins a line of ours within a kernel's text, where something is missing (pstored.crashes.dumps)."""

# identifier ["[" pid "]"] ":" SP message            src/journal/journald-syslog.c, syslog_parse_identifier()
_IDENTIFIER = re.compile(rb"[ \t]*([^ \t]{1,256}?)(?:\[([^] \t[]{0,64})\])?:(?:[ \t]|$)")


class Line(NamedTuple):
    """One line of the kernel log."""

    time_us: int
    """Microseconds since that boot began, by the line or, where it has no time, by the line before."""
    timed: bool
    """Whether the time is its own."""
    level: int | None
    facility: int | None
    """None: the text does not say (a console has no ``<N>``)."""
    text: bytes
    """As in the log; journald keeps an identifier at its beginning in a field of its own."""

    def split(self) -> tuple[bytes | None, bytes | None, bytes]:
        """Identifier, pid and message, as journald takes them apart for lines that user space wrote."""
        if not self.facility:
            return b"kernel", None, self.text
        found = _IDENTIFIER.match(self.text)
        return (None, None, self.text) if found is None else (found[1], found[2], self.text[found.end() :])


def comparable(text: bytes) -> bytes:
    r"""A line's text so that what a log and the journal have of one line is equal.

    What journald and its readers lose: ``\r`` at the end, blanks around an identifier.  What it adds: a NUL stays the
    escape that it is in /dev/kmsg.  Who logged it does not matter, since journald's fields do not always say.
    """
    text = text.rstrip(b"\r").replace(b"\0", rb"\x00")
    found = _IDENTIFIER.match(text)
    if found is None:
        return text
    pid = b"" if found[2] is None else b"[%s]" % found[2]
    return b"%s%s: %s" % (found[1], pid, text[found.end() :])


class Placed(NamedTuple):
    """A line, and where it belongs in the journal."""

    line: Line
    monotonic_us: int


class Origin(NamedTuple):
    """What all lines of one boot share."""

    crash_id: str
    boot_id: str
    """With or without dashes."""
    machine_id: str | None
    hostname: str | None
    offset_us: int
    """Wall time at which the boot began: what is added to a monotonic time, both in microseconds."""
    earliest_us: int = 0
    latest_us: int = MAX_USEC - 1
    """No line gets a wall time before the one or after the other."""


def kernel_lines(text: bytes) -> list[Line]:
    """The lines of a log, the last :data:`MAX_LINES`, without those of ours."""
    found: list[Line] = []
    time_us = None
    for line in parse_kmsg(text):
        if line.time_ns is not None:
            time_us = line.time_ns // 1000
        if time_us is None or time_us >= MAX_USEC or (line.time_ns is None and line.text.startswith(_OURS)):
            continue
        found.append(Line(time_us, line.time_ns is not None, line.level, line.facility, line.text))
    return found[-MAX_LINES:]


def clock_offset_us(crash: dict[str, Any]) -> int | None:
    """Wall time at which the crashed boot began, by crash.json; None if that does not say."""
    wall, uptime = crash["time"]["wall"], crash["time"]["uptime_s"]
    if wall is None or uptime is None:
        return None
    try:
        seconds = datetime.fromisoformat(wall).timestamp() - uptime
    except (ValueError, OverflowError):
        return None
    return int(seconds * 1e6) if seconds > 0 else None


def in_order(lines: Sequence[Line], times_us: Sequence[int] | None = None) -> list[Placed]:
    """Each line at its time, or that given for it, but none before the one above it.

    A log goes back in time: the clocks of two CPUs differ by microseconds, and early at boot the kernel changes clocks.
    A journal file must not.  No line is later than the log's end: a time of which a bit has flipped binds nobody.
    """
    times = [line.time_us for line in lines] if times_us is None else times_us
    end_us = max(times[-LAST_LINES:], default=0)
    return [Placed(line, min(latest, end_us)) for line, latest in zip(lines, accumulate(times, max), strict=True)]


def export(lines: Iterable[Placed], origin: Origin) -> Iterator[bytes]:
    """The lines as entries, each ended by an empty line."""
    shared = _field("_BOOT_ID", origin.boot_id.replace("-", ""))
    shared += _field("_TRANSPORT", "kernel")
    shared += _field("_MACHINE_ID", origin.machine_id) + _field("_HOSTNAME", origin.hostname)
    shared += _field("PSTORE_RESTORED", "1") + _field("PSTORE_CRASH_ID", origin.crash_id)
    for line, monotonic_us in lines:
        identifier, pid, message = line.split()
        wall_us = origin.offset_us + monotonic_us
        yield b"".join(
            (
                _field("__REALTIME_TIMESTAMP", min(max(wall_us, origin.earliest_us), origin.latest_us)),
                _field("__MONOTONIC_TIMESTAMP", monotonic_us),
                shared,
                _field("_SOURCE_MONOTONIC_TIMESTAMP", line.time_us),
                _field("PRIORITY", line.level),
                _field("SYSLOG_FACILITY", line.facility),
                _field("SYSLOG_IDENTIFIER", identifier),
                _field("SYSLOG_PID", pid),
                _field("MESSAGE", message),
                b"\n",
            )
        )


_NOT_TEXT = re.compile(rb"[\x00-\x08\x0a-\x1f]")


def _field(name: str, value: str | bytes | int | None) -> bytes:
    """One field; nothing for None."""
    if value is None:
        return b""
    data = value if isinstance(value, bytes) else str(value).encode()
    if _is_text(data):
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return _NOT_TEXT.search(data) is None
