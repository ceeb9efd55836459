# SPDX-License-Identifier: Apache-2.0
"""ftrace records (fs/pstore/ftrace.c and inode.c), 64-bit and little-endian, and the text pstorefs makes of them."""

import random
import struct
from typing import NamedTuple

RECORD = struct.Struct("<QQQ")
"""ip, parent_ip, counter << 8 | cpu.  Since v4.10 or so; before, cpu stood alone in the last eight bytes."""

_FUNCTIONS = (
    ("vfs_write", "ksys_write+0x6b/0xf0"),
    ("rcu_read_unlock_strict", "filemap_map_pages+0x1c2/0x440"),
    ("gauge_store", "kernfs_fop_write_iter+0x126/0x1b0"),
    ("_raw_spin_lock", "hrtimer_interrupt+0x92/0x240"),
)
_TEXT = 0xFFFFFFFF81000000


class Call(NamedTuple):
    """One traced call."""

    cpu: int
    counter: int
    """Of events, not time; from 0 at each boot."""
    ip: int
    parent_ip: int


def calls(rng: random.Random, number: int, *, kaslr: int = 0) -> list[Call]:
    """That many calls on two CPUs."""
    found = []
    for counter in range(number):
        which = rng.randrange(len(_FUNCTIONS))
        ip = _TEXT + kaslr + 0x1000 * which
        found.append(Call(rng.randrange(2), counter, ip, ip + 0x40800))
    return found


def pack(records: list[Call]) -> bytes:
    """The zone's content."""
    return b"".join(RECORD.pack(call.ip, call.parent_ip, call.counter << 8 | call.cpu) for call in records)


def _symbols(ip: int, parent_ip: int, kaslr: int | None) -> tuple[str, str]:
    # %ps and %pS give the bare number where the kernel that reads knows no symbol there
    which = -1 if kaslr is None else (ip - _TEXT - kaslr) // 0x1000
    if 0 <= which < len(_FUNCTIONS):
        return _FUNCTIONS[which]
    return f"0x{ip:x}", f"0x{parent_ip:x}"


def show(content: bytes, *, kaslr: int | None = None, with_counter: bool = True) -> bytes:
    """The text of an ftrace file.

    The kernel begins where a whole number of records is left.  Up to v6.12 the ECC notice at the end counts as
    content: with it every record is read out of step, and the last ones are made of the notice.

    Args:
        content: the records, and the ECC notice if the zone has ECC.
        kaslr: the offset of the crashed kernel if the reading kernel has the same, so that it finds the symbols.
        with_counter: the form since v4.10 or so.
    """
    lines = []
    for offset in range(len(content) % RECORD.size, len(content), RECORD.size):
        ip, parent_ip, stamp = RECORD.unpack_from(content, offset)
        symbol, parent = _symbols(ip, parent_ip, kaslr)
        front = f"CPU:{stamp & 255} ts:{stamp >> 8}" if with_counter else f"{stamp & 255}"
        lines.append(f"{front} {ip:08x}  {parent_ip:08x}  {symbol} <- {parent}\n")
    return "".join(lines).encode()
