# SPDX-License-Identifier: Apache-2.0
"""Sections of error records as firmware writes them (UEFI, appendix N.2), and ACPI's boot error record around them."""

import struct
from collections.abc import Sequence
from uuid import UUID

GENERIC = UUID("9876ccad-47b4-4bdb-b65e-16f193c4f3db")
IA = UUID("dc3ea0b0-a144-4797-b95b-53fa242b6e1d")
ARM = UUID("e19e3d16-bc11-11e4-9caa-c2051d5d46b0")
MEMORY = UUID("a5bc1114-6f64-4ede-b863-3e83ed7c83b1")
PCIE = UUID("d995e954-bbc1-430f-ad91-b44dcb3c6f35")
FIRMWARE = UUID("81212a96-09ed-4996-9471-8d729c8e69ed")
_CACHE = UUID("a55701f5-e3ef-43de-ac72-249b573fad2c")

RECOVERABLE, FATAL, CORRECTED, INFORMATIONAL = range(4)


def memory(*, kind: int = 3, address: int = 0x7D0000000) -> bytes:
    """A memory error: error type, physical address, and where the module is."""
    valid = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 14 | 1 << 15
    head = struct.pack("<4Q", valid, 0, address, 0)
    places = struct.pack("<8H", 0, 1, 2, 0, 0, 0, 0, 0)  # node, card, module, bank, device, row, column, bit
    return head + places + struct.pack("<3QBBHHH", 0, 0, 0, kind, 0, 1, 0, 0)


def generic() -> bytes:
    """A processor, of whatever make: a cache error on a data read, restartable."""
    valid = (1 << 13) - 1
    head = struct.pack("<Q6BHQ", valid, 0, 2, 1, 1, 1, 2, 0, 0x50654)
    return head + b"Made Up CPU @ 3.00GHz".ljust(128, b"\0") + struct.pack("<5Q", 4, 0x1000, 0, 0, 0xFFFFFFFF81000000)


def ia(*, status: int | None = None) -> bytes:
    """x86: a cache error on a data write; with AMD's registers of bank 5, if a *status* is given."""
    contexts = int(status is not None)
    head = struct.pack("<QQ48s", 1 | 2 | 1 << 2 | contexts << 8, 3, b"")
    # transaction, operation, uncorrected, overflow: valid; data access, data write, uncorrected
    check = 1 | 2 | 1 << 4 | 1 << 7 | 1 << 16 | 4 << 18 | 1 << 26
    error = struct.pack("<16s6Q", _CACHE.bytes_le, 1 | 1 << 4, check, 0, 0, 0, 0xFFFFFFFF81002000)
    registers = b""
    if status is not None:
        registers = struct.pack("<HHIQ", 1, 48, 0xC0002001 | 5 << 4, 0)
        registers += struct.pack("<6Q", status, 0xDEADBEEF, 0, 0, 0x500B000000000, 0)
    return head + error + registers


def arm() -> bytes:
    """ARM: a cache error, and where."""
    info = struct.pack("<BBHBHBQQQ", 0, 32, 4 | 8 | 16, 0, 0, 0, 2 | 1 << 4 | 3 << 18, 0xFFFF800010001000, 0x80001000)
    head = struct.pack("<IHHIB3xQQII", 1 | 4, 1, 0, 40 + len(info), 0, 0x80000101, 0x410FD0C0, 1, 0)
    return head + info


def pcie(*, uncorrectable: int = 1 << 18, correctable: int = 0) -> bytes:
    """A root port that says what went wrong in its advanced error reporting."""
    valid = 1 | 2 | 4 | 8 | 0x80
    head = struct.pack("<QI4BHHI", valid, 4, 0, 1, 0, 0, 0x407, 0x10, 0)
    device = struct.pack("<HH3sBBHBBHB", 0x8086, 0x2030, bytes((0, 4, 6)), 0, 2, 0, 0x3A, 0x3B, 5 << 3, 0)
    aer = struct.pack("<6I", 0x14820001, uncorrectable, 0, 1 << 18, correctable, 0)
    return head + device + bytes(8 + 4 + 60) + aer.ljust(96, b"\0")


def firmware() -> bytes:
    """A reference to a record that only the firmware's maker reads."""
    return struct.pack("<BB6xQ", 1, 2, 0x1234) + UUID(int=5).bytes_le + b"CrashLog"


def boot_error_record(
    sections: Sequence[tuple[UUID, int, bytes]], *, region: int = 4096, with_time: bool = False, status: int = 0
) -> bytes:
    """ACPI's region with one block of sections (type, severity, content); *status* 0: the kernel has printed it."""
    body = b""
    for kind, severity, data in sections:
        revision = 0x0300 if with_time else 0x0201
        body += kind.bytes_le + struct.pack("<IHBBI", severity, revision, 0, 0, len(data))
        body += bytes(16) + b"DIMM A1".ljust(20, b"\0") + (bytes(8) if with_time else b"") + data
    worst = FATAL if any(s == FATAL for _, s, _ in sections) else min((s for _, s, _ in sections), default=0)
    return (struct.pack("<5I", status, 0, 0, len(body), worst) + body).ljust(region, b"\0")
