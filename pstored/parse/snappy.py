# SPDX-License-Identifier: Apache-2.0
"""Snappy blocks, as makedumpfile packs pages with (-p).

Decoded here for the reasons of :mod:`.lz`: no C code on hostile bytes, and no package for one page.
"""

from pstored.errors import DamagedError

#   block   = length *(literal / copy)             length of the text: 7 bits a byte, low ones first, bit 7: more
#   literal = tag(00) [1 to 4 bytes] bytes         tag >> 2: length - 1; or 60 to 63: 1 to 4 bytes have it
#   copy    = tag(01) byte                         tag >> 2 & 7: length - 4; tag >> 5 and the byte: 11 bits of distance
#           / tag(10) 2 bytes / tag(11) 4 bytes    tag >> 2: length - 1; the bytes, low ones first: distance
#                                                                                   format_description.txt
_MAX_LENGTH_BYTES = 5


def decode_snappy(data: bytes, limit: int) -> bytes:
    """Unpack one block.

    Args:
        data: all of it, no more.
        limit: bytes of text that are enough.

    Raises:
        DamagedError: it is broken or cut, or has more text than *limit*.
    """
    size, at = _read_length(data)
    if size > limit:
        raise DamagedError(f"the snappy block has {size} bytes of text, more than {limit}")
    out = bytearray()
    while at < len(data) and len(out) <= size:
        tag = data[at]
        if tag & 3 == 0:
            count, at = tag >> 2, at + 1
            if count >= 60:
                more = count - 59
                count, at = int.from_bytes(data[at : at + more], "little"), at + more
            out += data[at : at + count + 1]
            at += count + 1
        else:
            count, distance, at = _read_copy(data, at)
            start = len(out) - distance
            if start < 0 or distance == 0:
                raise DamagedError(f"the snappy block is corrupt at byte {at}: it copies what is not there", offset=at)
            piece = out[start : start + count]
            out += (piece * (count // len(piece) + 1))[:count]
    if at != len(data) or len(out) != size:
        raise DamagedError(f"the snappy block is corrupt: {len(out)} bytes of text, not {size}", offset=at)
    return bytes(out)


def _read_length(data: bytes) -> tuple[int, int]:
    size = 0
    for at, byte in enumerate(data[:_MAX_LENGTH_BYTES]):
        size |= (byte & 0x7F) << 7 * at
        if byte < 0x80:
            return size, at + 1
    raise DamagedError(f"the snappy block has no length: {data[:_MAX_LENGTH_BYTES]!r} at byte 0")


def _read_copy(data: bytes, at: int) -> tuple[int, int, int]:
    """Length, distance, and where it goes on."""
    tag = data[at]
    if tag & 3 == 1:
        low = data[at + 1] if at + 1 < len(data) else 0
        return (tag >> 2 & 7) + 4, tag >> 5 << 8 | low, at + 2
    width = 2 if tag & 3 == 2 else 4
    return (tag >> 2) + 1, int.from_bytes(data[at + 1 : at + 1 + width], "little"), at + 1 + width
