# SPDX-License-Identifier: Apache-2.0
"""The function trace: what pstorefs shows of it, and what of that is true."""

import random
import re
import struct
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.parse.ecc import EccNotice
from pstored.parse.ftrace import Call, parse_ftrace_text

CAPTURES = Path(__file__).parent.parent / "fake_pstore" / "captures"
CLEAN = b"\nECC: No errors detected\n"
CLEAN_OLD = b"\nNo errors detected\n"

Record = tuple[int, int, int, int]
"""ip, parent_ip, counter, cpu"""


def captured() -> bytes:
    """A real trace of two CPUs, x86-64, Linux 6.1, no ECC, 7,273 rows without symbols."""
    with tarfile.open(CAPTURES / "x86_64-6.1-ramoops-all" / "pstore.tar.xz") as tar:
        member = tar.extractfile("ftrace-ramoops-0")
        assert member is not None
        return member.read()


def records_of(text: bytes) -> list[Record]:
    """The captured rows as numbers, read independently of the code under test."""
    found = re.findall(rb"CPU:(\d+) ts:(\d+) (\w+)  (\w+)  ", text)
    return [(int(ip, 16), int(parent, 16), int(ts), int(cpu)) for cpu, ts, ip, parent in found]


class Kernel:
    """A kernel's view of its records, from fs/pstore/inode.c, pstore_ftrace_seq_start() and _show(), and pstore.h."""

    def __init__(self, record: str, *, cpu_mask: int = 0, is_stamped: bool = True) -> None:
        self.record = struct.Struct(record)
        self.cpu_mask = cpu_mask
        self.is_stamped = is_stamped

    def zone(self, records: list[Record]) -> bytes:
        """What the kernel that crashed left in memory."""
        return b"".join(self.record.pack(*self._stored(*r)) for r in records)

    def _stored(self, ip: int, parent: int, counter: int, cpu: int) -> tuple[int, ...]:
        if not self.is_stamped:
            return (ip | cpu, parent) if self.cpu_mask else (ip, parent, cpu)
        return (ip | cpu, parent, counter) if self.cpu_mask else (ip, parent, counter << 8 | cpu)

    def show(self, buf: bytes) -> bytes:
        """What the kernel that reads shows of them; *buf* is the zone and, up to 6.12, the ECC notice."""
        size = self.record.size
        return b"".join(
            self._line(*(*self.record.unpack_from(buf, at), 0)[:3])
            for at in range(len(buf) % size, len(buf) - size + 1, size)
        )

    def _line(self, ip: int, parent: int, third: int) -> bytes:
        symbols = b"0x%x <- 0x%x" % (ip, parent)
        if not self.is_stamped:
            cpu = ip & self.cpu_mask if self.cpu_mask else struct.unpack("<i", struct.pack("<I", third))[0]
            return b"%d %08x  %08x  %b\n" % (cpu, ip, parent, symbols)
        cpu, counter = (ip & self.cpu_mask, third) if self.cpu_mask else (third & 0xFF, third >> 8)
        return b"CPU:%d ts:%d %08x  %08x  %b\n" % (cpu, counter, ip, parent, symbols)


LP64 = Kernel("<QQQ")
BE64 = Kernel(">QQQ")
LE32 = Kernel("<IIQ")
ARM = Kernel("<IIQ", cpu_mask=3)
THUMB = Kernel("<IIQ", cpu_mask=1)
BE32 = Kernel(">IIQ")
OLD64 = Kernel("<QQI4x", is_stamped=False)
OLD32 = Kernel("<III", is_stamped=False)
OLD_ARM = Kernel("<II", cpu_mask=3, is_stamped=False)


def some_records(base: int, *, count: int = 40, cpus: int = 2) -> list[Record]:
    """Calls at addresses from *base* on, aligned to 4 as on ARM, with a rising counter."""
    rng = random.Random(1)
    return [
        (base + rng.randrange(0x400000) * 4, base + rng.randrange(0x400000) * 4, 900 + i, rng.randrange(cpus))
        for i in range(count)
    ]


def test_a_real_trace_is_shown_as_it_is() -> None:
    """Without ECC every row is true: the text is the record, and the calls have its numbers."""
    text = captured()
    trace = parse_ftrace_text(text)
    assert trace.text is text
    assert (trace.damage, trace.dropped, trace.ecc, trace.is_realigned) == ((), 0, None, False)
    assert [(c.ip, c.parent_ip, c.counter, c.cpu) for c in trace.calls] == records_of(text)
    assert len(trace.calls) == 7273


@pytest.mark.parametrize(
    ("line", "call"),
    [
        (
            b"CPU:1 ts:4711 ffffffff81012345  ffffffff81023456  do_one <- do_all+0x12/0x40 [ext4]\n",
            Call(1, 4711, 0xFFFFFFFF81012345, 0xFFFFFFFF81023456, b"do_one", b"do_all+0x12/0x40 [ext4]"),
        ),
        (
            b"CPU:0 ts:0 c0112345  c0123456  0xc0112345 <- start_kernel+0x1/0x2\n",
            Call(0, 0, 0xC0112345, 0xC0123456, None, b"start_kernel+0x1/0x2"),
        ),
        (
            b"3 ffffffff81012345  ffffffff81023456  do_one <- do_all+0x12\n",
            Call(3, None, 0xFFFFFFFF81012345, 0xFFFFFFFF81023456, b"do_one", b"do_all+0x12"),
        ),
        (
            b"CPU:7 ts:72057594037927935 c000000000012340  0000000000000000\n",
            Call(7, 2**56 - 1, 0xC000000000012340, 0, None, None),
        ),
    ],
)
def test_rows_of_all_kernels(line: bytes, call: Call) -> None:
    """Both generations of rows, with names, without, and with none found."""
    trace = parse_ftrace_text(line)
    assert list(trace.calls) == [call]
    assert trace.text == line
    assert trace.damage == ()


def test_calls_are_a_sequence() -> None:
    """Calls can be counted, indexed from both ends and sliced."""
    calls = parse_ftrace_text(LP64.show(LP64.zone(some_records(0xFFFFFFFF81000000)))).calls
    assert calls[0].counter == 900
    assert calls[-1].counter == 939
    assert [c.counter for c in calls[10:13]] == [910, 911, 912]
    with pytest.raises(IndexError):
        calls[40]


KERNELS = [
    pytest.param(LP64, 0xFFFFFFFF81000000, 8, id="x86-64"),
    pytest.param(LP64, 0xFFFF800008000000, 8, id="arm64"),
    pytest.param(BE64, 0xC000000000000000, 8, id="ppc64"),
    pytest.param(LE32, 0xC0100000, 4, id="i386"),
    pytest.param(BE32, 0x80100000, 4, id="mips"),
    pytest.param(ARM, 0xC0100000, 4, id="arm"),
    pytest.param(THUMB, 0xC0100000, 2, id="thumb"),
    pytest.param(OLD32, 0xC0100000, 4, id="i386-4.9"),
    pytest.param(OLD_ARM, 0xC0100000, 4, id="arm-4.9"),
]
NOTICES = [
    pytest.param(CLEAN, EccNotice(0, 0), id="clean"),
    pytest.param(CLEAN_OLD, EccNotice(0, 0), id="clean-5.19"),
    pytest.param(b"\nECC: 1 Corrected bytes, 0 unrecoverable blocks\n", EccNotice(1, 0), id="48-bytes"),
    pytest.param(b"\nECC: 12 Corrected bytes, 0 unrecoverable blocks\n", EccNotice(12, 0), id="49-bytes"),
    pytest.param(b"\n2147483647 Corrected bytes, 2147483647 unrecoverable blocks\n", EccNotice(2147483647, 2147483647)),
]


@pytest.mark.parametrize("cut", [0, 5, 11])
@pytest.mark.parametrize(("notice", "ecc"), NOTICES)
@pytest.mark.parametrize(("kernel", "base", "cpus"), KERNELS)
def test_the_ecc_notice_never_becomes_a_call(
    kernel: Kernel, base: int, cpus: int, notice: bytes, ecc: EccNotice, cut: int
) -> None:
    """All records but at most the oldest come back with their true numbers, and nothing else, on every machine."""
    records = some_records(base, cpus=cpus)
    buf = kernel.zone(records)[cut:] + notice
    trace = parse_ftrace_text(kernel.show(buf))
    late = len(notice) % kernel.record.size
    given = [(c.ip - (c.cpu if kernel.cpu_mask else 0), c.parent_ip, c.counter, c.cpu) for c in trace.calls]
    expected = [(ip, parent, n if kernel.is_stamped else None, cpu) for ip, parent, n, cpu in records]
    whole = expected[-(-cut // kernel.record.size) :]
    assert given in (whole, whole[1:])
    if late == 0:
        assert given == whole
    assert trace.ecc == ecc
    assert trace.is_realigned == (late != 0)
    assert any("(Linux up to 6.12)" in sentence for sentence in trace.damage)
    assert any("could not repair" in sentence for sentence in trace.damage) == bool(ecc.unrecoverable_blocks)


def test_a_real_trace_shown_late() -> None:
    """The capture as a kernel with ECC would have shown it: 25 bytes of notice, so each row is 1 byte late."""
    records = records_of(captured())
    shown = LP64.show(LP64.zone(records) + CLEAN)
    assert b"ffffffffb48213a6" not in shown
    trace = parse_ftrace_text(shown)
    assert [(c.ip, c.parent_ip, c.counter, c.cpu) for c in trace.calls] == records[1:]
    assert trace.text.splitlines()[0] == b"CPU:0 ts:1 ffffffffb48213a6  ffffffffb4881b03"
    assert trace.damage == (
        (
            "the kernel printed every record 1 byte late, over the ECC notice (Linux up to 6.12); "
            "they are shown as recorded, without symbols"
        ),
    )
    assert trace.dropped == shown.count(b"\n") - len(records) + 1


def test_thumb_keeps_one_bit_for_the_cpu() -> None:
    """Thumb instructions are two bytes, so bit 1 of ip belongs to the address, not to the CPU."""
    records = [(ip + 2 * (n % 2), parent, n, cpu) for ip, parent, n, cpu in some_records(0xC0100000)]
    trace = parse_ftrace_text(THUMB.show(THUMB.zone(records) + CLEAN))
    assert [(c.ip - c.cpu, c.parent_ip, c.counter, c.cpu) for c in trace.calls] == records[1:]


def test_a_notice_in_step_costs_only_its_own_rows() -> None:
    """48 bytes of notice are two rows; the others keep their symbols."""
    shown = LP64.show(LP64.zone(some_records(0xFFFFFFFF81000000))).replace(b"  0xffffffff81", b"  name_81")
    notice = LP64.show(b"\nECC: 1 Corrected bytes, 0 unrecoverable blocks\n")
    trace = parse_ftrace_text(shown + notice)
    assert trace.text == shown
    assert trace.dropped == 2
    assert trace.damage == ("the last 2 rows are the ECC notice (Linux up to 6.12) and left out",)


def test_late_rows_without_the_proof_are_not_shown() -> None:
    """A late stream whose notice is cut off cannot be proven: nothing of it is shown, and that is said."""
    shown = LP64.show(LP64.zone(some_records(0xFFFFFFFF81000000, count=400)) + CLEAN)
    cut = b"".join(shown.splitlines(keepends=True)[:-2])
    trace = parse_ftrace_text(cut)
    assert trace.text == b""
    assert len(trace.calls) == 0
    assert trace.damage == ("of 399 rows most have no kernel address where one must be; all are left out",)


def test_late_rows_of_64_bit_kernels_before_4_10_are_not_shown() -> None:
    """Their rows hide padding, so the bytes cannot be put together; the rows are false all the same."""
    shown = OLD64.show(OLD64.zone(some_records(0xFFFFFFFF81000000)) + CLEAN_OLD)
    trace = parse_ftrace_text(shown)
    assert trace.text == b""
    assert trace.dropped == shown.count(b"\n") == 40


def test_records_that_are_no_kernel_addresses_even_at_the_right_place() -> None:
    """The notice alone is not enough: what stands before it must look like calls."""
    noise = [(i * 7919 % 65536, i, i, 0) for i in range(40)]
    trace = parse_ftrace_text(LP64.show(LP64.zone(noise) + CLEAN))
    assert trace.text == b""
    assert "no kernel addresses" in trace.damage[0]
    assert trace.ecc == EccNotice(0, 0)


def test_one_broken_row_among_good_ones() -> None:
    """A row whose address is no kernel address is left out and counted; its neighbours stay."""
    records = some_records(0xFFFFFFFF81000000)
    shown = LP64.show(LP64.zone(records)).splitlines(keepends=True)
    broken = b"CPU:0 ts:5 20646574636574  a726f20  0x20646574636574 <- 0x0a726f20\n".replace(b"  a72", b"  00a72")
    trace = parse_ftrace_text(b"".join([*shown[:20], broken, *shown[20:]]))
    assert trace.text == b"".join(shown)
    assert trace.dropped == 1
    assert trace.damage == ("1 row has no kernel address where one must be; left out",)


@pytest.mark.parametrize(
    "junk",
    [
        b"\n",
        b"CPU:0 ts:99999999999999999999 ffffffff81000000  ffffffff81000000  a <- b\n",
        b"CPU:0 ts:7 ffffffff81000000 ffffffff81000000 a <- b\n",
        b"\x00\xff\x00 noise\n",
        b"3 ffffffff81000000  ffffffff81000000  a <- b\n",
    ],
)
def test_lines_that_are_no_rows_are_counted(junk: bytes) -> None:
    """Before, between and after rows, what is no row is left out and said."""
    shown = LP64.show(LP64.zone(some_records(0xFFFFFFFF81000000))).splitlines(keepends=True)
    trace = parse_ftrace_text(b"".join([*shown[:10], junk, *shown[10:], junk]))
    assert trace.text == b"".join(shown)
    assert trace.dropped == 2
    assert trace.damage == ("2 lines are no trace and left out",)


def test_a_cut_last_row_is_no_row() -> None:
    """A row without its newline may lack digits or half a name."""
    shown = LP64.show(LP64.zone(some_records(0xFFFFFFFF81000000)))
    trace = parse_ftrace_text(shown[:-1])
    assert len(trace.calls) == 39
    assert trace.dropped == 1


def test_a_gap_in_a_late_stream_costs_the_record_across_it() -> None:
    """Bytes on both sides of an unreadable row are never joined to a record that was not there."""
    records = some_records(0xFFFFFFFF81000000)
    lines = LP64.show(LP64.zone(records) + CLEAN).splitlines(keepends=True)
    trace = parse_ftrace_text(b"".join([*lines[:10], b"?\n", *lines[11:]]))
    # rows 9, 10 and 11 hold the records 10, 11 and 12 but for their first byte
    assert [c.counter for c in trace.calls] == [900 + i for i in range(1, 40) if i not in (10, 11)]
    assert trace.is_realigned


def test_several_boots_in_one_zone() -> None:
    """The zone is not reset at boot; a counter that falls back is said, and no call is lost."""
    first = some_records(0xFFFFFFFF81000000)
    second = [(ip, parent, n - 900, cpu) for ip, parent, n, cpu in first]
    trace = parse_ftrace_text(LP64.show(LP64.zone(first + second)))
    assert len(trace.calls) == 80
    assert trace.damage == (
        "the counter falls back 1 time: calls of several boots may be mixed, and their order is not certain",
    )


@pytest.mark.parametrize("data", [b"", b"\n\n", b"no trace at all\n", b"CPU:0 ts:0", bytes(100)])
def test_no_rows(data: bytes) -> None:
    """What has no row gives no text and no calls, and every line is counted."""
    trace = parse_ftrace_text(data)
    assert (trace.text, len(trace.calls), trace.ecc) == (b"", 0, None)
    assert trace.dropped == len(data.splitlines())
    assert bool(trace.damage) == bool(data)


ROWS = st.builds(
    lambda stamped, cpu, ts, ip, parent, tail: (
        (b"CPU:%d ts:%d" % (cpu % 1000, ts) if stamped else b"%d" % (cpu - 5)) + b" %08x  %08x" % (ip, parent) + tail
    ),
    st.booleans(),
    st.integers(0, 2**31),
    st.integers(0, 2**65),
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 0xC0000000, 0xFFFFFFFF81000000, 2**64 - 1]),
    st.sampled_from([b"\n", b"  a <- b\n", b"  \xff\x00\n", b"", b" \n"]),
)


@given(st.lists(st.one_of(ROWS, st.binary(max_size=40)), max_size=20).map(b"".join))
def test_any_bytes_give_a_trace(data: bytes) -> None:
    """Any bytes give a value, never an exception, and every line of the text is a call that reads back the same."""
    trace = parse_ftrace_text(data)
    assert len(trace.calls) == trace.text.count(b"\n")
    assert all(0 <= c.ip < 2**64 for c in trace.calls)
    if not trace.is_realigned:
        assert set(trace.text.split(b"\n")) <= set(data.split(b"\n")) | {b""}


@given(
    st.lists(st.tuples(*[st.integers(0, 2**64 - 1)] * 2, st.integers(0, 2**56 - 1), st.integers(0, 255)), max_size=20),
    st.sampled_from([b"", CLEAN, CLEAN_OLD, b"\nECC: 1 Corrected bytes, 0 unrecoverable blocks\n"]),
    st.integers(0, 23),
)
def test_no_call_is_made_up(records: list[Record], notice: bytes, cut: int) -> None:
    """Whatever a 64-bit zone holds, a call that is given was recorded, if the notice is there to prove it."""
    trace = parse_ftrace_text(LP64.show(LP64.zone(records)[cut:] + notice))
    if trace.ecc is not None:
        assert {(c.ip, c.parent_ip, c.counter, c.cpu) for c in trace.calls} <= set(records)


def test_memory_is_bounded_by_the_input() -> None:
    """Short rows without end take less than four times their size."""
    data = b"1 c0000000  c0000000\n" * 100_000
    tracemalloc.start()
    try:
        trace = parse_ftrace_text(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(trace.calls) == 100_000
    assert peak < 4 * len(data)
