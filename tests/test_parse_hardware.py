# SPDX-License-Identifier: Apache-2.0
"""Errors of the hardware in words: all sections that firmware writes, both forms of records."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import hardware
from fake_pstore.cper import cper_record
from fake_pstore.hardware import CORRECTED, FATAL, INFORMATIONAL, RECOVERABLE, boot_error_record
from pstored.errors import DamagedError
from pstored.parse.cper import Section
from pstored.parse.cpersections import KNOWN, tell
from pstored.parse.estatus import parse_estatus
from pstored.parse.hardware import parse_hardware

SECTIONS: dict[str, tuple[UUID, bytes, str, set[tuple[str, str]]]] = {
    "memory": (
        hardware.MEMORY,
        hardware.memory(),
        "memory: multi-bit ECC error at 0x7d0000000 (node 0, card 1, module 2, rank 1)",
        {("error", "multi-bit ECC error"), ("address", "0x7d0000000"), ("card", "1")},
    ),
    "generic": (
        hardware.GENERIC,
        hardware.generic(),
        "processor: cache error on data read",
        {("brand", "Made Up CPU @ 3.00GHz"), ("flags", "restartable"), ("ip", "0xffffffff81000000"), ("level", "2")},
    ),
    "ia": (
        hardware.IA,
        hardware.ia(),
        "processor: cache error on data write",
        {("APIC id", "3"), ("transaction", "data access"), ("flags", "uncorrected"), ("ip", "0xffffffff81002000")},
    ),
    "ia with a bank": (
        hardware.IA,
        hardware.ia(status=0xBE00000000800400),
        "processor: cache error on data write; bank 5: internal unclassified error",
        {("bank 5", "fatal error: internal unclassified error"), ("address", "0xdeadbeef")},
    ),
    "arm": (
        hardware.ARM,
        hardware.arm(),
        "processor: cache error on data read",
        {("MPIDR", "0x80000101"), ("state", "running"), ("physical address", "0x80001000")},
    ),
    "pcie": (
        hardware.PCIE,
        hardware.pcie(),
        "PCIe: error at a root port 0000:3a:02.0: malformed TLP",
        {("vendor, device", "8086:2030"), ("class", "060400"), ("of these fatal", "malformed TLP"), ("slot", "5")},
    ),
    "pcie, corrected": (
        hardware.PCIE,
        hardware.pcie(uncorrectable=0, correctable=1 << 6 | 1),
        "PCIe: error at a root port 0000:3a:02.0: receiver error, bad TLP",
        {("uncorrectable", "none"), ("correctable", "receiver error, bad TLP")},
    ),
    "firmware": (
        hardware.FIRMWARE,
        hardware.firmware(),
        "firmware: SOC firmware error record, type 1 (CrashLog)",
        {("identifier", "0x1234"), ("data", "8 bytes, which only the firmware's maker reads")},
    ),
    "unknown": (UUID(int=9), b"?", f"section of type {UUID(int=9)}", set()),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_each_section_is_told(name: str) -> None:
    """A title, and the fields that count."""
    kind, data, title, rows = SECTIONS[name]
    told = tell(Section(kind, 1, "DIMM A1", data))
    assert told.title == title
    assert rows <= set(told.rows)
    assert ("unit", "DIMM A1") in told.rows


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_that_is_cut_is_told_as_far_as_it_goes(name: str) -> None:
    """At any length."""
    kind, data, _, _ = SECTIONS[name]
    for size in range(len(data)):
        assert tell(Section(kind, 1, "", data[:size])).title


@given(st.sampled_from(sorted(KNOWN)), st.binary(max_size=400))
def test_any_bytes_are_told(kind: UUID, data: bytes) -> None:
    """Whatever a firmware puts there."""
    assert tell(Section(kind, 0, "", data)).title


def test_the_worst_section_gives_the_sentence() -> None:
    """Fatal before recoverable before corrected."""
    sections = [
        (hardware.PCIE, CORRECTED, hardware.pcie()),
        (hardware.GENERIC, RECOVERABLE, hardware.generic()),
        (hardware.MEMORY, FATAL, hardware.memory()),
    ]
    for with_time in (False, True):
        error = parse_hardware(boot_error_record(sections, with_time=with_time))
        assert error.summary.startswith("fatal hardware error: memory: multi-bit ECC error at 0x7d0000000")
        assert error.summary.endswith(", and 2 more")
        assert error.is_fatal
        assert b"\nrecoverable: processor: cache error on data read\n" in error.text
        assert not error.damage
    mild = parse_hardware(boot_error_record(sections[:2]))
    assert (mild.is_fatal, mild.summary[:26]) == (False, "recoverable hardware error")


def test_a_cper_record_says_the_same() -> None:
    """The other form: from ERST."""
    record = cper_record([(hardware.MEMORY, hardware.memory())], record_id=1, seconds=None, severity=FATAL)
    assert parse_hardware(record).summary.startswith("fatal hardware error: memory: multi-bit ECC error")


def test_several_blocks_and_no_block() -> None:
    """By their lengths: the kernel has set the status to 0."""
    one = boot_error_record([(hardware.MEMORY, CORRECTED, hardware.memory())], region=0)
    two = boot_error_record([(hardware.PCIE, INFORMATIONAL, hardware.pcie())], region=0, status=0x10)
    status = parse_estatus(one + two + bytes(500))
    assert (len(status.sections), status.severity, status.size) == (2, CORRECTED, len(one + two))
    for nothing in (b"", bytes(4096), b"\xff" * 100):
        with pytest.raises(DamagedError):
            parse_estatus(nothing)
    assert "are missing" in parse_estatus(one[:-10]).damage[0]


@given(st.binary(max_size=600), st.integers(0, 400))
def test_any_region_is_told_or_damaged(data: bytes, length: int) -> None:
    """Nothing else is raised."""
    block = bytes(12) + length.to_bytes(4, "little") + (1).to_bytes(4, "little") + data
    for source in (data, block, b"CPER\x00\x01\xff\xff\xff\xff" + data):
        try:
            assert parse_hardware(source).summary
        except DamagedError:
            pass
