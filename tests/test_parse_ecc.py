# SPDX-License-Identifier: Apache-2.0
"""The ECC notice behind records of ramoops: both wordings, only at the end, never more than it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture, damage
from pstored.parse.ecc import MAX_NOTICE, EccNotice, split_ecc_notice

TEXT = b"Panic#1 Part1\n<6>[    1.000000] last\n"


@pytest.mark.parametrize(
    ("notice", "expected"),
    [
        (b"\nECC: No errors detected\n", EccNotice(0, 0)),
        (b"\nNo errors detected\n", EccNotice(0, 0)),
        (b"\nECC: 12 Corrected bytes, 0 unrecoverable blocks\n", EccNotice(12, 0)),
        (b"\n3 Corrected bytes, 2 unrecoverable blocks\n", EccNotice(3, 2)),
        (b"\nECC: 2147483647 Corrected bytes, 2147483647 unrecoverable blocks\n", EccNotice(2**31 - 1, 2**31 - 1)),
    ],
)
def test_a_notice_is_cut_off_and_kept_as_a_fact(notice: bytes, expected: EccNotice) -> None:
    """Old and new words; the text before stays as it was, its own newline included."""
    assert split_ecc_notice(TEXT + notice) == (TEXT, expected)
    assert split_ecc_notice(notice) == (b"", expected)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        TEXT,
        b"ECC: No errors detected\n",
        TEXT.rstrip(b"\n") + b"ECC: No errors detected\n",
        TEXT + b"\nECC: No errors detected",
        TEXT + b"\nECC: No errors detected\n\n",
        TEXT + b"\nECC: No errors detected\nmore\n",
        TEXT + b"\nECC: no errors detected\n",
        TEXT + b"\nECC:  Corrected bytes, 2 unrecoverable blocks\n",
        TEXT + b"\nECC: 1 Corrected bytes, -1 unrecoverable blocks\n",
        TEXT + b"\nECC: 12345678901 Corrected bytes, 1 unrecoverable blocks\n",
    ],
)
def test_what_is_no_notice_stays(record: bytes) -> None:
    """Cut short, followed by more, or in other words: it is text, and nothing of it goes."""
    assert split_ecc_notice(record) == (record, None)


def test_only_the_last_notice_is_one() -> None:
    """A record may quote a notice; the kernel's own is at the very end."""
    notice = b"\nECC: No errors detected\n"
    assert split_ecc_notice(TEXT + notice + notice) == (TEXT + notice, EccNotice(0, 0))


def test_no_notice_is_longer_than_its_limit() -> None:
    """The store holds back MAX_NOTICE bytes of each record: with less it would miss one."""
    longest = damage.ecc_notice(damage.ECC_NEW, 9_999_999_999, 9_999_999_999)
    assert len(longest) <= MAX_NOTICE
    assert split_ecc_notice(bytes(1000) + longest) == (bytes(1000), EccNotice(9_999_999_999, 9_999_999_999))


@pytest.mark.parametrize("name", [n for n in capture.names() if "ecc=1" in (capture.load(n).params or "")])
def test_captured_records_with_ecc_bear_it(name: str) -> None:
    """Real records of a region with ECC: all but ftrace, whose notice the kernel reads as ftrace records."""
    for filename, data, _ in capture.load(name).records():
        rest, notice = split_ecc_notice(data)
        assert (notice is not None) == (not filename.startswith("ftrace"))
        assert data.startswith(rest)


@given(
    st.binary(max_size=300),
    st.sampled_from([damage.ECC_OLD, damage.ECC_NEW]),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
)
def test_notices_round_trip(content: bytes, word: bytes, corrected: int, blocks: int) -> None:
    """Whatever the content, what ramoops puts behind it comes off again, and only that."""
    data = content + damage.ecc_notice(word, corrected, blocks)
    assert split_ecc_notice(data) == (content, EccNotice(corrected, blocks))


@given(st.binary(max_size=400))
def test_any_bytes_give_a_prefix_of_themselves(data: bytes) -> None:
    """Nothing raises, and no byte is lost but a notice's."""
    rest, notice = split_ecc_notice(data)
    assert data.startswith(rest)
    assert notice is not None or rest == data
