# SPDX-License-Identifier: Apache-2.0
r"""The messages in a kernel's log before 5.10.

Source: kernel/printk/printk.c (up to 3.10 kernel/printk.c).  3.5 to 5.9: log_buf is a ring of records from
log_first_idx to log_next_idx, each aligned to 4 or 8 bytes::

    u64 ts_nsec  u16 len  u16 text_len  u16 dict_len  u8 facility  u8 flags:5 level:3  [u32 caller_id]  text  dict

A record of length 0 says that the next is at the beginning.  In 3.5 itself facility and level are one u16.  Up to 4.9
a line may be in several records, without a prefix or a newline between them; from 4.10 on each is a line.

Before 3.5 log_buf is a ring of text, which ends at log_end, counted from the boot on.
"""

import re
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from pstored.errors import DamagedError
from pstored.parse.devkmsg import Message, format_message
from pstored.readers.kdump.memory import KernelMemory
from pstored.readers.kdump.ring import caller

NEWLINE, PREFIX, CONT = 2, 4, 8
"""Flags of a record: enum log_flags."""
MAX_LOG = 64 << 20
"""Bytes: nobody asks for a larger log."""
CHUNK = 1 << 16
_NO_FLAGS = (3, 5)
"""The release whose records have none."""
_LINES_ONLY = (4, 10)
"""The first release whose records are all lines: 5aa068ea4082 ("printk: remove games with previous record flags")."""


class _Head(NamedTuple):
    time_ns: int
    text_length: int
    priority: int
    flags: int
    caller: int


class RecordLog:
    """The log of a kernel of 3.5 to 5.9."""

    def __init__(self, memory: KernelMemory) -> None:
        """Find it, and go through it once.

        Raises:
            DamagedError: it is not in the dump, or makes no sense.
        """
        self._memory = memory
        info = memory.info
        # the structure's name until 3.11
        name = "printk_log" if info.has_offset("printk_log.len") else "log"
        self._size = info.size(name)
        self._time_at, self._length_at, self._text_at = (
            info.offset(f"{name}.{field}") for field in ("ts_nsec", "len", "text_len")
        )
        self._caller_at = info.offset(f"{name}.caller_id") if info.has_offset(f"{name}.caller_id") else None
        self._buffer, self._buffer_size = _buffer(memory)
        release = re.match(r"(\d{1,4})\.(\d{1,4})", info.word("OSRELEASE") or "")
        self._release = (0, 0) if release is None else (int(release[1]), int(release[2]))
        self.damage: list[str] = []
        """What is lost, in words."""
        self.notes: list[str] = []
        self._places = self._walk(
            memory.number(info.address("log_first_idx")), memory.number(info.address("log_next_idx"))
        )

    def _walk(self, at: int, end: int) -> "array[int]":
        """Where the records are."""
        places = array("I")
        has_wrapped = False
        while at != end:
            length = self._length(at)
            if length == 0 and not has_wrapped:
                at, has_wrapped = 0, True
            elif length < self._size or (has_wrapped and at > end):
                self.damage.append(f"the log's records go astray after {len(places)}: the newer ones are lost")
                break
            else:
                places.append(at)
                at += length
        return places

    def _length(self, at: int) -> int:
        """Of a record in the buffer; 1 if there can be none."""
        if at + self._size > self._buffer_size:
            return 1
        return self._memory.number(self._buffer + at + self._length_at, 2)

    def newest_first(self) -> Iterator[bytes]:
        """The records as text of a dump, the newest first."""
        for i in range(len(self._places) - 1, -1, -1):
            try:
                before = self._head(self._places[i - 1]).flags if i else 0
                yield self._text(self._places[i], before)
            except DamagedError as e:
                self.damage.append(str(e))

    def _head(self, at: int) -> _Head:
        form = self._memory.form
        data = self._memory.read(self._buffer + at, self._size)
        facility, bits = (form.number(data, self._text_at + field, 1) for field in (4, 5))
        little = form.order == "little"
        flags, level = (bits & 31, bits >> 5) if little else (bits >> 3, bits & 7)
        priority = facility << 3 | level
        if self._release == _NO_FLAGS:
            flags = NEWLINE | PREFIX
            priority = form.number(data, self._text_at + 4, 2)
        return _Head(
            time_ns=form.number(data, self._time_at, 8),
            text_length=form.number(data, self._text_at, 2),
            priority=priority,
            flags=flags,
            caller=0 if self._caller_at is None else form.number(data, self._caller_at, 4),
        )

    def _text(self, at: int, before: int) -> bytes:
        """One record, as msg_print_text() gives it."""
        head = self._head(at)
        length = max(0, min(head.text_length, self._buffer_size - at - self._size))
        text = self._memory.read(self._buffer + at + self._size, length)
        message = Message(
            priority=head.priority,
            sequence=at,
            time_us=head.time_ns // 1000,
            caller=None if self._caller_at is None else caller(head.caller),
            text=text,
        )
        lines = format_message(message, times=True)
        if self._release >= _LINES_ONLY:
            return lines
        is_rest = head.flags & CONT and not before & NEWLINE
        if before & CONT and (is_rest or not head.flags & PREFIX):
            lines = lines[len(format_message(message._replace(text=b""), times=True)) - 1 :]  # without the first prefix
        return lines if not head.flags & CONT or head.flags & NEWLINE else lines.removesuffix(b"\n")


class TextLog:
    """The log of a kernel before 3.5."""

    def __init__(self, memory: KernelMemory) -> None:
        """Find it.

        Raises:
            DamagedError: it is not in the dump, or makes no sense.
        """
        self._memory = memory
        self._buffer, self._size = _buffer(memory)
        self._end = memory.number(memory.info.address("log_end"))
        self.damage: list[str] = []
        self.notes: list[str] = []

    def newest_first(self) -> Iterator[bytes]:
        """The text in pieces, the newest first."""
        end, left = self._end % self._size, min(self._end, self._size)
        while left:
            end = end or self._size
            count = min(left, end, CHUNK)
            end -= count
            left -= count
            yield self._memory.read(self._buffer + end, count)


def _buffer(memory: KernelMemory) -> tuple[int, int]:
    """Where log_buf is, and how long."""
    size = memory.number(memory.info.address("log_buf_len"))
    if not 0 < size <= MAX_LOG:
        raise DamagedError(f"a log of {size} bytes makes no sense")
    return memory.pointer(memory.info.address("log_buf")), size
