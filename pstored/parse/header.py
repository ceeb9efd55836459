# SPDX-License-Identifier: Apache-2.0
"""The lines that stand before the text of a dmesg record.

Source: fs/pstore/platform.c, pstore_dump(); fs/pstore/ram.c (the ``====`` line, inside the file up to 3.10);
fs/pstore/zone.c, psz_kmsg_recover_data() (``Panic: Total 3 times``, uncompressed records of pstore_blk only).
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

#   record = ["====" sec "." usec ["-" ("C" / "D")] LF] [reason ": Total " n " times" LF]
#            reason "#" count " Part" part LF text
_REASON = rb"Panic|Oops|Emergency|Shutdown|Restart|Halt|Poweroff|Kexec|Unknown"
_TIME_LINE = re.compile(rb"====([0-9]{1,19})\.([0-9]{1,9})(?:-[CD])?\n")
_TOTAL_LINE = re.compile(rb"(?:" + _REASON + rb"): Total [0-9]{1,10} times\n")
_HEADER = re.compile(rb"(" + _REASON + rb")#([0-9]{1,20}) Part ?([0-9]{1,20})\n")

SHUTDOWN_REASONS = frozenset(("Shutdown", "Restart", "Halt", "Poweroff", "Kexec"))
"""Reasons that are an orderly end: no crash."""


@dataclass(frozen=True, slots=True)
class DumpHeader:
    """``Panic#2 Part1``."""

    reason: str
    """``Panic``, ``Oops``, ``Emergency``, ``Unknown``, ``Shutdown``; before 5.8 ``Restart``, ``Halt``, ``Poweroff``."""
    count: int
    """Dumps since that boot began, this one included; all reasons share the counter."""
    part: int
    """Position in the dump, from 1; **part 1 is the newest text**."""


class DmesgText(NamedTuple):
    """A dmesg record taken apart; nothing but these lines is dropped."""

    header: DumpHeader | None
    time_ns: int | None
    """From the ``====`` line, nanoseconds since 1970 by the crashed boot's clock; None where there is none."""
    text: bytes


def split_dump_header(record: bytes) -> DmesgText:
    r"""Split a dmesg record, decompressed and without its ECC notice, into header and text.

    Args:
        record: e.g. ``b"Panic#1 Part2\n<6>[    1.200000] ..."``.

    Returns:
        The parts; with no header (vendors, the nvram fallback, damage) all is text.
    """
    at = 0
    time_ns = None
    if found := _TIME_LINE.match(record):
        at = found.end()
        time_ns = int(found[1]) * 1_000_000_000 + int(found[2]) * 1000
    if found := _TOTAL_LINE.match(record, at):
        at = found.end()
    found = _HEADER.match(record, at)
    if found is None:
        return DmesgText(None, time_ns, record[at:])
    header = DumpHeader(found[1].decode(), int(found[2]), int(found[3]))
    return DmesgText(header, time_ns, record[found.end() :])
