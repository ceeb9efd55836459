# SPDX-License-Identifier: Apache-2.0
"""A kernel log as a set of lines, for the one question: are these two logs of the same boot?

Timestamps have microseconds, so two logs of one boot agree line by line wherever they overlap, and logs of two boots
do not; except for the lines at 0.000000 and, on boards whose early clock ticks in milliseconds, the first lines of
every boot.  So what counts is the share of equal lines within the overlap.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from pstored.parse.kmsg import KmsgLine, parse_kmsg

_BANNER = re.compile(rb"Linux version (\S+) [^\n]*?(#\d+[^\n]*)")
# CPU: 1 PID: 83 Comm: init Tainted: G      D            6.1.192-pstorelab #1
_OOPS_RELEASE = re.compile(rb"CPU: \d+ (?:UID: \d+ )?PID: \d+ Comm: [^\n]*? (\d+\.\d+\S*) (#\d+[^\n]*)")
_CMDLINE = re.compile(rb"(?:Kernel command line|Command line): ([^\n]*)")
_HARDWARE = re.compile(rb"(?:Hardware name|DMI|Machine model): ([^\n]*)")

SAME = 0.95
"""Of the shorter log's lines in the overlap, so many are in the other, too: one boot (consoles lose a line or two)."""
DIFFERENT = 0.5
"""Fewer than so many: two boots.  In between nothing is said."""
MIN_LINES = 3
"""An overlap of fewer lines says nothing."""


class Log:
    """One log text; everything is worked out when first asked for."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    @cached_property
    def lines(self) -> list[KmsgLine]:
        """Its lines, in order."""
        return list(parse_kmsg(self.text))

    @cached_property
    def _timed(self) -> set[tuple[int, bytes]]:
        # those at 0.000000 are the same in every boot
        return {(line.time_ns, line.text) for line in self.lines if line.time_ns}

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
        mine = [key for key in self._timed if first <= key[0] <= last]
        theirs = [key for key in other._timed if first <= key[0] <= last]
        fewer, more = (mine, other._timed) if len(mine) <= len(theirs) else (theirs, self._timed)
        if len(fewer) < MIN_LINES:
            return None
        share = sum(key in more for key in fewer) / len(fewer)
        if share >= SAME:
            return True
        return False if share < DIFFERENT else None

    def stamps(self, prefix: str) -> list[tuple[str, int | None]]:
        """Boot ids that stamp lines name, with the line's time; in order."""
        wanted = prefix.encode()
        found = []
        for line in self.lines:
            if line.text.startswith(wanted) and line.facility != 0:
                boot_id = line.text[len(wanted) :].strip()
                if _BOOT_ID.fullmatch(boot_id):
                    found.append((boot_id.decode(), line.time_ns))
        return found

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
