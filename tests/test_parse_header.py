# SPDX-License-Identifier: Apache-2.0
"""The lines before the text of a dmesg record: every variant, and everything that only looks like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import dump
from pstored.parse.header import SHUTDOWN_REASONS, DmesgText, DumpHeader, split_dump_header

BODY = b"<6>[    1.200000] text\n"
REASONS = ["Panic", "Oops", "Emergency", "Shutdown", "Restart", "Halt", "Poweroff", "Kexec", "Unknown"]


@pytest.mark.parametrize(
    ("head", "header", "time_ns"),
    [
        (b"Panic#1 Part1\n", DumpHeader("Panic", 1, 1), None),
        (b"Oops#2 Part16\n", DumpHeader("Oops", 2, 16), None),
        (b"Emergency#3 Part1\n", DumpHeader("Emergency", 3, 1), None),
        (b"Unknown#1 Part1\n", DumpHeader("Unknown", 1, 1), None),
        (b"Panic#1 Part 1\n", DumpHeader("Panic", 1, 1), None),
        (b"Panic#4294967295 Part4294967295\n", DumpHeader("Panic", 2**32 - 1, 2**32 - 1), None),
        (b"Panic: Total 3 times\nPanic#1 Part1\n", DumpHeader("Panic", 1, 1), None),
        (b"====1795407522.170001\nOops#1 Part1\n", DumpHeader("Oops", 1, 1), 1_795_407_522_170_001_000),
        (b"====1795407522.170001-D\nOops#1 Part1\n", DumpHeader("Oops", 1, 1), 1_795_407_522_170_001_000),
        (b"====0.0-C\n", None, 0),
        (b"", None, None),
    ],
)
def test_the_header_of_every_era_is_split_off(head: bytes, header: DumpHeader | None, time_ns: int | None) -> None:
    """The text behind it is whole, whatever stood before."""
    assert split_dump_header(head + BODY) == DmesgText(header, time_ns, BODY)


@pytest.mark.parametrize(
    "record",
    [
        b"Panic#1 Part1",
        b" Panic#1 Part1\n",
        b"Panic #1 Part1\n",
        b"panic#1 Part1\n",
        b"Panic#-1 Part1\n",
        b"Panic#1 Part\n",
        b"Panic#1 PartX\n",
        b"Panic#1 Part1 \n",
        b"Panic#" + b"1" * 21 + b" Part1\n",
        b"Warning#1 Part1\n",
        b"====17.a\nText\n",
        b"====\n",
        b"\x00Panic#1 Part1\n",
    ],
)
def test_what_only_looks_like_a_header_is_text(record: bytes) -> None:
    """Nothing is guessed, and nothing dropped."""
    assert split_dump_header(record) == DmesgText(None, None, record)


def test_a_header_and_nothing_else_has_no_text() -> None:
    """An empty text is no missing header."""
    assert split_dump_header(b"Panic#1 Part1\n") == DmesgText(DumpHeader("Panic", 1, 1), None, b"")


def test_only_the_first_header_is_one() -> None:
    """A log may quote a header in its text."""
    text = b"Oops#2 Part2\n" + BODY
    assert split_dump_header(b"Panic#1 Part1\n" + text).text == text


def test_an_orderly_end_has_these_words() -> None:
    """The words before 5.8 are the same thing; no reason of a crash is among them."""
    assert sorted(SHUTDOWN_REASONS) == ["Halt", "Kexec", "Poweroff", "Restart", "Shutdown"]


@given(
    st.sampled_from(REASONS),
    st.integers(0, 2**32),
    st.integers(0, 2**32),
    st.none() | st.tuples(st.integers(0, 2**33), st.integers(0, 999_999)),
    st.booleans(),
    st.binary(max_size=200),
)
def test_headers_round_trip(
    reason: str, count: int, part: int, time: tuple[int, int] | None, total: bool, text: bytes
) -> None:
    """What a kernel writes in front of any text comes off again, and the text is as it was."""
    head = b"" if time is None else dump.old_ramoops_line(*time)
    head += dump.blk_total_line(reason.encode(), count) if total else b""
    split = split_dump_header(head + dump.header(reason.encode(), count, part) + text)
    assert split.header == DumpHeader(reason, count, part)
    assert split.text == text
    assert split.time_ns == (None if time is None else time[0] * 10**9 + time[1] * 1000)


@given(st.binary(max_size=200))
def test_any_bytes_end_with_the_text(data: bytes) -> None:
    """Nothing raises; without a header and a time line nothing is dropped."""
    split = split_dump_header(data)
    assert data.endswith(split.text)
    if split.header is None and not data.startswith((b"====", b"Panic:", b"Oops:")):
        assert split.text == data
