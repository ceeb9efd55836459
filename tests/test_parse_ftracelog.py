# SPDX-License-Identifier: Apache-2.0
"""Binary ftrace records as the kernel prints them."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import ftrace
from pstored.parse.ftracelog import MAX_CALLS, show


def calls(number: int = 300, kaslr: int = 0) -> list[ftrace.Call]:
    """On two CPUs."""
    return ftrace.calls(random.Random(1), number, kaslr=kaslr)


def test_one_zone_is_what_the_kernel_shows() -> None:
    """Without symbols."""
    log = ftrace.pack(calls())
    assert show([log], "little").text == ftrace.show(log)
    assert show([log[5:]], "little").text == ftrace.show(log[24:]), "the first record is cut: a ring that has wrapped"


def test_the_zones_of_cpus_come_together_by_their_counters() -> None:
    """As if there had been one."""
    every = calls()
    zones = [ftrace.pack([c for c in every if c.cpu == cpu]) for cpu in (0, 1)]
    assert show(zones, "little").text == ftrace.show(ftrace.pack(every))
    assert show([zones[0], b"", zones[1][7:]], "little").calls == len(every) - 1


@pytest.mark.parametrize(("order", "mark"), [("little", "<"), ("big", ">")])
def test_words_of_32_bits_and_either_order(order: str, mark: str) -> None:
    """The CPU in the counter, as elsewhere; or in the address, on ARM with few CPUs."""
    lows = b"".join(struct.pack(f"{mark}IIQ", 0xC0100000 + 4 * n, 0xC0200001, n << 8 | n % 2) for n in range(200))
    first = b"CPU:0 ts:0 c0100000  c0200001  0xc0100000 <- 0xc0200001\n"
    assert show([lows], order).text.startswith(first)  # type: ignore[arg-type]  # one of the two
    packed = b"".join(struct.pack(f"{mark}IIQ", 0xC0100000 | n % 4, 0xC0200000, n) for n in range(200))
    text = show([packed], order).text  # type: ignore[arg-type]
    assert text.splitlines()[7] == b"CPU:3 ts:7 c0100003  c0200000  0xc0100003 <- 0xc0200000"
    high = struct.pack(f"{mark}QQQ", 0xFFFF800010000000, 0xFFFF800010000044, 5 << 8 | 1) * 3
    assert b"CPU:1 ts:5 ffff800010000000  ffff800010000044  0xffff800010000000" in show([high], order).text  # type: ignore[arg-type]


def test_records_without_a_counter() -> None:
    """Up to Linux 4.9: the CPU alone, and four bytes that mean nothing."""
    log = b"".join(struct.pack("<QQII", 0xFFFFFFFF81000000 + n, 0xFFFFFFFF81000001, n % 2, 0x5A5A) for n in range(9))
    assert show([log], "little").text.startswith(
        b"0 ffffffff81000000  ffffffff81000001  0xffffffff81000000 <- 0xffffffff81000001\n1 "
    )


def test_a_trace_without_an_end_is_cut_to_its_last_calls() -> None:
    """The text would be four times as large as the zone."""
    log = ftrace.pack(calls(100)) * (MAX_CALLS // 100 + 1)
    trace = show([log], "little")
    assert (trace.calls, trace.text.count(b"\n")) == (MAX_CALLS + 100, MAX_CALLS)


@given(st.lists(st.binary(max_size=200), max_size=4), st.sampled_from(["little", "big"]))
def test_any_bytes_are_shown(zones: list[bytes], order: str) -> None:
    """Whatever they are: a line each."""
    trace = show(zones, order)  # type: ignore[arg-type]
    assert trace.text.count(b"\n") == trace.calls
