# SPDX-License-Identifier: Apache-2.0
"""Dumps of all memory: a region of ramoops is found wherever it is, and what only looks like one is none."""

import random

import pytest

from fake_pstore.ramoops import Parameters, Region
from tests.readers import kind_of, read

PANIC = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: %s\n"


def region(words: bytes, **parameters: object) -> bytes:
    """One with a dump in it."""
    made = Region(Parameters(mem_size=0x40000, **parameters))  # type: ignore[arg-type]  # each test gives what it takes
    made.dump(PANIC % words, seconds=1_795_000_000)
    return made.image()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("at", [4096, 0x100000 - 4, 0x123456])
def test_a_region_anywhere(order: str, at: int) -> None:
    """Also where a header crosses from one piece that is read to the next."""
    noise = random.Random(at).randbytes(at)
    image = noise + region(b"here", order=order) + noise[:5000]
    assert kind_of(image) == "ram"
    records, remarks = read("ram", image)
    assert [r.data for r in records] == [PANIC % b"here"]
    assert any(f"begins at byte {at:#x}" in r.text for r in remarks)


def test_two_regions_far_apart() -> None:
    """Two machines' memories in one file, or an old and a new place."""
    image = bytes(4096) + region(b"one") + bytes(160 << 20) + region(b"two", ecc=16)
    records, _ = read("ram", image)
    assert [r.data.partition(b"\nECC")[0].rstrip(b"\n") for r in records] == [
        (PANIC % words).rstrip(b"\n") for words in (b"one", b"two")
    ]


def test_four_bytes_are_no_region() -> None:
    """As they stand in the code of the driver, wherever the kernel is."""
    code = b"\x81\x3f\x44\x42\x47\x43\x75\x0e\x00\x00\x75\x0e\x00\x00\x90\x90"
    image = random.Random(1).randbytes(9000) + code + random.Random(2).randbytes(9000)
    assert kind_of(image) is None
    assert read("ram", image)[0] == []
