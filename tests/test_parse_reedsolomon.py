# SPDX-License-Identifier: Apache-2.0
"""The code of ramoops: what is whole, what is not, what can be put right, how fast."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore.ramoops import parity
from pstored.parse.reedsolomon import BLOCK, MAX_LOST, corrector, damaged_blocks

RANDOM = random.Random(7)


def encode(data: bytes, roots: int, block: int = BLOCK) -> bytes:
    """The parity of all blocks, by the independent writer."""
    return b"".join(parity(data[at : at + block], roots) for at in range(0, len(data), block))


@pytest.mark.parametrize("roots", [2, 3, 8, 16, 17, 32, 64])
@pytest.mark.parametrize("size", [1, 12, 127, 128, 129, 128 * 5, 128 * 5 + 77])
def test_what_the_kernel_wrote_is_whole(roots: int, size: int) -> None:
    """Full blocks and a short last one."""
    data = RANDOM.randbytes(size)
    assert damaged_blocks(data, encode(data, roots), roots) == []


@given(st.binary(min_size=1, max_size=700), st.integers(2, 20), st.data())
def test_any_wrong_byte_is_found(data: bytes, roots: int, draw: st.DataObject) -> None:
    """In the data, or in the parity: its block, and no other."""
    checks = encode(data, roots)
    both = bytearray(data + checks)
    places = draw.draw(st.sets(st.integers(0, len(both) - 1), min_size=1, max_size=min(3, roots)))
    for at in places:
        both[at] ^= draw.draw(st.integers(1, 255))
    wrong = {at // BLOCK if at < len(data) else (at - len(data)) // roots for at in places}
    assert damaged_blocks(bytes(both[: len(data)]), bytes(both[len(data) :]), roots) == sorted(wrong)


def test_more_blocks_than_are_looked_at_at_once() -> None:
    """Of many thousand, those that are damaged."""
    one = RANDOM.randbytes(BLOCK)
    data = bytearray(one * 9000)
    checks = parity(one, 16) * 9000
    for block in (0, 4095, 4096, 8999):
        data[block * BLOCK + 5] ^= 1
    assert damaged_blocks(bytes(data), checks, 16) == [0, 4095, 4096, 8999]


@pytest.mark.parametrize("roots", [4, 16, 32])
@pytest.mark.parametrize("size", [12, 100, 128])
def test_half_as_many_wrong_bytes_as_parity_are_put_right(roots: int, size: int) -> None:
    """Every number of them, anywhere in data and parity; more is no code word, or said to be lost."""
    correct = corrector(roots)
    assert correct is not None
    for wrong in (1, roots // 2, roots // 2 + 1, roots):
        for _ in range(20):
            data = RANDOM.randbytes(size)
            block = bytearray(data + parity(data, roots))
            for at in RANDOM.sample(range(len(block)), min(wrong, len(block))):
                block[at] ^= RANDOM.randrange(1, 256)
            found = correct(bytes(block))
            if wrong <= roots // 2:
                assert found == (data, wrong)
            else:
                assert found is None or found[0] != data  # near another code word: the kernel would be deceived, too


def test_without_the_package_nothing_is_put_right() -> None:
    """It is an extra."""
    assert corrector(16, find=lambda: None) is None


def test_what_is_no_code_is_not_tried_for_ever() -> None:
    """Half a millisecond a block, for a region of rubbish."""
    correct = corrector(16)
    assert correct is not None
    data = RANDOM.randbytes(128)
    whole = data + parity(data, 16)
    assert correct(whole) == (data, 0)
    assert sum(correct(RANDOM.randbytes(144)) is None for _ in range(MAX_LOST)) == MAX_LOST
    assert correct(whole) is None


def test_checking_is_fast_enough() -> None:
    """20 MB/s for a clean region; here half of that, for busy machines."""
    one = RANDOM.randbytes(BLOCK)
    data, checks = one * 8192, parity(one, 16) * 8192
    best = 1e9
    for _ in range(5):
        began = time.process_time()
        assert damaged_blocks(data, checks, 16) == []
        best = min(best, time.process_time() - began)
    assert len(data) / best > 10e6
