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
    rb"(?:[^ :]{1,64}+ kernel: )?+(?:[0-9]{3}: |c[0-9]{1,2} (?:[0-9]{1,6} )?)?"
    rb"|\[ {0,5}+([TC][0-9]{1,10}+)\] )?"  # printk.time=0
)
_INNER = re.compile(rb"\[ {0,4}([0-9]{1,12})\.([0-9]{6})\](?:\[ {0,5}([TC][0-9]{1,10})\])? ?")


def parse_line(raw: bytes) -> Line:
    """Take the prefixes off one line; a line without any is its own text."""
    text, micros, caller, foreign = split_line(raw)
    return Line(text, None if micros is None else int(micros) * 1000, caller, foreign)


def split_line(raw: bytes) -> tuple[bytes, bytes | None, str | None, bool]:
    """The same, the time in digits: of most lines of a report nothing but text and caller is asked for."""
    if len(raw) > LONGEST_LINE:
        raw = raw[:LONGEST_LINE]
    found = _PREFIX.match(raw)
    assert found is not None  # every part of it is optional
    tag, other_tag, priority, seconds, micros, caller, other_caller = found.groups()
    text = raw[found.end() :]
    if text.endswith(b"\r"):
        text = text[:-1]
    if seconds is None and text.find(b"[") >= 0 and (inner := [*_INNER.finditer(text)]):
        # behind what a program wrote without a newline: "login: [   12.345678] text"
        found = inner[-1]
        return text[found.end() :], found[1] + found[2], _decode(found[3]), False
    tag = tag or other_tag
    foreign = (tag is not None and not tag.endswith(b"kernel:")) or (priority is not None and int(priority) > 7)
    return text, None if seconds is None else seconds + micros, _decode(caller or other_caller), foreign


def _decode(caller: bytes | None) -> str | None:
    return None if caller is None else caller.decode()


def split_message(line: Line, at: int) -> Line:
    """The message of a line that holds byte *at* of it, where another writer's text stands before."""
    before = [m for m in _INNER.finditer(line.text, 0, at + 1) if m.end() <= at]
    if not before:
        return line
    last = before[-1]
    return Line(line.text[last.end() :], int(last[1] + last[2]) * 1000, _decode(last[3]))


def split_joined(text: bytes) -> list[bytes]:
    """The messages of a line that damage joined from several: mail and serial captures lose newlines."""
    if len(text) < JOINED or text.find(b"] ") < 0:
        return [text]
    cuts = [0, *(at for found in _INNER.finditer(text) for at in found.span()), len(text)]
    return [text[start:end] for start, end in zip(cuts[::2], cuts[1::2], strict=True)]


def from_kmsg(line: KmsgLine) -> Line:
    """The same of a line that is parsed already; what it still has of prefixes is taken off."""
    inner = parse_line(line.text)
    return Line(
        inner.text,
        line.time_ns if line.time_ns is not None else inner.time_ns,
        line.caller or inner.caller,
        bool(line.facility) or inner.foreign,
    )
