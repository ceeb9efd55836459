# SPDX-License-Identifier: Apache-2.0
"""CPER records as the kernel's ERST backend writes them, and the file that QEMU keeps them in."""

import struct
from collections.abc import Iterable, Sequence
from uuid import UUID

PSTORE = UUID("75a574e3-5052-4b29-8a8e-be2c6490b89d")
"""Creator of the records of pstore and of the MCE code."""
DMESG = UUID("c197e04e-d545-4a70-9c17-a5549419eb12")
DMESG_COMPRESSED = UUID("4f118707-04dd-4055-b5dd-956d34ddfac6")
MCE = UUID("fe08ffbe-95e4-4be7-bc73-4096044a38fc")
_NOTIFY = UUID("e8f56ffe-919c-4cc5-ba88-65abe14913bb")

SLOT = 8192


def cper_record(
    sections: Sequence[tuple[UUID, bytes]],
    *,
    record_id: int,
    seconds: int | None,
    creator: UUID = PSTORE,
    severity: int = 1,
    fru: bytes = b"",
) -> bytes:
    """A record with these sections (type, content); *seconds* None: no time in it."""
    at = 128 + 72 * len(sections)
    descriptors, bodies = b"", b""
    for kind, body in sections:
        descriptors += struct.pack("<IIHBBI", at + len(bodies), len(body), 0x100, 0, 0, 1)
        descriptors += kind.bytes_le + bytes(16) + struct.pack("<I20s", severity, fru)
        bodies += body
    head = struct.pack("<4sHIHII", b"CPER", 0x100, 0xFFFFFFFF, len(sections), severity, 0 if seconds is None else 2)
    head += struct.pack("<IQ", at + len(bodies), seconds or 0)
    head += bytes(32) + creator.bytes_le + _NOTIFY.bytes_le
    head += struct.pack("<QI", record_id, 2) + b"ER" + bytes(6) + bytes(12)
    assert len(head) == 128
    return head + descriptors + bodies


def erst_store(records: Iterable[tuple[bytes, bool]], *, slots: int = 16, size: int = SLOT) -> bytes:
    """QEMU's store of *slots* slots, the header's included, with records, each cleared (True) or not."""
    ids = [0] * slots
    content = b""
    count = 0
    for number, (record, cleared) in enumerate(records, 1):
        assert len(record) <= size
        content += record.ljust(size, b"\0")
        ids[number] = 0 if cleared else struct.unpack_from("<Q", record, 96)[0]
        count += not cleared
    head = struct.pack("<8sIIHHI", b"ERSTSTOR", size, size, 0x100, 0, count) + struct.pack(f"<{slots}Q", *ids)
    return (head.ljust(size, b"\0") + content).ljust(slots * size, b"\0")
