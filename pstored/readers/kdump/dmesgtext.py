# SPDX-License-Identifier: Apache-2.0
r"""The log as text, as kdump puts it beside a vmcore, or in its place.

``vmcore-dmesg.txt`` by kexec-tools' vmcore-dmesg (Fedora, RHEL), ``dmesg.<stamp>`` by makedumpfile --dump-dmesg
(Debian, Ubuntu), ``<stamp>/dmesg.txt`` (SUSE); kexec-tools util_lib/elf_info.c, makedumpfile printk.c::

    [    1.234567] text                   a message; without its level
    [    1.234567] [    T1] text          some releases show the caller so
                   second line            of the message, by makedumpfile below the first; by vmcore-dmesg at the margin
    [    1.234568] \x1b[0m                what is not to be printed

Of a kernel before 3.5 it is the log as it is, ``<6>[    1.234567] text``.  The record has the lines as a console would
have shown them, each line of a message with its time, so that they can be compared with what pstore has.
"""

import os
import re
from collections.abc import Iterator

from pstored.parse.filename import KDUMP
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source

MAX_TEXT = 8 << 20
"""Bytes of one log; of a longer one, its end."""
SAMPLE = 16 << 10
LONGEST_NUMBER = 20

_STAMPED = r"\d{4}-?\d{2}-?\d{2}-?\d{2}:?\d{2}(?::?\d{2})?"
_NAME = re.compile(rf"(?:.*/)?(?:vmcore-dmesg[\w.-]{{0,80}}\.txt|dmesg\.\d{{8,14}}|{_STAMPED}/dmesg\.txt)")
_START = re.compile(rb"(<[0-9]{1,5}>)?\[ {0,4}[0-9]{1,10}\.[0-9]{6}\] ")
_CALLER = re.compile(rb"\[ {0,5}[TC][0-9]{1,10}\] ")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f-\xff]")
_STAMP = re.compile(_STAMPED)
INCOMPLETE = "incomplete"
"""In the name of what is being written, or was not written to its end."""


def recognize(source: Source) -> bool:
    """Whether it is such a log, and named as kdump names it."""
    return _NAME.fullmatch(source.name) is not None and is_log(source)


def is_log(source: Source) -> bool:
    """Whether it begins with a message, and holds what these tools print."""
    head = source.read(0, SAMPLE)
    return _START.match(head) is not None and _BINARY.search(head) is None


def read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:  # noqa: ARG001 - as all readers
    """The log."""
    start = max(0, source.size - MAX_TEXT)
    text = source.read(start, min(source.size, MAX_TEXT))
    damage = []
    if start:
        text = text[text.find(b"\n") + 1 :]
        damage.append(f"only the last {MAX_TEXT >> 20} MiB of the log are taken")
    if INCOMPLETE in os.path.basename(source.name):
        damage.append("kdump did not write it to its end")
    lines = b"".join(_lines(text))
    stamp = _STAMP.findall(source.name)
    number = re.sub(r"\D", "", stamp[-1])[:LONGEST_NUMBER] if stamp else "0"
    kind = "dmesg" if lines.startswith(b"<") else "console"
    yield Salvaged(f"{kind}-{KDUMP}-{int(number)}", lines, damage=tuple(damage))


def _lines(text: bytes) -> Iterator[bytes]:
    head, indent = b"", 0  # of the message, and how far makedumpfile puts its further lines in
    for line in text.removesuffix(b"\n").split(b"\n"):
        start = _START.match(line)
        if start is not None:
            caller = _CALLER.match(line, start.end())
            indent = start.end() if caller is None else caller.end()
            head = start[0][:-1] + (b"" if caller is None else caller[0][:-1]) + b" "
        rest = line[indent:] if start is not None or line.startswith(b" " * indent) else line
        yield head + (_ESCAPED.sub(_unescape, rest) if b"\\x" in rest else rest) + b"\n"


def _unescape(found: re.Match[bytes]) -> bytes:
    """The byte, if it is one that the tools escape."""
    byte = bytes((int(found[1], 16),))
    return byte if _BINARY.match(byte) else found[0]


READER = Reader(recognize, read)
