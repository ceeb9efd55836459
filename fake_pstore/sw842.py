# SPDX-License-Identifier: Apache-2.0
"""An 842 encoder (lib/842): a bit stream of 5-bit opcodes, most significant bit first.

Each opcode gives eight bytes: literals of 2, 4 or 8 bytes and references of 2, 4 or 8 bytes to what went before.  The
last bytes, fewer than eight, come as short data; then the end mark, a CRC, and zeros to a multiple of eight bytes.
For the log of a real crash it gives the very bytes that the kernel's encoder gave.
"""

from typing import NamedTuple

#   opcodes 0x00 to 0x19 in order: which items make up the eight bytes; D literal, I reference, of so many bytes
_TEMPLATES = """
    D8 | D4 D2 I2 | D4 I2 D2 | D4 I2 I2 | D4 I4 | D2 I2 D4 | D2 I2 D2 I2 | D2 I2 I2 D2 | D2 I2 I2 I2 | D2 I2 I4
    | I2 D2 D4 | I2 D4 I2 | I2 D2 I2 D2 | I2 D2 I2 I2 | I2 D2 I4 | I2 I2 D4 | I2 I2 D2 I2 | I2 I2 I2 D2
    | I2 I2 I2 I2 | I2 I2 I4 | I4 D4 | I4 D2 I2 | I4 I2 D2 | I4 I2 I2 | I4 I4 | I8
"""
_OPCODE_BITS = 5
_OP_REPEAT, _OP_ZEROS, _OP_SHORT, _OP_END = 0x1B, 0x1C, 0x1D, 0x1E
_MAX_REPEAT = 64  # six bits, one more than they say
_INDEX_BITS = {2: 8, 4: 9, 8: 8}
_POLYNOMIAL = 0x04C11DB7


class _Item(NamedTuple):
    kind: str
    size: int
    at: int
    """Offset in the eight bytes."""


def _items(template: str) -> list[_Item]:
    found, at = [], 0
    for word in template.split():
        found.append(_Item(word[0], int(word[1]), at))
        at += int(word[1])
    return found


_ITEMS = [_items(template) for template in _TEMPLATES.split("|")]


def crc_842(data: bytes) -> int:
    """CRC-32 of the plain text: polynomial 0x04C11DB7, most significant bit first, from 0, not inverted."""
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (_POLYNOMIAL if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc


def _index(position: int, size: int, total: int) -> int | None:
    """The index by which a decoder with *total* bytes of output finds *position*; None where none does."""
    ring = size << _INDEX_BITS[size]
    if position + size > total or position < total - ring:
        return None
    return position // size % (1 << _INDEX_BITS[size])


class _Encoder:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bits: list[str] = []
        self.seen: dict[bytes, int] = {}
        """The newest aligned position of every run of 2, 4 and 8 bytes."""

    def put(self, value: int, width: int) -> None:
        self.bits.append(f"{value:0{width}b}")

    def learn(self, start: int) -> None:
        """Make the eight bytes at *start* known as targets of references."""
        for size in (2, 4, 8):
            for position in range(start, start + 8, size):
                self.seen[self.data[position : position + size]] = position

    def indexes(self, start: int) -> dict[tuple[int, int], int]:
        """Which pieces of the eight bytes at *start* can be references: (offset, size) to index."""
        found = {}
        for size in (2, 4, 8):
            for at in range(0, 8, size):
                position = self.seen.get(self.data[start + at : start + at + size])
                index = None if position is None else _index(position, size, start)
                if index is not None:
                    found[at, size] = index
        return found

    def eight(self, start: int) -> None:
        """One opcode for the eight bytes at *start*: the shortest template that fits."""
        indexes = self.indexes(start)
        usable = [
            (sum(_INDEX_BITS[i.size] if i.kind == "I" else 8 * i.size for i in items), opcode)
            for opcode, items in enumerate(_ITEMS)
            if all(i.kind == "D" or (i.at, i.size) in indexes for i in items)
        ]
        opcode = min(usable)[1]
        self.put(opcode, _OPCODE_BITS)
        for kind, size, at in _ITEMS[opcode]:
            if kind == "I":
                self.put(indexes[at, size], _INDEX_BITS[size])
            else:
                self.put(int.from_bytes(self.data[start + at : start + at + size], "big"), 8 * size)

    def finish(self) -> bytes:
        self.put(_OP_END, _OPCODE_BITS)
        self.put(crc_842(self.data), 32)
        bits = "".join(self.bits)
        bits += "0" * (-len(bits) % 64)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _repeats(data: bytes, start: int) -> int:
    """How often the eight bytes before *start* come again from there, at most _MAX_REPEAT times."""
    count = 0
    while count < _MAX_REPEAT and start >= 8 and start + 8 <= len(data):
        if data[start : start + 8] != data[start - 8 : start]:
            break
        count, start = count + 1, start + 8
    return count


def compress_842(data: bytes) -> bytes:
    """*data* as an 842 stream, a multiple of eight bytes long."""
    encoder = _Encoder(data)
    start = 0
    while start + 8 <= len(data):
        again = _repeats(data, start)
        if again:
            encoder.put(_OP_REPEAT, _OPCODE_BITS)
            encoder.put(again - 1, 6)
        elif not any(data[start : start + 8]):
            encoder.put(_OP_ZEROS, _OPCODE_BITS)
        else:
            encoder.eight(start)
        for _ in range(again or 1):
            encoder.learn(start)
            start += 8
    if rest := data[start:]:
        encoder.put(_OP_SHORT, _OPCODE_BITS)
        encoder.put(len(rest), 3)
        encoder.put(int.from_bytes(rest, "big"), 8 * len(rest))
    return encoder.finish()
