# SPDX-License-Identifier: Apache-2.0
"""Lines of the kernel log, as dumps (``<6>[    1.234567] text``) and consoles (``[    1.234567] text``) have them.

Source: kernel/printk/printk.c, info_print_prefix(): ``<facility * 8 + level>``, then ``[%5lu.%06lu]`` with
printk.time, then ``[%6s]`` holding ``T<tid>`` or ``C<cpu>`` with CONFIG_PRINTK_CALLER, then a space if either stood.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

#   line = ["<" priority ">"] ["[" *SP seconds "." usec "]"] ["[" *SP ("T" / "C") number "]"] [SP] text
_LINE = re.compile(
    rb"(?:<([0-9]{1,5})>)?(?:\[ {0,4}([0-9]{1,10})\.([0-9]{6})\])?(?:\[ {0,5}([TC][0-9]{1,10})\])?( ?)([^\n]*)"
)


class KmsgLine(NamedTuple):
    """One line of the kernel log; ``None`` is what the line does not say."""

    level: int | None
    """0 (emergency) to 7 (debug)."""
    facility: int | None
    """0 is the kernel; anything else was written by user space through /dev/kmsg."""
    time_ns: int | None
    """Nanoseconds since that boot began, at the resolution of microseconds; None with printk.time=0."""
    caller: str | None
    """``T<thread>`` or ``C<cpu>`` with CONFIG_PRINTK_CALLER."""
    continuation: bool
    """No prefix at all, after a line that had one: the rest of that message, or a line cut by a zone's wrap."""
    text: bytes
    offset: int
    """Where the line begins in the text it was read from."""


def gap_line(what: str) -> bytes:
    """A line of ours within a kernel's text, where something of it is missing."""
    return f"--- pstored: {what} ---\n".encode()


def parse_kmsg(text: bytes) -> Iterator[KmsgLine]:
    """Give the lines of a log in order; every byte of it is in one of them, but for the newlines."""
    at = 0
    prefixed = False
    end = len(text)
    while at < end:
        found = _LINE.match(text, at)
        # the pattern matches the empty string, so it always matches
        assert found is not None
        priority, seconds, micros, caller, space, rest = found.groups()
        bare = priority is None and seconds is None and caller is None
        if seconds is None and caller is None and space:
            rest = b" " + rest  # the space belongs to the prefix only where there is a time or a caller
        yield KmsgLine(
            level=None if priority is None else int(priority) & 7,
            facility=None if priority is None else int(priority) >> 3,
            time_ns=None if seconds is None else int(seconds) * 1_000_000_000 + int(micros) * 1000,
            caller=None if caller is None else caller.decode(),
            continuation=bare and prefixed,
            text=rest.removesuffix(b"\r"),
            offset=at,
        )
        prefixed = prefixed or not bare
        at = found.end() + 1
