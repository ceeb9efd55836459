# SPDX-License-Identifier: Apache-2.0
"""ACPI's boot error record: one record, or nothing."""

from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import hardware
from fake_pstore.hardware import FATAL, boot_error_record
from tests.readers import kind_of, never_fails, read

REGION = boot_error_record([(hardware.MEMORY, FATAL, hardware.memory()), (hardware.PCIE, FATAL, hardware.pcie())])


def test_all_blocks_are_one_record() -> None:
    """Without the rest of the region, of which the kernel has printed and zeroed the status."""
    assert kind_of(REGION) == "bert"
    (record,) = read("bert", REGION)[0]
    assert record.name == "cper-bert-0"
    assert record.data + bytes(len(REGION) - len(record.data)) == REGION
    assert len(record.data) < 1000


def test_a_good_boot_leaves_none() -> None:
    """Zeros, or a single corrected error that is none."""
    assert kind_of(bytes(4096)) is None
    assert read("bert", bytes(4096))[0] == []


@given(st.integers(min_value=0))
def test_any_damage_is_survived(seed: int) -> None:
    """No error, whatever became of it."""
    never_fails("bert", lambda _: REGION, seed)
