# SPDX-License-Identifier: Apache-2.0
"""CPER records taken apart."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore.cper import DMESG, MCE, cper_record
from pstored.errors import DamagedError
from pstored.parse.cper import CREATOR_PSTORE, SECTION_DMESG, SECTION_MCE, parse_cper, record_length

TWO = cper_record([(DMESG, b"text"), (MCE, b"struct")], record_id=7 << 32 | 1, seconds=1_795_000_000, fru=b"DIMM A1")


def test_a_record_is_taken_apart() -> None:
    """Header, sections, their units; what stands behind it is left alone."""
    cper = parse_cper(TWO + b"rest")
    assert (cper.creator, cper.record_id, cper.unix_time) == (CREATOR_PSTORE, 7 << 32 | 1, 1_795_000_000)
    assert [(s.type, s.data, s.fru, s.severity) for s in cper.sections] == [
        (SECTION_DMESG, b"text", "DIMM A1", 1),
        (SECTION_MCE, b"struct", "DIMM A1", 1),
    ]
    assert cper.length == len(TWO)
    assert cper.damage == ()


def test_a_record_without_a_time() -> None:
    """What stands there then is none."""
    assert parse_cper(cper_record([(UUID(int=1), b"")], record_id=1, seconds=None)).unix_time == 0


def test_what_is_missing_is_said() -> None:
    """Cut anywhere behind its header."""
    for size in range(128, len(TWO)):
        damage = parse_cper(TWO[:size]).damage
        assert damage[0] == f"the record has {len(TWO)} bytes, of which {len(TWO) - size} are missing"
    many = bytearray(TWO)
    many[10:12] = b"\xff\xff"
    assert any("too many to be true" in text for text in parse_cper(bytes(many)).damage)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_damaged(data: bytes) -> None:
    """Nothing else is raised."""
    for source in (data, b"CPER\x00\x01\xff\xff\xff\xff" + data):
        length = record_length(source)
        if length is None:
            with pytest.raises(DamagedError):
                parse_cper(source)
        else:
            assert len(parse_cper(source).sections) <= 64
