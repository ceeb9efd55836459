# SPDX-License-Identifier: Apache-2.0
r"""The function trace: the text that pstorefs makes of the binary ftrace records.

What the kernel does (fs/pstore/inode.c, ``pstore_ftrace_seq_start``, ``_next``, ``_show``; fs/pstore/ram.c).
A record is ``{unsigned long ip, parent_ip; u64 ts}`` in the byte order of the machine: 24 bytes on 64-bit, 16 on
32-bit machines.  ``ts`` is a counter of calls since boot, not a time; its low 8 bits hold the CPU, except on 32-bit
ARM with at most 4 CPUs, where the CPU is in the low bits of ``ip``.  Up to about Linux v4.9 there was no ``ts``, but an
``unsigned int cpu``.  The file shows one line a record, beginning at ``size % record size``, because a ring that has
wrapped begins in the middle of a record and always ends at the end of one.

**The ECC notice.**  Up to Linux v6.12 that *size* counts the ECC notice which ramoops puts behind the records, so with
ECC on the last lines are the ASCII of the notice.  With a notice of *n* bytes every line is ``n % record size`` bytes
late: ``"\nECC: No errors detected\n"`` has 25 bytes, so on 64-bit machines each line shows 23 bytes of one record and
1 byte of the next, and no address in the file is true.  A notice of 48 bytes (``"\nECC: 1 Corrected bytes, 0
unrecoverable blocks\n"``) leaves the lines in step and adds two that are garbage.  The lines give back every byte from
``size % record size`` on (but for lines of v4.9 on 64-bit machines, which hide 4 padding bytes each), so the records
can be read again at the right place.  The proof is the notice: only the right word size and byte order spell it.  What
the kernel did not show, up to one record at the beginning, is lost.

**Symbols** are looked up by the kernel that *reads* the file.  With KASLR, or after an update, they are those of
another kernel image: a name is a hint, and the address is what was recorded.  Since v7.x the addresses themselves are
moved to the reading kernel's base.  A CPU above 255 is shown modulo 256.

Contract: any bytes give an :class:`Ftrace`, never an error; time and memory are linear in the input, and nothing is
kept for a call but where its line begins.
"""

import io
import re
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import NamedTuple, overload

from pstored.parse.ecc import MAX_NOTICE, EccNotice, split_ecc_notice

#   row     = who SP address SP SP address [ SP SP symbols ] LF     fs/pstore/inode.c, pstore_ftrace_seq_show()
#   who     = "CPU:" cpu SP "ts:" counter                           since about v4.10
#           / cpu                                                   before; %d of an unsigned, so it can be negative
#   address = 8*16 lower-case hexadecimal digits                    %08lx
#   symbols = symbol " <- " symbol+offset                           %ps, %pS; our own realigned rows have none
_ADDRESSES = rb" ([0-9a-f]{8,16})  ([0-9a-f]{8,16})(?:  ([^\n]*))?\n"
_STAMPED_ROW = re.compile(rb"^CPU:(\d{1,3}) ts:(\d{1,20})" + _ADDRESSES, re.MULTILINE)
_PLAIN_ROW = re.compile(rb"^(-?\d{1,10})()" + _ADDRESSES, re.MULTILINE)

_U64_MAX = 2**64 - 1
_TS_CPU_SHIFT = 8  # include/linux/pstore.h

# The top byte of kernel addresses of the 64-bit machines that have ramoops: x86-64, arm64, riscv and mips64 KSEG
# (ff), powerpc (c0, d0), loongarch (80, 90, a0), mips64 XKPHYS (98, a8).  No ASCII byte is among them, and a late
# line has the low byte of another address there.
_KERNEL_TOP_BYTES = frozenset((0xFF, 0xC0, 0xD0, 0x80, 0x90, 0xA0, 0x98, 0xA8))
# 32-bit kernels live in the upper 1 to 3 GiB (CONFIG_VMSPLIT_1G is the lowest start).
_KERNEL_START_32 = 0x4000_0000


class Call(NamedTuple):
    """One traced call."""

    cpu: int
    """The CPU that made the call, modulo 256."""
    counter: int | None
    """Calls traced since that boot, before this one: an order, not a time.  None before about Linux v4.10."""
    ip: int
    """The address in the function that was called; on 32-bit ARM with the CPU in its lowest one or two bits."""
    parent_ip: int
    """The address that it was called from."""
    symbol: bytes | None
    """What the reading kernel calls ``ip``; None when it knows no name, or the row was realigned."""
    caller: bytes | None
    """What the reading kernel calls ``parent_ip``, with the offset; None as above."""


class Calls(Sequence[Call]):
    """The calls of a trace in the order of the text; each is parsed when it is asked for."""

    __slots__ = ("_starts", "_text")

    def __init__(self, text: bytes, starts: "array[int]") -> None:
        self._text = text
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Call: ...
    @overload
    def __getitem__(self, index: slice) -> "Calls": ...
    def __getitem__(self, index: int | slice) -> "Call | Calls":
        if isinstance(index, slice):
            return Calls(self._text, self._starts[index])
        return self._call(self._starts[index])

    def __iter__(self) -> Iterator[Call]:
        return map(self._call, self._starts)

    def _call(self, start: int) -> Call:
        pattern = _STAMPED_ROW if self._text[start : start + 1] == b"C" else _PLAIN_ROW
        row = pattern.match(self._text, start)
        assert row is not None  # starts are only ever taken from rows that matched
        cpu, counter, ip, parent_ip, symbols = row.groups()
        symbol, _, caller = (symbols or b"").partition(b" <- ")
        return Call(
            cpu=int(cpu),
            counter=int(counter) if counter else None,
            ip=int(ip, 16),
            parent_ip=int(parent_ip, 16),
            symbol=_name(symbol),
            caller=_name(caller),
        )


def _name(symbol: bytes) -> bytes | None:
    # lib/vsprintf.c, symbol_string(): an address without a symbol is printed as 0x...
    return symbol if symbol and not symbol.startswith(b"0x") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ftrace:
    """A function trace: what of it is true, and what is wrong with it."""

    calls: Calls = field(compare=False)
    """The calls of ``text``, one a row."""
    text: bytes
    """The rows that are truthful; the record itself where nothing had to be left out."""
    damage: tuple[str, ...]
    """What is missing, left out or in doubt; one sentence each."""
    dropped: int
    """Lines of the record for which ``text`` has no row."""
    ecc: EccNotice | None
    """The ECC notice that the kernel showed as rows; None when it did not."""
    is_realigned: bool
    """The rows are not the kernel's lines but the records behind them, without symbols."""


class _Rows:
    """The rows of a text in columns: 40 bytes a row, where no row has less than 20."""

    __slots__ = ("breaks", "counter", "cpu", "ip", "is_stamped", "parent_ip", "start", "unreadable")

    def __init__(self, *, is_stamped: bool) -> None:
        self.is_stamped = is_stamped
        self.start = array("Q")
        self.cpu = array("q")
        self.counter = array("Q")
        self.ip = array("Q")
        self.parent_ip = array("Q")
        self.breaks = array("Q")  # the rows before which lines are unreadable
        self.unreadable = 0  # lines

    def __len__(self) -> int:
        return len(self.start)

    def add(self, start: int, cpu: int, counter: int, ip: int, parent_ip: int) -> None:
        self.start.append(start)
        self.cpu.append(cpu)
        self.counter.append(counter)
        self.ip.append(ip)
        self.parent_ip.append(parent_ip)

    def is_64bit(self) -> bool:
        # A 32-bit kernel cannot print more than 8 digits, and a 64-bit one has its text high up.
        return max(self.ip) >> 32 != 0 or max(self.parent_ip) >> 32 != 0


def parse_ftrace_text(data: bytes) -> Ftrace:
    r"""Read the text of an ftrace record, and leave out what is not true of the crashed kernel.

    Args:
        data: the file as pstorefs shows it, e.g. ``b"CPU:0 ts:7 ffffffff81012345  ffffffff81023456  do_one <-
            do_all+0x12/0x40\n"``.  An ECC notice needs no stripping: here it is rows, not text.

    Returns:
        The truthful rows, as text and lazily as calls, and sentences on what was left out.
    """
    rows = _read_rows(data)
    damage = []
    if rows.unreadable:
        damage.append(f"{_counted(rows.unreadable, 'line is', 'lines are')} no trace and left out")
    if not len(rows):
        return _result(rows, b"", array("Q"), damage)
    found = _find_notice(rows)
    if found is None:
        return _in_step(data, rows, len(rows), damage)
    damage += _ecc_damage(found.ecc)
    late = found.size % found.layout.record.size
    if late:
        return _realigned(rows, found, late, damage)
    garbage = found.size // found.layout.record.size
    damage.append(f"the last {_counted(garbage, 'row is', 'rows are')} the ECC notice (Linux up to 6.12) and left out")
    return _in_step(data, rows, len(rows) - garbage, damage, ecc=found.ecc)


def _read_rows(data: bytes) -> _Rows:
    stamped = _STAMPED_ROW.search(data)
    is_stamped = stamped is not None and not _PLAIN_ROW.search(data, 0, stamped.start())
    rows = _Rows(is_stamped=is_stamped)
    end = 0
    for row in (_STAMPED_ROW if is_stamped else _PLAIN_ROW).finditer(data):
        cpu, counter, ip, parent_ip, _ = row.groups()
        count = int(counter or 0)
        if count > _U64_MAX:
            continue
        start = row.start()
        if start != end:
            rows.breaks.append(len(rows))
            rows.unreadable += data.count(b"\n", end, start)
        rows.add(start, int(cpu), count, int(ip, 16), int(parent_ip, 16))
        end = row.end()
    # a last line without newline is cut, so it is no row either
    rows.unreadable += data.count(b"\n", end) + (end < len(data) and not data.endswith(b"\n"))
    return rows


# --- the bytes behind the rows ---------------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """How the kernel read the bytes of a record into the fields of a row."""

    record: struct.Struct
    """ip, parent_ip, and, where there is a third field, ts or (before v4.10) cpu."""
    cpu_in_ip: bool


class _Found(NamedTuple):
    layout: _Layout
    ecc: EccNotice
    size: int
    """Bytes of the notice."""


def _layouts(rows: _Rows) -> Iterator[_Layout]:
    # Every way that loses no bytes.  The 64-bit record of before v4.10 is not among them: its padding is not printed.
    is_64bit = rows.is_64bit()
    for order in "<>":
        if is_64bit and rows.is_stamped:
            yield _Layout(struct.Struct(f"{order}QQQ"), cpu_in_ip=False)
        elif not is_64bit and rows.is_stamped:
            yield _Layout(struct.Struct(f"{order}IIQ"), cpu_in_ip=False)
            yield _Layout(struct.Struct(f"{order}IIQ"), cpu_in_ip=True)
        elif not is_64bit:
            yield _Layout(struct.Struct(f"{order}III"), cpu_in_ip=False)
            yield _Layout(struct.Struct(f"{order}II"), cpu_in_ip=True)


def _find_notice(rows: _Rows) -> _Found | None:
    for layout in _layouts(rows):
        start = max(len(rows) - -(-MAX_NOTICE // layout.record.size), rows.breaks[-1] if rows.breaks else 0)
        tail = _record_bytes(rows, layout, start, len(rows))
        if tail is None:
            continue
        before, ecc = split_ecc_notice(tail)
        if ecc is not None:
            return _Found(layout, ecc, len(tail) - len(before))
    return None


def _record_bytes(rows: _Rows, layout: _Layout, start: int, stop: int) -> bytes | None:
    """The bytes that the kernel printed as these rows; None if this layout cannot have given them."""
    has_third = rows.is_stamped or not layout.cpu_in_ip
    out = bytearray()
    for i in range(start, stop):
        fields = (rows.ip[i], rows.parent_ip[i], _third_field(rows, layout, i))
        try:
            out += layout.record.pack(*(fields if has_third else fields[:2]))
        except struct.error:  # out of range
            return None
    return bytes(out)


def _third_field(rows: _Rows, layout: _Layout, i: int) -> int:
    if not rows.is_stamped:
        return rows.cpu[i] & 0xFFFF_FFFF
    if layout.cpu_in_ip:
        return rows.counter[i]
    return rows.counter[i] << _TS_CPU_SHIFT | rows.cpu[i]


def _records(rows: _Rows, found: _Found) -> _Rows:
    """Read the records behind the rows at their right place; incomplete ones are left out."""
    size = found.layout.record.size
    records = _Rows(is_stamped=rows.is_stamped)
    cpu_mask = _cpu_mask(rows)
    # Each run of rows without a gap gives bytes without a gap; only the last one ends with the notice.
    for start, stop in pairwise(chain((0,), rows.breaks, (len(rows),))):
        run = _record_bytes(rows, found.layout, start, stop)
        if run is None:
            continue
        if stop == len(rows):
            run = run[: -found.size]
        for at in range(-found.size % size, len(run) - size + 1, size):
            _add_record(records, found.layout, cpu_mask, found.layout.record.unpack_from(run, at))
    return records


def _add_record(records: _Rows, layout: _Layout, cpu_mask: int, fields: tuple[int, ...]) -> None:
    ip, parent_ip, third = (*fields, 0)[:3]
    if layout.cpu_in_ip:
        records.add(0, ip & cpu_mask, third, ip, parent_ip)
    elif records.is_stamped:
        records.add(0, third & ((1 << _TS_CPU_SHIFT) - 1), third >> _TS_CPU_SHIFT, ip, parent_ip)
    else:
        records.add(0, third, 0, ip, parent_ip)


def _cpu_mask(rows: _Rows) -> int:
    # include/linux/pstore.h, PSTORE_CPU_IN_IP: two bits, but one bit in Thumb kernels
    return 3 if all(cpu == ip & 3 for cpu, ip in zip(rows.cpu, rows.ip, strict=True)) else 1


# --- what is shown ---------------------------------------------------------------------------------------------------


def _plausible(rows: _Rows, stop: int) -> "array[int]":
    """The rows before *stop* whose ``ip`` can be the address of a kernel function."""
    if not len(rows):
        return array("Q")
    if rows.is_64bit():
        return array("Q", (i for i in range(stop) if rows.ip[i] >> 56 in _KERNEL_TOP_BYTES))
    return array("Q", (i for i in range(stop) if rows.ip[i] >= _KERNEL_START_32))


def _in_step(data: bytes, rows: _Rows, stop: int, damage: list[str], *, ecc: EccNotice | None = None) -> Ftrace:
    """Show the rows before *stop* as the kernel printed them."""
    keep = _plausible(rows, stop)
    if len(keep) * 2 < stop:
        # Some rows of a late stream have a plausible address by chance, so none can be believed.
        damage.append(
            f"of {_counted(stop, 'row', 'rows')} most have no kernel address where one must be; all are left out"
        )
        return _result(rows, b"", array("Q"), damage, ecc=ecc)
    if len(keep) < stop:
        damage.append(_implausible(stop - len(keep)))
    damage += _order_damage(rows, keep)
    if len(keep) == len(rows) and not rows.unreadable:
        return _result(rows, data, rows.start, damage, ecc=ecc)
    text, starts = _joined(data[rows.start[i] : data.index(b"\n", rows.start[i]) + 1] for i in keep)
    return _result(rows, text, starts, damage, ecc=ecc)


def _realigned(rows: _Rows, found: _Found, late: int, damage: list[str]) -> Ftrace:
    """Show the records behind the rows, which the kernel printed *late* bytes late."""
    by = _counted(late, "byte", "bytes")
    fault = f"the kernel printed every record {by} late, over the ECC notice (Linux up to 6.12)"
    records = _records(rows, found)
    keep = _plausible(records, len(records))
    if len(keep) * 2 < len(records):
        damage.append(f"{fault}; read at the right place they have no kernel addresses, so they are left out")
        return _result(rows, b"", array("Q"), damage, ecc=found.ecc)
    damage.append(f"{fault}; they are shown as recorded, without symbols")
    if len(keep) < len(records):
        damage.append(_implausible(len(records) - len(keep)))
    damage += _order_damage(records, keep)
    digits = 16 if rows.is_64bit() else 8
    text, starts = _joined(_row_text(records, i, digits) for i in keep)
    return _result(rows, text, starts, damage, ecc=found.ecc, is_realigned=True)


def _row_text(rows: _Rows, i: int, digits: int) -> bytes:
    who = b"CPU:%d ts:%d" % (rows.cpu[i], rows.counter[i]) if rows.is_stamped else b"%d" % rows.cpu[i]
    return b"%b %0*x  %0*x\n" % (who, digits, rows.ip[i], digits, rows.parent_ip[i])


def _joined(lines: Iterable[bytes]) -> tuple[bytes, "array[int]"]:
    """Put lines together; also where each begins."""
    out = io.BytesIO()
    starts = array("Q")
    for line in lines:
        starts.append(out.tell())
        out.write(line)
    return out.getvalue(), starts


def _order_damage(rows: _Rows, keep: "array[int]") -> list[str]:
    # A zone is not reset at boot, and fs/pstore/ftrace.c merges the zones of the CPUs by the counter alone.
    falls = sum(rows.counter[i] > rows.counter[j] for i, j in pairwise(keep))
    if not falls:
        return []
    back = _counted(falls, "time", "times")
    return [f"the counter falls back {back}: calls of several boots may be mixed, and their order is not certain"]


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _implausible(rows: int) -> str:
    return f"{_counted(rows, 'row has', 'rows have')} no kernel address where one must be; left out"


def _ecc_damage(ecc: EccNotice) -> list[str]:
    if not ecc.unrecoverable_blocks:
        return []
    return [f"ECC could not repair {_counted(ecc.unrecoverable_blocks, 'block', 'blocks')} of the zone"]


def _result(
    rows: _Rows,
    text: bytes,
    starts: "array[int]",
    damage: list[str],
    *,
    ecc: EccNotice | None = None,
    is_realigned: bool = False,
) -> Ftrace:
    return Ftrace(
        calls=Calls(text, starts),
        text=text,
        damage=tuple(damage),
        dropped=max(0, len(rows) + rows.unreadable - len(starts)),
        ecc=ecc,
        is_realigned=is_realigned,
    )
