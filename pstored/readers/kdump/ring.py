# SPDX-License-Identifier: Apache-2.0
r"""The messages in a kernel's log since 5.10: the lockless ring buffer.

Source: kernel/printk/printk_ringbuffer.h and .c; what a kernel exports for readers of dumps is all that is needed::

    prb -> printk_ringbuffer
             desc_ring       2**count_bits descriptors and infos; ids from tail_id to head_id, slot = id % count
               prb_desc      state_var: 2 bits of state, the id; text_blk_lpos: begin and next, logical positions
               printk_info   seq, ts_nsec, text_len, facility, flags and level, caller_id
             text_data_ring  2**size_bits bytes; a block: the descriptor's id (a word), then the text

A block that does not fit behind the last is at the ring's beginning, and its positions are on both sides of a multiple
of the ring's size; up to 6.12 one that just fits is, too.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pstored.errors import DamagedError
from pstored.parse.devkmsg import Message, format_message
from pstored.readers.kdump.memory import KernelMemory

COMMITTED, FINALIZED, REUSABLE = 1, 2, 3
"""States of a descriptor whose message is there, is there and final, and is gone; 0: being written."""
NO_LPOS = 3
"""Both positions of a message without text."""
CPU_ID = 1 << 31
"""In a caller's id: it is a CPU's, not a thread's."""
MAX_BITS = 30
"""Of the number of descriptors, and of bytes: log_buf_len is no larger."""
MAX_LOOKED_AT = 1 << 18
"""Descriptors, from the newest on: those of a log of 8 MiB."""
MAX_MISSED = 1 << 12
"""So many in a row that are not there: then what is older is not, either."""


class _Ring(NamedTuple):
    slots: int
    descs: int
    infos: int
    head: int
    tail: int
    size: int
    data: int


class RingLog:
    """The log of one kernel."""

    def __init__(self, memory: KernelMemory, *, callers: bool = False) -> None:
        """Find it.

        Args:
            memory: of the kernel that crashed.
            callers: whether that kernel shows callers; it does not say (CONFIG_PRINTK_CALLER).

        Raises:
            DamagedError: it is not in the dump, or makes no sense.
        """
        self._memory = memory
        self._form = memory.form
        self._callers = callers
        info = memory.info
        self._ring = self._find()
        self._desc_size, self._info_size = info.size("prb_desc"), info.size("printk_info")
        counter = info.offset("atomic_long_t.counter")
        self._state_at = info.offset("prb_desc.state_var") + counter
        self._lpos_at = info.offset("prb_desc.text_blk_lpos")
        self._begin_at, self._next_at = (info.offset(f"prb_data_blk_lpos.{n}") for n in ("begin", "next"))
        self._time_at, self._length_at = (info.offset(f"printk_info.{n}") for n in ("ts_nsec", "text_len"))
        self._caller_at = info.offset("printk_info.caller_id")
        self._lost, self._why = 0, ""
        self._left_out = ""
        self._unfinished = 0

    def _find(self) -> _Ring:
        memory, info = self._memory, self._memory.info
        at = memory.pointer(info.address("prb"))
        descs = at + info.offset("printk_ringbuffer.desc_ring")
        texts = at + info.offset("printk_ringbuffer.text_data_ring")
        counter = info.offset("atomic_long_t.counter")
        count_bits = memory.number(descs + info.offset("prb_desc_ring.count_bits"))
        size_bits = memory.number(texts + info.offset("prb_data_ring.size_bits"))
        if not (0 < count_bits <= MAX_BITS and 0 < size_bits <= MAX_BITS + 1):
            raise DamagedError(
                f"the ring buffer at {at:#x} makes no sense: 2**{count_bits} messages, 2**{size_bits} bytes"
            )
        return _Ring(
            slots=1 << count_bits,
            descs=memory.pointer(descs + info.offset("prb_desc_ring.descs")),
            infos=memory.pointer(descs + info.offset("prb_desc_ring.infos")),
            head=memory.pointer(descs + info.offset("prb_desc_ring.head_id") + counter),
            tail=memory.pointer(descs + info.offset("prb_desc_ring.tail_id") + counter),
            size=1 << size_bits,
            data=memory.pointer(texts + info.offset("prb_data_ring.data")),
        )

    @property
    def damage(self) -> list[str]:
        """What of the messages asked for so far is lost, in words."""
        found = [f"{self._lost} messages of the log are lost; the newest: {self._why}"] if self._lost else []
        return found + [self._left_out] * bool(self._left_out)

    @property
    def notes(self) -> list[str]:
        """What else is to be known of them."""
        count = self._unfinished
        return [f"{count} message{'s were' if count > 1 else ' was'} being written as the kernel stopped"] * bool(count)

    def newest_first(self) -> Iterator[bytes]:
        """The messages as lines of a dump, the newest first."""
        ring, mask = self._ring, (1 << 8 * self._form.word - 2) - 1
        head, tail = ring.head & mask, ring.tail & mask
        there = (head - tail & mask) + 1
        if there > ring.slots:
            self._left_out = f"the ring buffer is damaged: {there} messages, and room for {ring.slots}"
            there = ring.slots
        missed = 0
        for back in range(there):
            if back == MAX_LOOKED_AT or missed == MAX_MISSED:
                self._left_out = f"messages older than the last {back} are left out"
                return
            missed += 1
            try:
                text = self._message(head - back & mask, mask)
            except DamagedError as e:
                self._why = self._why or str(e)
                self._lost += 1
                continue
            if text is not None:
                missed = 0
                yield text

    def _message(self, number: int, mask: int) -> bytes | None:
        """One message; None if there is none (yet, or any more)."""
        slot = number % self._ring.slots
        desc = self._memory.read(self._ring.descs + slot * self._desc_size, self._desc_size)
        state = self._form.pointer(desc, self._state_at)
        kind = state >> 8 * self._form.word - 2
        if state & mask != number or kind not in (COMMITTED, FINALIZED):
            self._unfinished += kind == 0 and state & mask == number
            return None
        info = self._memory.read(self._ring.infos + slot * self._info_size, self._info_size)
        begin = self._form.pointer(desc, self._lpos_at + self._begin_at)
        end = self._form.pointer(desc, self._lpos_at + self._next_at)
        # struct printk_info: u16 text_len, u8 facility, u8 flags:5 level:3, of which only the first is exported
        length, facility, bits = (
            self._form.number(info, self._length_at + at, n) for at, n in ((0, 2), (2, 1), (3, 1))
        )
        level = bits >> 5 if self._form.order == "little" else bits & 7
        message = Message(
            priority=facility << 3 | level,
            sequence=number,
            time_us=self._form.number(info, self._time_at, 8) // 1000,
            caller=caller(self._form.number(info, self._caller_at, 4)) if self._callers else None,
            text=b"" if begin == end == NO_LPOS else self._text(number, begin, end, length),
        )
        return format_message(message, times=True)

    def _text(self, number: int, begin: int, end: int, length: int) -> bytes:
        ring, word = self._ring, self._form.word
        if begin & 1:
            raise DamagedError("there was no room for this message")
        last = end - 1 & (1 << 8 * word) - 1  # positions begin below 0, and go over it
        is_wrapped = begin // ring.size != last // ring.size
        start = 0 if is_wrapped else begin % ring.size
        room = last % ring.size + 1 - start - word
        if room < 0 or self._memory.pointer(ring.data + start) != number:
            raise DamagedError("its text is another's")
        return self._memory.read(ring.data + start + word, min(length, room))


def caller(number: int) -> bytes:
    """The id of a caller as printk shows it: ``T1``, ``C3``."""
    return b"C%d" % (number & ~CPU_ID) if number & CPU_ID else b"T%d" % number
