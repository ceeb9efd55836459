# SPDX-License-Identifier: Apache-2.0
"""Lines of any log as the kernel wrote them: what syslog, journald, a console or netconsole put before is taken off.

The text of a message stays bytes.  Where a line holds two messages (a console with several writers), the last one
that begins with a time counts, since only its beginning is known.
"""

import re
from typing import NamedTuple

from pstored.parse.kmsg import KmsgLine

LONGEST_LINE = 8192
"""Bytes of a line that are looked at: printk cuts at 1024 (PRINTK_MESSAGE_MAX: 2048), and damage joins lines."""


JOINED = 60
"""Bytes of a line from which on it is looked at whether it is several: a message and another one's prefix."""


class Line(NamedTuple):
    """One line, its prefixes taken off."""

    text: bytes
    time_ns: int | None
    """Since that boot began; None if the line does not say."""
    caller: str | None
    """``T<thread>`` or ``C<cpu>`` with CONFIG_PRINTK_CALLER."""
    foreign: bool = False
    """Written by user space: no report of the kernel."""


#   syslog:    Nov 23 04:18:57 host kernel: [   12.345678] text       rsyslog; the time only with printk.time
#              2026-11-23T04:18:57.123456Z INFO kernel: [ ... ] text  RFC 5424 times; rsyslog, ChromeOS
#   journal:   [   12.345678] host kernel: text                       journalctl -o short-monotonic
#   dmesg -T:  [Wed Mar  1 12:00:00 2023] text
#   netconsole 6,416,1758426,-,caller=T1;text                         Documentation/networking/netconsole.rst
#   printk:    <6>[   12.345678][    T1] text                         kernel/printk/printk.c, info_print_prefix()
#   PREEMPT_RT and Android put the CPU behind it: "000: ", "c0 "
_PREFIX = re.compile(
    rb"(?:\*\* {1,2}[0-9]{1,9} printk messages dropped \*\* ?)?"
    rb"(?:[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} [^ ]{1,64} ([^ ]{1,64}(?: kernel)?:) ?"
    rb"|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:]{8}[^ ]{0,16} (?:[^ :]{1,64} ){0,2}([^ ]{1,64}:) ?"
    rb"|\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} [0-9]{4}\] ?"
    rb"|[0-9]{1,5},[0-9]{1,20},[0-9]{1,20},[^;\n]{1,80};)?+"
    rb"(?:<([0-9]{1,5})> {0,4}+)?+"
    rb"(?:\[ {0,12}+([0-9]{1,12}+)\.([0-9]{6}) ?\](?:\[ {0,5}+([TC][0-9]{1,10}+) ?\])?+ ?+"
    rb"(?:[^ :]{1,64}+ kernel: )?+(?:[0-9]{3}: |c[0-9]{1,2} (?:[0-9]{1,6} )?)?)?"
)
_INNER = re.compile(rb"\[ {0,4}([0-9]{1,12})\.([0-9]{6})\](?:\[ {0,5}([TC][0-9]{1,10})\])? ?")


def parse_line(raw: bytes) -> Line:
    """Take the prefixes off one line; a line without any is its own text."""
    if len(raw) > LONGEST_LINE:
        raw = raw[:LONGEST_LINE]
    found = _PREFIX.match(raw)
    assert found is not None  # every part of it is optional
    tag, other_tag, priority, seconds, micros, caller = found.groups()
    text = raw[found.end() :]
    if text.endswith(b"\r"):
        text = text[:-1]
    tag = tag or other_tag
    foreign = (tag is not None and not tag.endswith(b"kernel:")) or (priority is not None and int(priority) > 7)
    if seconds is None:
        return _inner(text) or Line(text, None, None, foreign)
    return Line(text, int(seconds + micros) * 1000, None if caller is None else caller.decode(), foreign)


def split_message(line: Line, at: int) -> Line:
    """The message of a line that holds byte *at* of it, where another writer's text stands before."""
    before = [m for m in _INNER.finditer(line.text, 0, at + 1) if m.end() <= at]
    if not before:
        return line
    last = before[-1]
    return _made(last, line.text[last.end() :])


def is_joined(line: Line) -> bool:
    """Whether a line may be several messages: damage has joined them."""
    return len(line.text) >= JOINED and b"] " in line.text and _INNER.search(line.text) is not None


def split_joined(line: Line) -> list[Line]:
    """The messages of a line that damage joined from several: mail and serial captures lose newlines."""
    cuts = list(_INNER.finditer(line.text))
    if not cuts:
        return [line]
    ends = [found.start() for found in cuts[1:]] + [len(line.text)]
    pieces = [line._replace(text=line.text[: cuts[0].start()])]
    return pieces + [_made(found, line.text[found.end() : end]) for found, end in zip(cuts, ends, strict=True)]


def _inner(text: bytes) -> Line | None:
    """A message behind what a program wrote without a newline: ``login: [   12.345678] text``."""
    if b"." not in text or b"[" not in text:
        return None
    last = None
    for last in _INNER.finditer(text):  # noqa: B007 - the last one
        pass
    return None if last is None else _made(last, text[last.end() :])


def _made(found: re.Match[bytes], text: bytes) -> Line:
    caller = found[3]
    return Line(text, int(found[1] + found[2]) * 1000, None if caller is None else caller.decode())


def from_kmsg(line: KmsgLine) -> Line:
    """The same of a line that is parsed already; what it still has of prefixes is taken off."""
    inner = parse_line(line.text)
    return Line(
        inner.text,
        line.time_ns if line.time_ns is not None else inner.time_ns,
        line.caller or inner.caller,
        bool(line.facility) or inner.foreign,
    )
