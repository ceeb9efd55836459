# SPDX-License-Identifier: Apache-2.0
"""LZ4 blocks and LZO1X streams, as kernels 4.6 to 6.5 made them (``pstore.compress=lz4``, ``lz4hc``, ``lzo``).

Decoded here, not by a library, because of what a library does not give: the text up to the damage of a record that is
cut or broken, with no guess at its length and no C code on hostile bytes; and there are no wheels for small boards.

A decoder appends the text to *out*, no more than some bytes over *limit*, and returns how many bytes of *data* it has
used.  It raises IndexError where the stream is cut, and DamagedError where it is broken; *out* keeps the text so far.
"""

from pstored.errors import DamagedError

#   block    = *(sequence match) sequence                 the last sequence ends the block: nothing else marks the end
#   sequence = token [length] literals                    token: literals (4 bits), match - 4 (4 bits); 15: see length
#   match    = distance(16 bits, little endian) [length]
#   length   = *255 byte                                  their sum is added to the token's 15
#   Behind a match, the last sequence has 5 literals or more.                            lz4_Block_format.md
_LZ4_LAST_LITERALS = 5


def decode_lz4(data: bytes, out: bytearray, limit: int) -> tuple[int, tuple[str, ...]]:
    """Unpack one LZ4 block; see the module for what is given and raised."""
    at = 0
    while len(out) <= limit:
        token = data[at]
        count, at = _add_lz4_length(data, at + 1, token >> 4)
        at = _take_literals(data, at, count, out)
        if at == len(data):
            _check_lz4_end(data, count, out)
            break
        distance = data[at] | data[at + 1] << 8
        length, end = _add_lz4_length(data, at + 2, token & 15)
        _copy_match("lz4", at, distance, length + 4, out, limit)
        at = end
    return at, ()


def _add_lz4_length(data: bytes, at: int, length: int) -> tuple[int, int]:
    if length < 15:
        return length, at
    while data[at] == 255:
        length += 255
        at += 1
    return length + data[at], at + 1


def _check_lz4_end(data: bytes, literals: int, out: bytearray) -> None:
    # A block cut between literals and match looks whole, but for these two.
    if literals < min(_LZ4_LAST_LITERALS, len(out)):
        raise IndexError
    if not out.endswith(b"\n"):
        raise DamagedError(f"the lz4 stream ends after {len(data)} bytes and the text within a line", offset=len(data))


#   stream  = [first literals] *(run / match literals) %x11.00.00                       Documentation/staging/lzo.rst
#   first   = byte - 17 literals; if byte > 17
#   run     = t=0..15 [length], t + 3 literals            only behind a match with no literals, or at the start
#   match   = t ... distance, length
#     t = 0..15    behind 1 to 3 literals: 2 bytes, up to 1 KiB back; behind a run: 3 bytes, 2 to 3 KiB back
#     t = 16..31   (t & 7) + 2 bytes, or [length]; from 16 KiB to 48 KiB back
#     t = 32..63   (t & 31) + 2 bytes, or [length]; up to 16 KiB back
#     t = 64..255  (t >> 5) + 1 bytes; up to 2 KiB back
#   length  = *0 byte                                     where the bits in t are 0: 255 for each 0, and the byte
#   A match's two last bits of the distance's first byte (of t, if t < 16 or t > 63) count the literals behind it.
_LZO_END = b"\x11\x00\x00"
_LZO_RUN = 4  # what was before: a run, and not 0 to 3 literals behind a match


def decode_lzo(data: bytes, out: bytearray, limit: int) -> tuple[int, tuple[str, ...]]:
    """Unpack one LZO1X stream; see the module for what is given and raised."""
    at = before = 0
    if data[0] > 17:
        at = _take_literals(data, 1, data[0] - 17, out)
        before = _LZO_RUN  # 1 to 3 would be no run, but begin no header
    while len(out) <= limit:
        if data.startswith(_LZO_END, at):
            return at + len(_LZO_END), ()
        if data[at] < 16 and before == 0:
            count, at = _add_lzo_length(data, at + 1, data[at], 15)
            at = _take_literals(data, at, count + 3, out)
            before = _LZO_RUN
        else:
            distance, length, before, end = _read_lzo_match(data, at, before)
            _copy_match("lzo", at, distance, length, out, limit)
            at = _take_literals(data, end, before, out)
    return at, ()


def _read_lzo_match(data: bytes, at: int, before: int) -> tuple[int, int, int, int]:
    """Distance, length, literals behind it, and the place of these."""
    t = data[at]
    if t >= 64:
        return (t >> 2 & 7) + (data[at + 1] << 3) + 1, (t >> 5) + 1, t & 3, at + 2
    if t < 16:
        distance = (t >> 2) + (data[at + 1] << 2) + 1
        return (distance + 2048, 3, t & 3, at + 2) if before == _LZO_RUN else (distance, 2, t & 3, at + 2)
    mask = 31 if t >= 32 else 7
    length, at = _add_lzo_length(data, at + 1, t & mask, mask)
    word = data[at] | data[at + 1] << 8
    distance = (word >> 2) + (1 if t >= 32 else 16384 + ((t & 8) << 11))
    return distance, length + 2, word & 3, at + 2


def _add_lzo_length(data: bytes, at: int, length: int, base: int) -> tuple[int, int]:
    if length:
        return length, at
    length = base
    while not data[at]:
        length += 255
        at += 1
    return length + data[at], at + 1


def _take_literals(data: bytes, at: int, count: int, out: bytearray) -> int:
    out += data[at : at + count]
    if at + count > len(data):
        raise IndexError
    return at + count


def _copy_match(algorithm: str, at: int, distance: int, length: int, out: bytearray, limit: int) -> None:
    start = len(out) - distance
    if start < 0 or distance == 0:
        raise DamagedError(
            f"the {algorithm} stream is corrupt at byte {at} (it copies text not yet written), and text shortly before "
            "may be wrong",
            offset=at,
        )
    length = max(0, min(length, limit + 1 - len(out)))
    if distance >= length:
        out += out[start : start + length]
    else:
        out += (out[start:] * (length // distance + 1))[:length]
