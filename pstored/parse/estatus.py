# SPDX-License-Identifier: Apache-2.0
"""Generic error status blocks: what ACPI's boot error record (BERT) holds of the errors that ended the boot before.

Source: ACPI Specification, "Generic Error Data"; include/acpi/actbl1.h; drivers/acpi/apei/bert.c.  Little-endian::

    block = status:u32 raw-offset:u32 raw-length:u32 data-length:u32 severity:u32 entry*
    entry = type:16 severity:u32 revision:u16 valid:u8 flags:u8 length:u32 fru-id:16 fru-text:20 [timestamp:u64] section

The kernel sets the status to 0 once it has printed the block, in the very memory that sysfs shows: so whether there is
one is judged by its length.
"""

import struct
from typing import NamedTuple
from uuid import UUID

from pstored.errors import DamagedError
from pstored.parse.cper import MAX_SECTIONS, SEVERITIES, Section

_BLOCK = struct.Struct("<5I")
_ENTRY = struct.Struct("<16sIHBBI16s20s")
_WITH_TIME = 0x0300
"""Revision from which on an entry has a timestamp."""
_TIME_SIZE = 8
MAX_BLOCKS = 16
"""The kernel prints five; more are no errors of one boot."""


class Status(NamedTuple):
    """All blocks of a region."""

    severity: int
    """The worst of all, as :data:`pstored.parse.cper.SEVERITIES` has it."""
    sections: tuple[Section, ...]
    size: int
    """Bytes up to the end of the last block."""
    damage: tuple[str, ...]


_WORST = (1, 0, 2, 3)
"""Severities, worst first."""


def worst(severities: list[int]) -> int:
    """The worst of some severities; a number that means nothing is as bad as can be."""
    return min(severities, key=lambda s: _WORST.index(s) if s in _WORST else 0, default=3)


def block_length(head: bytes) -> int | None:
    """How long the block is that begins so; None if none does: sysfs shows an empty region as zeros."""
    if len(head) < _BLOCK.size:
        return None
    _, raw_at, raw_size, size, severity = _BLOCK.unpack_from(head)
    if size < _ENTRY.size or severity >= len(SEVERITIES):
        return None
    return max(_BLOCK.size + int(size), int(raw_at) + int(raw_size) if raw_size else 0)


def parse_estatus(data: bytes) -> Status:
    """Take all blocks of a region apart.

    Raises:
        DamagedError: there is none.
    """
    sections: list[Section] = []
    severities: list[int] = []
    damage: list[str] = []
    at = 0
    for _ in range(MAX_BLOCKS):
        length = block_length(data[at : at + _BLOCK.size])
        if length is None:
            break
        *_, size, severity = _BLOCK.unpack_from(data, at)
        severities.append(severity)
        _entries(data[at + _BLOCK.size : at + _BLOCK.size + size], size, sections, damage)
        at += length
    if not severities:
        raise DamagedError("no error status block in it")
    return Status(worst(severities), tuple(sections), min(at, len(data)), tuple(damage))


def _entries(data: bytes, size: int, sections: list[Section], damage: list[str]) -> None:
    if len(data) < size:
        damage.append(f"the block has {size} bytes, of which {size - len(data)} are missing")
    at = 0
    while at + _ENTRY.size <= len(data) and len(sections) < MAX_SECTIONS:
        kind, severity, revision, _, _, length, _, fru = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size + (_TIME_SIZE if revision >= _WITH_TIME else 0)
        body = data[at : at + length]
        if len(body) < length:
            damage.append(f"a section has {length} bytes, of which {length - len(body)} are missing")
        words = fru.partition(b"\0")[0].decode(errors="backslashreplace").strip()
        sections.append(Section(UUID(bytes_le=kind), severity, words, body))
        at += length
