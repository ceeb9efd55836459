# SPDX-License-Identifier: Apache-2.0
"""From a kernel log to dmesg records: lines with prefixes, cut into parts newest first, headed and compressed.

Source: fs/pstore/platform.c, pstore_dump(), and kernel/printk/printk.c, kmsg_dump_get_buffer().
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .compress import ALGORITHMS
from .kernels import Era, capacity
from .klog import Message

KMSG_BYTES = 10240
"""Default of pstore.kmsg_bytes: the dump stops once so many bytes are stored."""


def _prefixed(message: Message, level: bytes, *, times: bool, callers: bool) -> bytes:
    # info_print_prefix(): "<6>" "[    1.234567]" "[    T1]" " ", the blank only behind a bracket
    stamp = b"[%5d.%06d]" % divmod(message.time_us, 1_000_000) if times else b""
    caller = b"[%6s]" % message.caller.encode() if callers else b""
    prefix = level + stamp + caller + (b" " if stamp or caller else b"")
    return b"".join(prefix + line + b"\n" for line in message.text.encode().split(b"\n"))


def syslog_lines(message: Message, *, times: bool = True, callers: bool = False) -> bytes:
    """A message as dmesg records hold it, e.g. ``b"<6>[    1.234567] text\\n"``; every line has the prefix."""
    return _prefixed(message, b"<%d>" % message.level, times=times, callers=callers)


def console_lines(message: Message, *, times: bool = True, callers: bool = False) -> bytes:
    """A message as a console shows it, e.g. ``b"[    1.234567] text\\n"``."""
    return _prefixed(message, b"", times=times, callers=callers)


def console_text(messages: Iterable[Message], *, loglevel: int = 8, times: bool = True, callers: bool = False) -> bytes:
    """What went to the consoles: messages below *loglevel* (the low three bits of a level are its severity)."""
    return b"".join(
        console_lines(message, times=times, callers=callers) for message in messages if message.level % 8 < loglevel
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One record of a dump."""

    number: int
    """From 1, which holds the newest text."""
    text: bytes
    """Header and log lines, as they were before storing: what a good reader gives."""
    stored: bytes
    """The bytes in the backend."""
    compressed: bool
    """Else *stored* is text, and shorter than *text* where it did not fit."""


def header(reason: bytes, count: int, part: int) -> bytes:
    """First line of every dmesg record, e.g. ``b"Panic#2 Part1\\n"``."""
    return b"%s#%d Part%d\n" % (reason, count, part)


def take_newest(lines: Sequence[bytes], size: int) -> int:
    """How many of *lines*, counted from the end, fit whole into *size* bytes."""
    taken = 0
    for line in reversed(lines):
        size -= len(line)
        if size < 0:
            break
        taken += 1
    return taken


def dump_parts(
    lines: Sequence[bytes],
    *,
    reason: bytes,
    count: int,
    era: Era,
    algorithm: str,
    bufsize: int,
    kmsg_bytes: int = KMSG_BYTES,
    max_parts: int | None = None,
) -> list[Part]:
    """Dump a log of whole messages as the kernel does, newest part first.

    It ends when the log does, when *kmsg_bytes* are stored, after *max_parts*, or at a message that fits no part.
    """
    parts: list[Part] = []
    stored_bytes = 0
    left = list(lines)
    while left and stored_bytes < kmsg_bytes and len(parts) != max_parts:
        head = header(reason, count, len(parts) + 1)
        # One byte stays free: printk keeps room for a NUL, as the parts of real captures show.
        taken = take_newest(left, capacity(era, algorithm, bufsize) - len(head) - 1)
        if not taken:
            break
        body = b"".join(left[-taken:])
        del left[-taken:]
        part = _store(head, body, len(parts) + 1, era=era, algorithm=algorithm, bufsize=bufsize)
        stored_bytes += len(part.stored)
        parts.append(part)
    return parts


def _store(head: bytes, body: bytes, number: int, *, era: Era, algorithm: str, bufsize: int) -> Part:
    text = head + body
    stored = ALGORITHMS[algorithm](text)
    compressed = algorithm != "none"
    if len(stored) > bufsize:
        compressed = False
        stored = head + body[len(text) - bufsize :] if era.keeps_newest else text[:bufsize]
    return Part(number=number, text=text, stored=stored, compressed=compressed)


def old_ramoops_line(seconds: int, microseconds: int) -> bytes:
    """First line of a ramoops record up to about v3.10, which later kernels strip: ``b"====123.456\\n"``."""
    return b"====%d.%d\n" % (seconds, microseconds)


def blk_total_line(reason: bytes, count: int) -> bytes:
    """First line of a pstore_blk record that is not compressed: fs/pstore/zone.c, psz_kmsg_read()."""
    return b"%s: Total %d times\n" % (reason, count)
