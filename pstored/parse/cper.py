# SPDX-License-Identifier: Apache-2.0
"""CPER, the Common Platform Error Record: what firmware and ERST keep of an error, taken apart into its sections.

Source: UEFI Specification, appendix N; include/linux/cper.h.  Little-endian, packed::

    record  = header (128 bytes) descriptor (72 bytes) * count, and each section where its descriptor says
    header  = "CPER" revision:u16 0xffffffff:u32 count:u16 severity:u32 valid:u32 length:u32 timestamp:8
              platform:16 partition:16 creator:16 notification:16 record-id:u64 flags:u32 persistence:u64 reserved:12
    descriptor = offset:u32 length:u32 revision:u16 valid:u8 reserved:u8 flags:u32 type:16 fru-id:16 severity:u32
              fru-text:20

What pstore and the kernel's MCE code write has one section right behind its descriptor, and in the timestamp not BCD
as the specification says, but Unix seconds (drivers/acpi/apei/erst.c, erst_writer()).
"""

import struct
from typing import NamedTuple
from uuid import UUID

from pstored.errors import DamagedError

_HEADER = struct.Struct("<4sHIHIII8s16s16s16s16sQIQ12s")
_DESCRIPTOR = struct.Struct("<IIHBBI16s16sI20s")
HEADER_SIZE = _HEADER.size
DATA_AT = _HEADER.size + _DESCRIPTOR.size
"""Where the one section of the kernel's own records begins."""
SIGNATURE = b"CPER"
SIGNATURE_END = 0xFFFFFFFF
MAX_SECTIONS = 64
"""No error has so many parts: a larger count is damage."""

CREATOR_PSTORE = UUID("75a574e3-5052-4b29-8a8e-be2c6490b89d")
"""Of the kernel's MCE code, too."""
SECTION_DMESG = UUID("c197e04e-d545-4a70-9c17-a5549419eb12")
SECTION_DMESG_COMPRESSED = UUID("4f118707-04dd-4055-b5dd-956d34ddfac6")
SECTION_MCE = UUID("fe08ffbe-95e4-4be7-bc73-4096044a38fc")

_VALID_TIMESTAMP = 2
SEVERITIES = ("recoverable", "fatal", "corrected", "informational")
"""include/linux/cper.h, CPER_SEV_*."""


class Section(NamedTuple):
    """One part of a record."""

    type: UUID
    severity: int
    fru: str
    """The field replaceable unit's text; empty if the firmware names none."""
    data: bytes


class Cper(NamedTuple):
    """One record."""

    severity: int
    length: int
    """As the header says, 200 bytes before the first section's end or more."""
    timestamp: bytes
    """Eight bytes of BCD; Unix seconds, if the kernel wrote it."""
    has_timestamp: bool
    creator: UUID
    record_id: int
    sections: tuple[Section, ...]
    damage: tuple[str, ...]

    @property
    def unix_time(self) -> int:
        """The timestamp of the kernel's own records, seconds since 1970; 0 if there is none."""
        return int.from_bytes(self.timestamp, "little") if self.has_timestamp else 0


def record_length(header: bytes) -> int | None:
    """How long the record is that begins with these bytes; None if none does."""
    if len(header) < HEADER_SIZE or not header.startswith(SIGNATURE):
        return None
    fields = _HEADER.unpack_from(header)
    return int(fields[6]) if fields[2] == SIGNATURE_END else None


def parse_cper(data: bytes) -> Cper:
    """Take a record apart; what a section has too little is in ``damage``.

    Args:
        data: from its signature on; what stands behind the record is left alone.

    Raises:
        DamagedError: there is no record.
    """
    if record_length(data) is None:
        raise DamagedError(f"no CPER record: it begins with {data[:4]!r}")
    fields = _HEADER.unpack_from(data)
    _, _, _, count, severity, valid, length, timestamp, _, _, creator, _, record_id, _, _, _ = fields
    damage = []
    if length > len(data):
        damage.append(f"the record has {length} bytes, of which {length - len(data)} are missing")
    if count > MAX_SECTIONS:
        damage.append(f"it says that it has {count} sections, which is too many to be true")
        count = MAX_SECTIONS
    sections = []
    for number in range(count):
        at = HEADER_SIZE + number * _DESCRIPTOR.size
        if at + _DESCRIPTOR.size > len(data):
            damage.append(f"section {number + 1} of {count} has no descriptor any more")
            break
        start, size, _, _, _, _, kind, _, section_severity, fru = _DESCRIPTOR.unpack_from(data, at)
        body = data[start : start + size]
        if len(body) < size:
            damage.append(f"section {number + 1} has {size} bytes, of which {size - len(body)} are missing")
        words = fru.partition(b"\0")[0].decode(errors="backslashreplace").strip()
        sections.append(Section(UUID(bytes_le=kind), section_severity, words, body))
    return Cper(
        severity=severity,
        length=length,
        timestamp=timestamp,
        has_timestamp=bool(valid & _VALID_TIMESTAMP),
        creator=UUID(bytes_le=creator),
        record_id=record_id,
        sections=tuple(sections),
        damage=tuple(damage),
    )
