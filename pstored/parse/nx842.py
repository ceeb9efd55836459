# SPDX-License-Identifier: Apache-2.0
"""842, the compression of IBM's NX coprocessor, as the kernel's software does it (``pstore.compress=842``).

The stream is read bit by bit, the most significant bit of each byte first::

    stream   = *operation end
    operation = opcode(5 bits) operands
    end      = 0x1e crc(32 bits) *zero-bit            padded to a multiple of 8 bytes

Most operations give eight bytes: by one of 26 templates, each a row of data and indexes.  An index names text that
stands in one of three rings over what was put out so far.  Memory is the output, time is linear in input and output.

Source: lib/842/842.h, lib/842/842_decompress.c, sw842_decompress(); the checksum is crc32_be() from zero.
"""

import zlib

from pstored.errors import DamagedError

# D2 is two bytes of data, I4 an index of four bytes, ...; the opcode is the place in the table (842_decompress.c,
# decomp_ops[]).
_TEMPLATES = tuple(
    tuple((item[0] == "I", int(item[1])) for item in template.split())
    for template in (
        *("D8", "D4 D2 I2", "D4 I2 D2", "D4 I2 I2", "D4 I4"),
        *("D2 I2 D4", "D2 I2 D2 I2", "D2 I2 I2 D2", "D2 I2 I2 I2", "D2 I2 I4"),
        *("I2 D2 D4", "I2 D4 I2", "I2 D2 I2 D2", "I2 D2 I2 I2", "I2 D2 I4"),
        *("I2 I2 D4", "I2 I2 D2 I2", "I2 I2 I2 D2", "I2 I2 I2 I2", "I2 I2 I4"),
        *("I4 D4", "I4 D2 I2", "I4 I2 D2", "I4 I2 I2", "I4 I4", "I8"),
    )
)
_OPCODE_BITS = 5
_REPEAT = 0x1B  # count - 1 (6 bits): the last eight bytes again, that many times
_ZEROS = 0x1C  # eight zero bytes
_SHORT = 0x1D  # count (3 bits), and so many bytes: the tail of a text that is no multiple of eight
_END = 0x1E
_BLOCK = 8

# Bits of an index, and bytes of the ring it points into: 256 places of 2, 512 of 4, 256 of 8 bytes.
_INDEX_BITS = {2: 8, 4: 9, 8: 8}
_RING = {2: 512, 4: 2048, 8: 2048}

_BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def decode_842(data: bytes, out: bytearray, limit: int) -> tuple[int, tuple[str, ...]]:
    r"""Unpack an 842 stream to the end of *out*, which is to be empty: indexes count from its start.

    Args:
        data: the stream, e.g. ``b"\x02\x83\x0b\x73..."``; what stands behind its end does not matter.
        out: gets the text; when an error is raised it holds all text up to the damage.
        limit: bytes of text after which to give up; *out* may be up to 512 bytes longer.

    Returns:
        How many bytes of *data* belong to the stream, padding included; and a sentence if the checksum is wrong.

    Raises:
        DamagedError: the stream has no end, or what is no operation, or more text than *limit*.
    """
    bits = _Bits(data)
    while True:
        opcode = bits.take(_OPCODE_BITS)
        if opcode < len(_TEMPLATES):
            _fill_template(_TEMPLATES[opcode], bits, out)
        elif opcode == _END:
            break
        else:
            _run_special(opcode, bits, out)
        if len(out) > limit:
            raise DamagedError(f"the 842 stream gives more than {limit} bytes of text", offset=bits.offset)
    return _finish(bits, out)


def crc32_be(text: bytes | bytearray) -> int:
    """The kernel's crc32_be(0, text): polynomial 0x04c11db7, most significant bit first, no inversion.

    It is zlib's CRC with the bits of every byte, and of the result, in reverse, which is a hundred times faster than
    a loop in Python.
    """
    inverted = zlib.crc32(text.translate(_BIT_REVERSED), 0xFFFFFFFF)
    return int(f"{inverted ^ 0xFFFFFFFF:032b}"[::-1], 2)


class _Bits:
    """A place in a bit stream, most significant bit first."""

    __slots__ = ("_at", "_data", "_size")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._size = len(data) * 8

    @property
    def offset(self) -> int:
        """The byte with the next bit."""
        return self._at >> 3

    @property
    def padded(self) -> int:
        """Bytes up to here with padding, as far as it is there: the checksum has proved the text without it."""
        return min(self._size // 8, (self._at + 63) // 64 * 8)

    def corrupt(self, what: str) -> DamagedError:
        """The error to raise for damage that shows here."""
        return DamagedError(
            f"the 842 stream is corrupt at byte {self.offset} ({what}), and text shortly before may be wrong",
            offset=self.offset,
        )

    def take(self, count: int) -> int:
        """Read *count* bits as a number."""
        end = self._at + count
        if end > self._size:
            raise DamagedError(
                f"the 842 stream ends after {len(self._data)} bytes without its end mark", offset=len(self._data)
            )
        value = int.from_bytes(self._data[self._at >> 3 : (end + 7) >> 3], "big") >> (-end & 7)
        self._at = end
        return value & ((1 << count) - 1)


def _fill_template(template: tuple[tuple[bool, int], ...], bits: _Bits, out: bytearray) -> None:
    for is_index, size in template:
        if is_index:
            at = _resolve(bits.take(_INDEX_BITS[size]), size, len(out), bits)
            out += out[at : at + size]
        else:
            out += bits.take(size * 8).to_bytes(size, "big")


def _resolve(index: int, size: int, written: int, bits: _Bits) -> int:
    # do_index(): the ring is the output itself, cut into sections of the ring's length; an index at or past the
    # place where the present section is being written means the section before it.
    total = written & -_BLOCK
    ring = _RING[size]
    at = index * size
    if total > ring:
        section = total // ring * ring
        if at >= total - section:
            section -= ring
        at += section
    if at + size > total:
        raise bits.corrupt("it copies text not yet written")
    return at


def _run_special(opcode: int, bits: _Bits, out: bytearray) -> None:
    if opcode == _ZEROS:
        out += bytes(_BLOCK)
    elif opcode == _SHORT:
        for _ in range(bits.take(3)):
            out.append(bits.take(8))
    elif opcode == _REPEAT and len(out) >= _BLOCK:
        out += out[-_BLOCK:] * (bits.take(6) + 1)
    else:
        raise bits.corrupt(f"operation {opcode:#04x}")


def _finish(bits: _Bits, out: bytearray) -> tuple[int, tuple[str, ...]]:
    expected = bits.take(32)
    found = crc32_be(out)
    if found == expected:
        return bits.padded, ()
    return bits.padded, (f"the 842 checksum is wrong: {expected:08x}, but the text has {found:08x}",)
