# SPDX-License-Identifier: Apache-2.0
r"""The binary ftrace records of a raw zone, and the text that pstorefs makes of them.

Source: fs/pstore/ftrace.c, pstore_ftrace_combine_log(); fs/pstore/inode.c, pstore_ftrace_seq_show();
include/linux/pstore.h.  A record is ``{unsigned long ip, parent_ip; u64 ts}`` in the byte order of the machine; in
``ts`` the low 8 bits are the CPU and the rest counts calls, but on 32-bit ARM with few CPUs, where the CPU is in the
low bits of ``ip``.  Up to about Linux 4.9 there is no ``ts``, but a 32-bit CPU number.

No symbol is looked up here: an address without one is shown as the kernel shows it.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Literal, NamedTuple

MAX_CALLS = 150_000
"""The last so many calls are shown: 16 MB of text."""
_SAMPLE = 200
_MAX_CPU = 256
"""No kernel that old has so many CPUs, and a counter soon is beyond."""

_Record = tuple[int, int, int]


class Trace(NamedTuple):
    """The calls of all zones, as text."""

    text: bytes
    calls: int
    """So many there were."""


def show(zones: Iterable[bytes], order: Literal["little", "big"]) -> Trace:
    """Merge the zones of the CPUs, by their counters and pair by pair, as the kernel does, and give the text.

    Args:
        zones: the valid bytes of each, oldest first; a record that is cut stands at the beginning.
        order: of the machine's bytes.
    """
    logs = [log for log in zones if log]
    word = _word_size(logs, order)
    record = struct.Struct(("<" if order == "little" else ">") + ("QQQ" if word == 8 else "IIQ"))
    merged: list[_Record] = []
    for log in logs:
        cut = len(log) % record.size
        merged = list(_merge(merged, list(record.iter_unpack(log[cut:]))))
    line = _line(merged, word, order)
    return Trace(b"".join(map(line, merged[-MAX_CALLS:])), len(merged))


def _word_size(logs: list[bytes], order: Literal["little", "big"]) -> int:
    """8 if the addresses are those of a 64-bit kernel, whose upper half has its top bit set; else 4."""
    high = 0 if order == "big" else 7
    tops = [
        log[at + high] >= 0x80 and log[at + 8 + high] >= 0x80
        for log in logs
        for at in range(len(log) % 24, min(len(log), 24 * _SAMPLE) - 23, 24)
    ]
    return 8 if sum(tops) * 2 > len(tops) else 4


def _merge(older: list[_Record], newer: list[_Record]) -> Iterator[_Record]:
    a, b = 0, 0
    while a < len(older) and b < len(newer):
        if older[a][2] >> 8 < newer[b][2] >> 8:
            yield older[a]
            a += 1
        else:
            yield newer[b]
            b += 1
    yield from chain(older[a:], newer[b:])


def _line(records: list[_Record], word: int, order: Literal["little", "big"]) -> Callable[[_Record], bytes]:
    """What makes a line of text of a record, by what all of them have in common."""
    stamps = [ts for _, _, ts in records[-_SAMPLE:]]
    shift = 0 if order == "little" else 32
    if all((ts >> shift & 0xFFFFFFFF) < _MAX_CPU for ts in stamps) and len(set(stamps)) * 4 <= len(stamps):
        return lambda r: b"%d %08x  %08x  0x%x <- 0x%x\n" % (r[2] >> shift & 0xFFFFFFFF, r[0], r[1], r[0], r[1])
    if word == 4 and len({ts & 0xFF for ts in stamps}) > 32:
        # a counter without a CPU: its low byte is anything
        return lambda r: b"CPU:%d ts:%d %08x  %08x  0x%x <- 0x%x\n" % (r[0] & 3, r[2], r[0], r[1], r[0], r[1])
    return lambda r: b"CPU:%d ts:%d %08x  %08x  0x%x <- 0x%x\n" % (r[2] & 0xFF, r[2] >> 8, r[0], r[1], r[0], r[1])
