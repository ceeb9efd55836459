# SPDX-License-Identifier: Apache-2.0
"""A kernel log as a set of lines, for the one question: are these two logs of the same boot?

Timestamps have microseconds, so two logs of one boot agree line by line wherever they overlap, and logs of two boots
do not; except for the lines at 0.000000 and, on boards whose early clock ticks in milliseconds, the first lines of
every boot.  So what counts is the share of equal lines within the overlap.
"""

import re
from calendar import timegm
from dataclasses import dataclass
from functools import cached_property, lru_cache
from time import strptime

from pstored.oops import Event, Severity, find_reports
from pstored.parse.kmsg import KmsgLine, parse_kmsg

_BANNER = re.compile(rb"Linux version (\S{1,100}) [^\n]{0,600}?(#\d{1,6}[^\n]{0,200})")
# CPU: 1 PID: 83 Comm: init Tainted: G      D            6.1.192-pstorelab #1
_OOPS_RELEASE = re.compile(
    rb"CPU: \d{1,5} (?:UID: \d{1,10} )?PID: \d{1,10} Comm: [^\n]{1,32}? "
    rb"(?:Kdump: loaded )?(?:Not tainted|Tainted: [^\n]{1,200}?) {1,12}"
    rb"(\d{1,3}\.\d{1,4}[^\s]{0,80}) (#\d{1,6}[^\n]{0,200})"
)
_CMDLINE = re.compile(rb"(?:Kernel command line|Command line): ([^\n]*)")
_HARDWARE = re.compile(rb"(?:Hardware name|DMI|Machine model): ([^\n]*)")

SAME = 0.95
"""Of the shorter log's lines in the overlap, so many are in the other, too: one boot (consoles lose a line or two)."""
DIFFERENT = 0.5
"""Fewer than so many: two boots.  In between nothing is said."""
MIN_LINES = 3
"""An overlap of fewer lines says nothing."""
EARLY_NS = 50_000_000
"""What is logged before is the same in every boot of some boards, to the microsecond."""
COARSE_NS = 1_000_000
"""Times that are whole milliseconds come from a clock that ticks so: every boot may show the same."""
MAX_LINES = 100_000
"""Of a longer log only the last so many lines are looked at: 20 times what a ring of 512 KiB holds."""
KEPT_LINES = 20_000
"""Of logs with more, those of one at a time are kept: a line takes a hundred bytes, and a store may hold any number of
such logs."""
EARLIEST_S = 1_262_304_000
"""2010-01-01: no kernel with pstore is older, so no clock that is right says less."""


_TIME = re.compile(rb"^(?:<[0-9]{1,5}>)?\[ {0,4}([0-9]{1,10})\.([0-9]{6})\]", re.MULTILINE)
_EDGE = 4096
"""Bytes at each end of a text in which a line with a time must stand."""


def edge_times(text: bytes) -> tuple[int | None, int | None]:
    """Times since boot of the first and of the last line that have one near the text's ends, nanoseconds."""
    first = _TIME.search(text, 0, _EDGE)
    last = None
    for last in _TIME.finditer(text, max(0, text.rfind(b"\n", 0, max(0, len(text) - _EDGE)))):  # noqa: B007
        pass
    times = [None if m is None else int(m[1]) * 10**9 + int(m[2]) * 1000 for m in (first, last)]
    return times[0], times[1]


class Log:
    """One log text; everything is worked out when first asked for."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._lines: list[KmsgLine] | None = None

    @property
    def lines(self) -> list[KmsgLine]:
        """Its lines, in order; of a very long log, the last."""
        if self._lines is not None:
            return self._lines
        if self.text.count(b"\n") > KEPT_LINES:
            return _parse_long(self.text)
        self._lines = list(parse_kmsg(self.text))
        return self._lines

    @cached_property
    def distinctive(self) -> frozenset[tuple[int, bytes]]:
        """Lines with a time that hardly another boot's line has: nanoseconds since boot, and text; the last of many."""
        return frozenset(
            (line.time_ns, line.text)
            for line in self.lines[-KEPT_LINES:]
            if line.time_ns is not None and line.time_ns > EARLY_NS and line.time_ns % COARSE_NS
        )

    @cached_property
    def reports(self) -> list[Event]:
        """Everything that the kernel reports in it, warnings included, in order."""
        return find_reports(self.lines)

    @property
    def events(self) -> list[Event]:
        """All crashes that it tells of, in order."""
        return [report for report in self.reports if report.severity is not Severity.WARNING]

    @property
    def event(self) -> Event | None:
        """What the log's last panic or report says; None if it shows no crash."""
        return next(reversed(self.events), None)

    @cached_property
    def span(self) -> tuple[int, int] | None:
        """Earliest and latest time since boot, nanoseconds; None without timestamps."""
        times = [line.time_ns for line in self.lines if line.time_ns is not None]
        return (min(times), max(times)) if times else None

    def same_boot(self, other: "Log") -> bool | None:
        """Whether both are of one boot; None if their texts cannot tell."""
        if self.span is None or other.span is None:
            return None
        first, last = max(self.span[0], other.span[0]), min(self.span[1], other.span[1])
        mine = [key for key in self.distinctive if first <= key[0] <= last]
        theirs = [key for key in other.distinctive if first <= key[0] <= last]
        fewer, more = (mine, other.distinctive) if len(mine) <= len(theirs) else (theirs, self.distinctive)
        if len(fewer) < MIN_LINES:
            return None
        share = sum(key in more for key in fewer) / len(fewer)
        if share >= SAME:
            return True
        return False if share < DIFFERENT else None

    def stamps(self, prefix: str) -> list[str]:
        """Boot ids that stamp lines name, in order, each once."""
        wanted = prefix.encode()
        found: dict[str, None] = {}
        at = self.text.find(wanted) if wanted else -1
        while at >= 0:
            start = self.text.rfind(b"\n", 0, at) + 1
            end = self.text.find(b"\n", at)
            line = self.text[start : end if end >= 0 else len(self.text)]
            boot_id = _stamped(line, wanted)
            if boot_id is not None:
                found[boot_id] = None
            at = self.text.find(wanted, at + len(line) + 1)
        return list(found)

    @cached_property
    def kernel(self) -> "Kernel":
        """What the log says of its kernel."""
        banner = _BANNER.search(self.text)
        named = banner or _OOPS_RELEASE.search(self.text)
        hardware = _HARDWARE.search(self.text)
        return Kernel(
            release=None if named is None else _decode(named[1]),
            version=None if banner is None else _decode(banner[2]),
            banner=None if banner is None else _decode(banner[0]),
            cmdline=_decode(found[1]) if (found := _CMDLINE.search(self.text)) else None,
            hardware=None if hardware is None else _decode(hardware[1]),
        )


def _stamped(line: bytes, prefix: bytes) -> str | None:
    """The boot id if the line is a stamp: the prefix at its beginning, an id behind it, and not the kernel's own."""
    if len(line) > MAX_STAMP:
        return None
    (parsed,) = parse_kmsg(line)
    boot_id = parsed.text[len(prefix) :].strip()
    if parsed.facility == 0 or not parsed.text.startswith(prefix) or not _BOOT_ID.fullmatch(boot_id):
        return None
    return boot_id.decode()


MAX_STAMP = 512
"""A stamp line is not longer, whatever the prefix."""


@lru_cache(maxsize=1)
def _parse_long(text: bytes) -> list[KmsgLine]:
    return list(parse_kmsg(_last_lines(text)))


def _last_lines(text: bytes) -> bytes:
    surplus = text.count(b"\n") - MAX_LINES
    if surplus <= 0:
        return text
    at = -1
    for _ in range(surplus):
        at = text.find(b"\n", at + 1)
    return text[at + 1 :]


_BOOT_ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The kernel that wrote a log; None is what the log does not say (its beginning is gone)."""

    release: str | None
    """As ``uname -r``."""
    version: str | None
    """As ``uname -v``."""
    banner: str | None
    cmdline: str | None
    hardware: str | None


def _decode(text: bytes) -> str:
    return text.decode(errors="backslashreplace").strip()


# #1 SMP PREEMPT_DYNAMIC Mon Nov 23 04:07:06 UTC 2026 | ... Debian 6.1.192-1 (2026-11-20)
_BUILT_LONG = re.compile(r"([A-Z][a-z]{2}) +(\d{1,2}) (\d\d:\d\d:\d\d) (?:[A-Z]{2,5} )?(\d{4})\b")
_BUILT_DEBIAN = re.compile(r"\((\d{4}-\d\d-\d\d)\)")


def build_time_s(banner: str) -> int | None:
    """The earliest moment at which the kernel can have been built, Unix seconds; None if its banner does not say."""
    for pattern, form in ((_BUILT_LONG, "%b %d %H:%M:%S %Y"), (_BUILT_DEBIAN, "%Y-%m-%d")):
        if found := pattern.search(banner):
            try:
                # the earliest moment it can mean: some builders do not use UTC
                return timegm(strptime(" ".join(found.groups()), form)) - 14 * 3600
            except ValueError:
                continue
    return None


_ORDERLY_END = re.compile(rb"reboot: (?:Restarting system|Power down|System halted)|kexec_core: Starting new kernel")
_END_LINES = 12
"""Drivers still log some lines behind the last words."""


def ends_orderly(log: Log) -> bool:
    """Whether a console's last lines are those of a shutdown: kernel/reboot.c, kernel_restart() and its like."""
    return any(_ORDERLY_END.match(line.text) for line in log.lines[-_END_LINES:])
