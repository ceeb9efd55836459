# SPDX-License-Identifier: Apache-2.0
"""Wall-clock times that a logger puts before each line of a console: taken off, and told.

Nobody but the logger's own configuration says which form they have, so it is told by the lines themselves::

    [2026-11-23 04:18:57] text      [2026-11-23T04:18:57.123+0100] text       minicom, tio
    2026/11/23 04:18:57 text        2026-11-23T04:18:57.123456Z text          ser2net; containers
    Nov 23 04:18:57 text            [Mon Nov 23 04:18:57 2026] text           ts(1); conserver, dmesg -T
    04:18:57.123 text               1795407537.123456 text                    tio; ts %.s
    [12.345678 0.000123] text       Nov 23 04:18:57 host kernel: text         grabserial; syslog
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

_CLOCK = rb"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?"
_STAMP = re.compile(
    rb"\[?(?:(?P<date>[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}[T ]" + _CLOCK + rb")(?P<zone> ?(?:Z|[+-][0-9]{2}:?[0-9]{2}))?"
    rb"|(?:[A-Z][a-z]{2} )?(?P<ctime>[A-Z][a-z]{2} {1,2}[0-9]{1,2} " + _CLOCK + rb"(?: [0-9]{4}(?![0-9]))?)"
    rb"|(?P<epoch>1[0-9]{9}\.[0-9]{1,9})|" + _CLOCK + rb"|[0-9]{1,7}\.[0-9]{6} [0-9]{1,7}\.[0-9]{6})"
    rb"(?:\][: ]?|[:|]? |\t)"
)
_TAG = re.compile(rb"[^ :\[\]]{1,64} (?:(kernel: ?)|[^ :\[\]]{1,64}(?:\[[0-9]{1,10}\])?: )")
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_NUMBER = re.compile(rb"[0-9]{1,9}")
LONGEST = 128
"""Bytes in which a stamp and syslog's tag end."""
SAMPLE = 400
"""Lines by which is judged whether a log has stamps."""


class Stamped(NamedTuple):
    """One line."""

    text: bytes
    """Without the stamp."""
    time_ns: int | None
    """Nanoseconds since 1970; without a zone, as if it were UTC; None if it has no date, or no year."""
    words: bytes = b""
    """The stamp itself."""
    zoned: bool = False
    """It says its zone."""


def split_stamp(line: bytes) -> Stamped:
    """Take the stamp off a line, if it has one; with it syslog's host and tag, if they are the kernel's."""
    found = _STAMP.match(line, 0, LONGEST)
    if found is None:
        return Stamped(line, None)
    tag = _TAG.match(line, found.end(), found.end() + LONGEST)
    end = found.end() if tag is None or tag[1] is None else tag.end()
    zoned = found["zone"] is not None or found["epoch"] is not None
    return Stamped(line[end:], _time(found), found[0].strip(b"[]:| \t"), zoned)


def is_of_syslog(line: bytes) -> bool:
    """Whether a line is of syslog, and not the kernel's: it stays as it is, since its tag says whose it is."""
    found = _STAMP.match(line, 0, LONGEST)
    tag = None if found is None else _TAG.match(line, found.end(), found.end() + LONGEST)
    return tag is not None and tag[1] is None


class Style(NamedTuple):
    """How the lines of one log begin."""

    stamped: bool
    """Most have a stamp."""
    syslog: bool
    """They are of syslog, which logs programs, too."""

    def split(self, line: bytes) -> Stamped:
        """One line of it."""
        if not self.stamped or (self.syslog and is_of_syslog(line)):
            return Stamped(line, None)
        return split_stamp(line)


def style_of(lines: Sequence[bytes]) -> Style:
    """Judge by some lines, from all over the log."""
    full = [line for line in lines[:: max(1, len(lines) // SAMPLE)] if line]
    found = [m for line in full if (m := _STAMP.match(line, 0, LONGEST)) is not None]
    tags = [_TAG.match(m.string, m.end(), m.end() + LONGEST) for m in found]
    return Style(2 * len(found) > len(full), any(tag is not None and tag[1] is not None for tag in tags))


def _time(found: re.Match[bytes]) -> int | None:
    """What a stamp says; None if that is no date, or one without a year."""
    date, ctime, epoch = found["date"], found["ctime"], found["epoch"]
    if epoch is not None:
        return _ns(int(epoch.partition(b".")[0]), epoch.partition(b".")[2])
    numbers = [] if date is None else _NUMBER.findall(date)
    if ctime is not None and ctime[:3] in _MONTHS:
        day, *clock = _NUMBER.findall(ctime)
        year = clock.pop() if len(clock[-1]) == 4 and ctime[-5:-4] == b" " else b"0"
        numbers = [year, _MONTHS.index(ctime[:3]) + 1, day, *clock]
    try:
        moment = datetime(*(int(n) for n in numbers[:6]), tzinfo=UTC)  # type: ignore[arg-type, misc]  # six numbers
    except (TypeError, ValueError):
        return None
    return _ns(int(moment.timestamp()) - _offset_s(found["zone"]), numbers[6] if len(numbers) > 6 else b"")


def _ns(seconds: int, fraction: bytes) -> int | None:
    return seconds * 10**9 + int(fraction.ljust(9, b"0")) if seconds > 0 else None


def _offset_s(zone: bytes | None) -> int:
    """East of UTC."""
    digits = b"" if zone is None else zone.strip(b" Z+-").replace(b":", b"")
    if zone is None or not digits:
        return 0
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -seconds if b"-" in zone else seconds
