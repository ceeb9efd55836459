# SPDX-License-Identifier: Apache-2.0
"""One zone of a ramoops region: its header, its ring, its ECC.

Source: fs/pstore/ram_core.c.  ``zone = header data [parity-of-data-blocks parity-of-header]``, and ``header =
signature:u32 start:u32 size:u32`` in the byte order of the machine: *size* bytes are valid, of which the oldest is at
*start* once the ring has wrapped, and *start* is *size* before.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from pstored.parse.reedsolomon import BLOCK, MISSING, Correct, damaged_blocks
from pstored.readers.model import Source

SIGNATURE = 0x43474244
"""PERSISTENT_RAM_SIG, ``DBGC``; in ftrace zones it is combined with the version of the kernel."""
HEADER = 12
MAX_DATA = 64 << 20
"""Of a zone: no more is read of it."""
MOST_NAMED = 8

Order = Literal["little", "big"]


class Zone(NamedTuple):
    """Where a zone is, and what for."""

    type: str
    """``dmesg``, ``console``, ``ftrace`` or ``pmsg``."""
    number: int
    """Of the slot, or of the CPU."""
    at: int
    """In the source."""
    size: int
    """Header, data and parity together."""


class Header(NamedTuple):
    """The three words at a zone's beginning."""

    signature: int
    start: int
    size: int

    def fits(self, room: int) -> bool:
        """Whether the kernel would take it for that of a zone with *room* bytes of data, signature aside."""
        return self.start <= self.size <= room


def parse_header(data: bytes, order: Order) -> Header:
    """From the first twelve bytes; what is missing of them counts as 0."""
    words = [int.from_bytes(data[at : at + 4], order) for at in (0, 4, 8)]
    return Header(*words)


def room(size: int, ecc: int) -> int:
    """How many bytes of data a zone of *size* bytes has, with *ecc* bytes of parity for each block."""
    rest = size - HEADER
    if ecc:
        blocks = -(-(rest - ecc) // (BLOCK + ecc))
        rest -= (blocks + 1) * ecc
    return max(0, rest)


class Content(NamedTuple):
    """What a zone holds."""

    header: Header
    area: bytes
    """Its data as they lie there, put right where that could be done; no more than was asked for."""
    corrected: int
    """Bytes that ECC put right, those of the header and of the parity included."""
    lost: int
    """Blocks that it could not."""
    notes: tuple[str, ...]
    damage: tuple[str, ...]

    @property
    def ring(self) -> bytes:
        """The valid bytes, oldest first."""
        start, size = self.header.start, self.header.size
        return self.area[start:size] + self.area[:start] if start <= size else self.area[:size]


def read_header(source: Source, zone: Zone, ecc: int, order: Order, correct: Correct | None) -> tuple[Header, int, int]:
    """The header, put right if it has to be; bytes that were wrong, and 1 if it is beyond repair."""
    data = source.read(zone.at, HEADER)
    if not ecc:
        return parse_header(data, order), 0, 0
    parity = source.read(zone.at + zone.size - ecc, ecc)
    if len(data) < HEADER or len(parity) < ecc:
        return parse_header(data, order), 0, 1
    if not damaged_blocks(data, parity, ecc, block=HEADER):
        return parse_header(data, order), 0, 0
    found = None if correct is None else correct(data + parity)
    return (parse_header(data, order), 0, 1) if found is None else (parse_header(found[0], order), found[1], 0)


def read_zone(
    source: Source, zone: Zone, ecc: int, order: Order, correct: Correct | None, *, whole: bool = False
) -> Content:
    """Read a zone as the kernel does when it boots.

    Args:
        source: where it is.
        zone: which.
        ecc: bytes of parity of each block; 0: there is none.
        order: of the machine's bytes.
        correct: puts damaged blocks right; None if nothing does.
        whole: all of its data, not only what is valid.
    """
    header, corrected, lost = read_header(source, zone, ecc, order, correct)
    notes: list[str] = []
    damage: list[str] = []
    if lost:
        damage.append("the header of its zone is damaged")
    space = room(zone.size, ecc)
    wanted = space if whole or not header.fits(space) else header.size
    if wanted > MAX_DATA:
        damage.append(f"of {wanted} bytes in its zone, only the first {MAX_DATA} are read")
        wanted = MAX_DATA
    blocks = -(-wanted // BLOCK)
    data = source.read(zone.at + HEADER, min(blocks * BLOCK, space))
    if len(data) < wanted:
        damage.append(f"{wanted - len(data)} bytes of its zone are not there: the file ends before")
    if ecc and data:
        parity = source.read(zone.at + HEADER + space, blocks * ecc)
        data, more, gone = _repair(data, parity, ecc, correct, notes.append, damage.append)
        corrected, lost = corrected + more, lost + len(gone)
    return Content(header, data[:wanted], corrected, lost, tuple(notes), tuple(damage))


def _repair(
    data: bytes,
    parity: bytes,
    ecc: int,
    correct: Correct | None,
    note: Callable[[str], None],
    damaged: Callable[[str], None],
) -> tuple[bytes, int, list[int]]:
    """Data put right, the bytes that were wrong, and the blocks beyond repair."""
    there = len(parity) // ecc
    repaired = bytearray(data)
    corrected = 0
    mended: list[int] = []
    gone: list[int] = []
    for block in damaged_blocks(data[: there * BLOCK], parity[: there * ecc], ecc):
        span = slice(block * BLOCK, min((block + 1) * BLOCK, len(data)))
        found = None if correct is None else correct(data[span] + parity[block * ecc : (block + 1) * ecc])
        if found is None:
            gone.append(block)
        else:
            repaired[span], wrong = found
            corrected += wrong
            mended.append(block)
    if mended:
        note(f"ECC put {corrected} bytes right, in {_blocks(mended)}")
    if gone and correct is None:
        damaged(f"ECC finds damage in {_blocks(gone)}, and nothing to put it right with: {MISSING}")
    elif gone:
        damaged(f"ECC could not repair {_blocks(gone)}, of {BLOCK} bytes each")
    return bytes(repaired), corrected, gone


def _blocks(numbers: list[int]) -> str:
    """``block 7``; ``blocks 7, 9 and 12``."""
    if len(numbers) == 1:
        return f"block {numbers[0]}"
    shown = ", ".join(map(str, numbers[:MOST_NAMED]))
    return f"{len(numbers)} blocks: {shown}" + (", ..." if len(numbers) > MOST_NAMED else "")
