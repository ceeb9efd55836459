# SPDX-License-Identifier: Apache-2.0
"""Blocks of snappy: whole ones, and any bytes."""

from hypothesis import example, given
from hypothesis import strategies as st

from fake_pstore import vmcore
from pstored.errors import DamagedError
from pstored.parse.snappy import decode_snappy

LIMIT = 1 << 16


@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"abcd" * 30, bytes(300)]), max_size=30).map(b"".join))
def test_round_trip(text: bytes) -> None:
    """Literals and copies, near and overlapping."""
    assert decode_snappy(vmcore.snappy(text), LIMIT) == text


@given(st.binary(max_size=200))
@example(b"\xff\xff\x03\xfe\x01\x00")
@example(b"\x80\x80\x04\x00a" + b"\xfe\x01\x00" * 1024)
def test_any_bytes_give_their_text_or_damaged_error(data: bytes) -> None:
    """What a block says is its length is what it gives, and no more than the limit."""
    try:
        text = decode_snappy(data, LIMIT)
    except DamagedError:
        return
    assert len(text) <= LIMIT
    # the length stands in front, 7 bits a byte, the lowest first
    size = shift = 0
    for byte in data:
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    assert len(text) == size
