# SPDX-License-Identifier: Apache-2.0
"""Machine checks: the struct of every kernel generation, and what its bits mean."""

import re
import struct
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.errors import DamagedError
from pstored.parse.mce import Mce, Severity, mce_of_bank, parse_mce

CAPTURE = Path(__file__).parent.parent / "fake_pstore" / "captures" / "lab-erst-mce" / "pstore.tar.xz"
INTEL, CYRIX, AMD, HYGON, ZHAOXIN = 0, 1, 2, 9, 10
VAL, OVER, UC, EN, MISCV, ADDRV, PCC, S, AR = (1 << bit for bit in range(63, 54, -1))
DEFERRED = 1 << 44
RIPV, EIPV, MCIP, LMCE = 1, 2, 4, 8
CMCI_P, SER_P = 1 << 10, 1 << 24

FIELDS: dict[str, tuple[int, str]] = {
    "status": (0, "<Q"),
    "misc": (8, "<Q"),
    "addr": (16, "<Q"),
    "mcgstatus": (24, "<Q"),
    "ip": (32, "<Q"),
    "tsc": (40, "<Q"),
    "time_s": (48, "<Q"),
    "cpuvendor": (56, "<B"),
    "inject_flags": (57, "<B"),
    "kernel_severity": (58, "<B"),
    "cpuid": (60, "<I"),
    "cs": (64, "<B"),
    "bank": (65, "<B"),
    "finished": (67, "<B"),
    "cpu": (68, "<I"),
    "socketid": (72, "<I"),
    "apicid": (76, "<I"),
    "mcgcap": (80, "<Q"),
    "synd": (88, "<Q"),
    "ipid": (96, "<Q"),
    "ppin": (104, "<Q"),
    "microcode": (112, "<I"),
    "kflags": (120, "<Q"),
}
"""Offset and type of each field, as arch/x86/include/uapi/asm/mce.h lays them out."""


def record(length: int = 128, **fields: int) -> bytes:
    """A struct mce with some fields set; fields behind *length* are left out."""
    buf = bytearray(max(length, 128))
    for name, value in fields.items():
        offset, form = FIELDS[name]
        struct.pack_into(form, buf, offset, value)
    return bytes(buf[:length])


def mce(**fields: int) -> Mce:
    """The same, parsed."""
    return parse_mce(record(**fields))


def captured(kind: str) -> bytes:
    """The first record of a type from the capture of an injected machine check."""
    with tarfile.open(CAPTURE) as tar:
        name = min(n for n in tar.getnames() if n.startswith(kind))
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def test_the_real_record_says_what_the_kernel_printed() -> None:
    """Every number of the kernel's own report of the same machine check is in the record."""
    printed = captured("dmesg").decode("ascii", "replace")
    check = parse_mce(captured("mce"))
    found = re.search(r"CPU (\d+): Machine Check Exception: (\w+) Bank (\d+): (\w+)", printed)
    assert found is not None
    assert found.groups() == (str(check.cpu), f"{check.mcgstatus:x}", str(check.bank), f"{check.status:016x}")
    found = re.search(r"RIP !INEXACT! (\w+):<(\w+)>", printed)
    assert found is not None
    assert found.groups() == (f"{check.cs:x}", f"{check.ip:x}")
    found = re.search(r"TSC (\w+) ADDR (\w+) MISC (\w+)", printed)
    assert found is not None
    assert found.groups() == (f"{check.tsc:x}", f"{check.address:x}", f"{check.misc:x}")
    found = re.search(r"PROCESSOR (\d+):(\w+) TIME (\d+) SOCKET (\d+) APIC (\d+) microcode (\w+)", printed)
    assert found is not None
    assert found.groups() == (
        str(check.cpuvendor),
        f"{check.cpuid:x}",
        str(check.time_s),
        str(check.socketid),
        f"{check.apicid:x}",
        f"{check.microcode:x}",
    )


def test_the_real_record_in_words() -> None:
    """The injected machine check is fatal, in bank 4, with an address."""
    check = parse_mce(captured("mce"))
    assert check.severity is Severity.FATAL
    assert check.summary == (
        "fatal machine check on CPU 0, bank 4: internal unclassified error, "
        "processor context corrupt, address 0xdeadb000"
    )
    assert check.time == datetime(2026, 11, 23, 4, 25, 10, tzinfo=UTC)
    assert [name for name, _ in check.flags] == ["VAL", "UC", "EN", "MISCV", "ADDRV", "PCC"]
    assert [name for name, _ in check.mcg_flags] == ["RIPV", "MCIP"]
    assert check.damage == ()
    text = check.render().decode("ascii")
    assert text.startswith(check.summary + "\n\n")
    assert text.endswith("\n")
    for line in (
        "time        2026-11-23 04:25:10 UTC",
        "processor   AMD, family 15, model 107, stepping 1 (cpuid 0x60fb1)",
        "microcode   0x1000065",
        "bank        4 of 10",
        "status      0xbe00000000800400",
        "            PCC      the processor's context may be corrupt",
        "model code  0x0080  as the model defines it",
        "address     0xdeadb000",
        "misc        0x86",
        "ip          0x10:0xffffffffa62dac6b  not exact: where the CPU was",
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_read_from_its_place(name: str) -> None:
    """Each field has its own bytes: setting one changes that one alone."""
    _, form = FIELDS[name]
    value = int.from_bytes(bytes(range(1, 1 + struct.calcsize(form))), "little")
    check = parse_mce(record(**{name: value}))
    others = {other: getattr(check, other) for other in FIELDS if other != name}
    assert getattr(check, name) == value
    assert set(others.values()) == {0}


@pytest.mark.parametrize(
    ("length", "missing"),
    [
        (88, {"synd", "ipid", "ppin", "microcode", "kflags"}),
        (112, {"microcode", "kflags"}),
        (120, {"kflags"}),
        (128, set()),
    ],
)
def test_lengths_of_all_kernels(length: int, missing: set[str]) -> None:
    """The length says which fields a kernel had; those it had not are None, and nothing is wrong with that."""
    check = parse_mce(record(length, status=VAL, mcgcap=7, ppin=3, microcode=4, kflags=5))
    assert {name for name in FIELDS if getattr(check, name) is None} == missing
    assert check.mcgcap == 7
    assert check.damage == ()


@pytest.mark.parametrize(
    ("length", "damage"),
    [
        (136, "the struct has 136 bytes, more than any known kernel's: the first 128 were read"),
        (127, "127 bytes are no known kernel's struct: the first 120 were read"),
        (89, "89 bytes are no known kernel's struct: the first 88 were read"),
    ],
)
def test_other_lengths_are_said(length: int, damage: str) -> None:
    """A length that no kernel has is read as far as it is known, and said."""
    assert parse_mce(record(length, status=VAL)).damage == (damage,)


@pytest.mark.parametrize("length", [0, 1, 87])
def test_too_short_is_damaged(length: int) -> None:
    """Less than the oldest struct is no machine check."""
    with pytest.raises(DamagedError, match=f"no machine check: {length} bytes, where 88 are the least"):
        parse_mce(bytes(length))


def test_an_empty_bank_is_said() -> None:
    """Without VAL there was no error, whatever else is set."""
    check = mce(status=UC | PCC | 5, bank=3)
    assert check.severity is Severity.NONE
    assert check.summary == "machine check on CPU 0, bank 3: the bank held no error"
    assert check.damage == ("the bank held no error: VAL is not set in its status",)


@pytest.mark.parametrize(
    ("time_s", "time", "damaged"),
    [
        (0, None, False),
        (1, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), False),
        (253_402_300_799, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), False),
        (253_402_300_800, None, True),
        (2**64 - 1, None, True),
    ],
)
def test_time(time_s: int, time: datetime | None, damaged: bool) -> None:
    """Seconds since 1970; 0 is not known, and what no calendar has is damage."""
    check = mce(status=VAL, time_s=time_s)
    assert check.time == time
    assert bool(check.damage) == damaged
    assert (b"time        unknown\n" in check.render()) == (time is None)


@pytest.mark.parametrize(
    ("fields", "severity", "reason"),
    [
        ({"status": VAL}, Severity.CORRECTED, None),
        ({"status": VAL | OVER}, Severity.CORRECTED, None),
        ({"status": VAL | PCC}, Severity.CORRECTED, None),
        ({"status": VAL | DEFERRED, "cpuvendor": AMD}, Severity.DEFERRED, None),
        ({"status": VAL | DEFERRED, "cpuvendor": INTEL}, Severity.CORRECTED, None),
        ({"status": VAL | UC | PCC}, Severity.FATAL, "processor context corrupt"),
        ({"status": VAL | UC | PCC, "cpuvendor": HYGON}, Severity.FATAL, "processor context corrupt"),
        ({"status": VAL | UC, "mcgstatus": MCIP}, Severity.FATAL, "no address to resume at"),
        ({"status": VAL | UC, "mcgstatus": MCIP | RIPV}, Severity.UNCORRECTED, None),
        ({"status": VAL | UC, "mcgstatus": MCIP | EIPV}, Severity.UNCORRECTED, None),
        ({"status": VAL | UC, "mcgstatus": LMCE}, Severity.UNCORRECTED, None),
        ({"status": VAL | UC | S | AR}, Severity.UNCORRECTED, None),
        ({"status": VAL | UC, "mcgcap": SER_P}, Severity.UNCORRECTED, "no action required"),
        ({"status": VAL | UC | S, "mcgcap": SER_P}, Severity.UNCORRECTED, "action optional"),
        ({"status": VAL | UC | S | AR, "mcgcap": SER_P}, Severity.UNCORRECTED, "action required"),
        ({"status": VAL | UC | S | AR | OVER, "mcgcap": SER_P}, Severity.FATAL, "action required and errors lost"),
        ({"status": VAL | UC | AR, "cpuvendor": AMD, "ipid": 1}, Severity.UNCORRECTED, "task context corrupt"),
        ({"status": VAL | UC | AR, "cpuvendor": AMD, "cpuid": 0x800F11}, Severity.UNCORRECTED, "task context corrupt"),
        ({"status": VAL | UC | AR, "cpuvendor": AMD, "cpuid": 0x60FB1}, Severity.UNCORRECTED, None),
    ],
)
def test_severity(fields: dict[str, int], severity: Severity, reason: str | None) -> None:
    """Corrected, deferred, uncorrected or fatal follows from the status bits, as each vendor defines them."""
    check = mce(**fields)
    assert (check.severity, check.reason) == (severity, reason)
    assert check.summary.startswith(f"{severity} machine check on CPU 0, bank 0: ")


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"status": VAL | S | AR}, "VAL"),
        ({"status": VAL | S | AR, "mcgcap": SER_P}, "VAL S AR"),
        ({"status": VAL | OVER | UC | EN | MISCV | ADDRV | PCC}, "VAL OVER UC EN MISCV ADDRV PCC"),
        ({"status": VAL | 0x1F << 43, "cpuvendor": AMD}, "VAL CECC UECC DEFERRED POISON"),
        ({"status": VAL | AR | 1 << 53, "cpuvendor": AMD, "ipid": 1, "mcgcap": SER_P}, "VAL TCC SYNDV"),
    ],
)
def test_status_bits(fields: dict[str, int], names: str) -> None:
    """Bits are named as the vendor defines them, and only where the CPU has them."""
    assert " ".join(name for name, _ in mce(**fields).flags) == names


def test_mcg_status_bits() -> None:
    """All four bits of MCG_STATUS are named; with EIPV the address of the instruction is exact."""
    check = mce(status=VAL, mcgstatus=RIPV | EIPV | MCIP | LMCE)
    assert [name for name, _ in check.mcg_flags] == ["RIPV", "EIPV", "MCIP", "LMCE"]
    assert b"not exact" not in check.render()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x0000, "no error code"),
        (0x0001, "unclassified error"),
        (0x0002, "microcode ROM parity error"),
        (0x0003, "external error (BINIT# of another processor)"),
        (0x0004, "functional redundancy check error"),
        (0x0005, "internal parity error"),
        (0x0006, "SMM handler code access violation"),
        (0x0400, "internal timer error"),
        (0x0401, "internal unclassified error"),
        (0x07FF, "internal unclassified error"),
        (0x0E0B, "generic I/O error"),
        (0x000C, "level 0 cache hierarchy error"),
        (0x000F, "generic level cache hierarchy error"),
        (0x0010, "level 0 instruction TLB error"),
        (0x0015, "level 1 data TLB error"),
        (0x001A, "level 2 generic TLB error"),
        (0x0080, "memory controller error on undefined request, channel 0"),
        (0x0093, "memory controller error on read, channel 3"),
        (0x00A0, "memory controller error on write, channel 0"),
        (0x00B1, "memory controller error on address or command, channel 1"),
        (0x00CF, "memory controller error on scrubbing, channel not given"),
        (0x00D0, "memory controller error on reserved request 5, channel 0"),
        (0x0134, "level 0 data cache error on data read"),
        (0x0150, "level 0 instruction cache error on instruction fetch"),
        (0x017A, "level 2 generic cache error on eviction"),
        (0x1189, "level 1 generic cache error on snoop (further reports filtered)"),
        (0x01F5, "level 1 data cache error on reserved request 15"),
        (0x0290, "extended memory error on read, channel 0"),
        (
            0x0E0F,
            "bus or interconnect error on any request (other transaction, generic level, any party)",
        ),
        (
            0x0911,
            "bus or interconnect error on read (memory, level 1, requested by this processor, timed out)",
        ),
        (0x0007, "error of unknown class 0x0007"),
        (0x0200, "error of unknown class 0x0200"),
        (0x8000, "error of unknown class 0x8000"),
    ],
)
def test_intel_error_codes(code: int, words: str) -> None:
    """Simple and compound codes of the SDM, one or more of every class."""
    check = mce(status=VAL | 0xABCD0000 | code)
    assert (check.error_code, check.model_code, check.error) == (code, 0xABCD, words)
    assert mce(status=VAL | code, cpuvendor=ZHAOXIN).error == words


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x0000, "no error code"),
        (0x0400, "internal unclassified error"),
        (0x0600, "hardware assertion"),
        (0x0015, "level 1 data TLB error"),
        (0x0136, "level 2 data cache error on data read"),
        (0x0813, "bus or interconnect error on read (memory, generic level, requested by this processor)"),
        (0x0005, "error of unknown class 0x0005"),
        (0x0090, "error of unknown class 0x0090"),
        (0x0401, "error of unknown class 0x0401"),
        (0x1136, "error of unknown class 0x1136"),
    ],
)
def test_amd_error_codes(code: int, words: str) -> None:
    """AMD has four classes, and none of Intel's simple codes."""
    assert mce(status=VAL | code, cpuvendor=AMD).error == words


@pytest.mark.parametrize(
    ("cpuid", "signature"),
    [
        (0x60FB1, (15, 107, 1)),
        (0x306C3, (6, 60, 3)),
        (0x800F11, (23, 1, 1)),
        (0x00000543, (5, 4, 3)),
        (0xA20F12, (25, 33, 2)),
    ],
)
def test_cpu_signature(cpuid: int, signature: tuple[int, int, int]) -> None:
    """Family, model and stepping as /proc/cpuinfo counts them."""
    assert mce(cpuid=cpuid).cpu_signature == signature


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"status": VAL | 9 << 38, "mcgcap": CMCI_P}, 9),
        ({"status": VAL | 0x7FFF << 38, "mcgcap": CMCI_P}, 0x7FFF),
        ({"status": VAL | 9 << 38}, None),
        ({"status": VAL | UC | 9 << 38, "mcgcap": CMCI_P}, None),
        ({"status": VAL | 9 << 38, "mcgcap": CMCI_P, "cpuvendor": AMD}, None),
    ],
)
def test_corrected_errors_are_counted_where_the_cpu_counts(fields: dict[str, int], count: int | None) -> None:
    """The count is in the status of Intel's CPUs with MCG_CMCI_P, for corrected errors only."""
    check = mce(**fields)
    assert check.corrected_count == count
    assert (b"\ncorrected   " in check.render()) == (count is not None)


def test_address_and_misc_only_where_they_are_valid() -> None:
    """Without ADDRV and MISCV the registers mean nothing, and are not shown as if they did."""
    check = mce(status=VAL | UC, addr=0x1000, misc=0x86, mcgcap=SER_P)
    assert check.address is None
    assert "address" not in check.summary
    assert b"0x86" not in check.render()
    check = mce(status=VAL | UC | ADDRV | MISCV, addr=0x1000, misc=0x86, mcgcap=SER_P)
    assert check.address == 0x1000
    assert b"address     0x1000  physical, bits below 6 not known\n" in check.render()


@given(st.binary(max_size=200))
def test_any_bytes_give_a_machine_check_or_damage(data: bytes) -> None:
    """Any bytes give a value or DamagedError, never another exception; the text is ASCII lines."""
    if len(data) < 88:
        with pytest.raises(DamagedError):
            parse_mce(data)
        return
    check = parse_mce(data)
    assert check.render().decode("ascii").splitlines()[0] == check.summary


@given(st.lists(st.integers(0, 2**64 - 1), min_size=16, max_size=16))
def test_any_registers_can_be_explained(words: list[int]) -> None:
    """The same for structs of the right length with any values, which random bytes rarely are."""
    check = parse_mce(struct.pack("<16Q", *words))
    assert check.status == words[0]
    assert isinstance(check.render(), bytes)


# --- what mcelog and rasdaemon give besides


@pytest.mark.parametrize(
    ("ipid", "unit"),
    [
        (0x0000_00B0_0000_0000, "load-store unit"),
        (0x0007_00B0_0000_0350, "L3 cache"),
        (0x0000_0096_0005_0F00, "memory controller"),
        (0x0001_002E_0000_0001, "power, interrupts and others of the data fabric"),
        (0x0099_0FFF_0000_0000, None),
        (0, None),
    ],
)
def test_the_unit_is_named_by_its_identifier(ipid: int, unit: str | None) -> None:
    """Hardware id and type of AMD's Scalable MCA; and the extended code, which depends on it."""
    check = mce(status=VAL | UC | 0x2B << 16, cpuvendor=AMD, cpuid=0x800F11, ipid=ipid, bank=5)
    assert check.unit == unit
    assert check.extended_code == 0x2B
    assert (f", {unit}\n".encode() in check.render()) == (unit is not None)
    assert b"\nextended    0x2b  as the unit defines it\n" in check.render()


@pytest.mark.parametrize(
    ("status", "mcgcap", "words"),
    [
        (VAL | 1 << 53, 1 << 11, "green: below the threshold"),
        (VAL | 2 << 53, 1 << 11, "yellow: above the threshold"),
        (VAL | 2 << 53, 0, None),
        (VAL, 1 << 11, None),
    ],
)
def test_how_the_hardware_rates_corrected_errors(status: int, mcgcap: int, words: str | None) -> None:
    """Intel, where the CPU says that it does."""
    check = mce(status=status, mcgcap=mcgcap)
    assert check.tracking == words
    assert (b"\ntracking    " in check.render()) == (words is not None)


def test_severity_and_reason_have_a_line() -> None:
    """Uncorrected or not, and why nothing could go on."""
    assert b"\nerror       fatal: processor context corrupt\n" in mce(status=VAL | UC | PCC).render()
    assert b"\nerror       corrected\n" in mce(status=VAL).render()


def test_registers_of_a_bank_alone_are_a_machine_check() -> None:
    """As firmware gives them in its records."""
    check = mce_of_bank(bank=5, status=VAL | UC | PCC | ADDRV | 0x0400, address=0xDEAD, misc=0, ipid=0x96 << 32, synd=0)
    assert check.summary == (
        "fatal machine check on CPU 0, bank 5: internal unclassified error, processor context corrupt, address 0xdead"
    )
    assert check.unit == "memory controller"
