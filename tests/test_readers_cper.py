# SPDX-License-Identifier: Apache-2.0
"""CPER records, one behind the other."""

import random

from hypothesis import given
from hypothesis import strategies as st

from fake_pstore.cper import DMESG, cper_record
from tests.readers import kind_of, never_fails, read

TEXT = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: x\n"


def record(number: int, data: bytes = TEXT) -> bytes:
    """A dump of some boot."""
    return cper_record([(DMESG, data)], record_id=number, seconds=1_795_000_000)


def test_records_without_a_store() -> None:
    """As /dev/erst_dbg gives them; rubbish behind them is said."""
    records, remarks = read("cper", record(1) + record(2) + b"rubbish")
    assert kind_of(record(1)) == "cper"
    assert [r.data for r in records] == [TEXT, TEXT]
    assert remarks[0].text.startswith("no record at byte ")
    assert remarks[0].is_damage


@given(st.integers(min_value=0))
def test_any_damage_is_survived(seed: int) -> None:
    """No error, whatever became of it."""

    def make(rng: random.Random) -> bytes:
        return b"".join(record(n, rng.randbytes(50)) for n in range(3))

    never_fails("cper", make, seed)
