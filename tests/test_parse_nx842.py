# SPDX-License-Identifier: Apache-2.0
"""842: streams of a real kernel, and of an encoder that keeps its rings as the kernel's compressor does."""

import contextlib
import tarfile
import tracemalloc
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.errors import DamagedError
from pstored.parse.nx842 import crc32_be, decode_842

CAPTURES = Path(__file__).parent.parent / "fake_pstore" / "captures"
NOTICE = b"\nECC: No errors detected\n"
RECORDS = ("dmesg-ramoops-0", "dmesg-ramoops-1")
LIMIT = 1 << 20

# lib/842/842.h: the arguments of each template, in the order of the opcodes.
TEMPLATES = (
    *("D8", "D4D2I2", "D4I2D2", "D4I2I2", "D4I4", "D2I2D4", "D2I2D2I2", "D2I2I2D2", "D2I2I2I2", "D2I2I4"),
    *("I2D2D4", "I2D4I2", "I2D2I2D2", "I2D2I2I2", "I2D2I4", "I2I2D4", "I2I2D2I2", "I2I2I2D2", "I2I2I2I2", "I2I2I4"),
    *("I4D4", "I4D2I2", "I4I2D2", "I4I2I2", "I4I4", "I8"),
)
RING_PLACES = {2: 256, 4: 512, 8: 256}


def decode(data: bytes, limit: int = LIMIT) -> tuple[bytes, int, tuple[str, ...]]:
    """Text, bytes used, damage."""
    out = bytearray()
    used, damage = decode_842(data, out, limit)
    return bytes(out), used, damage


def salvage(data: bytes, limit: int = LIMIT) -> bytes:
    """The text up to the damage, or whole."""
    out = bytearray()
    with contextlib.suppress(DamagedError):
        decode_842(data, out, limit)
    return bytes(out)


def read_record(name: str) -> tuple[bytes, bytes]:
    """A real record as stored, and its text; both without the ECC notice."""
    with tarfile.open(CAPTURES / "lab-enc-842" / "pstore.tar.xz") as tar:
        stored = tar.extractfile(f"{name}.enc.z")
        assert stored is not None
        packed = stored.read().removesuffix(NOTICE)
    with tarfile.open(CAPTURES / "lab-enc-842" / "truth.tar.xz") as tar:
        shown = tar.extractfile(name)
        assert shown is not None
        return packed, shown.read().removesuffix(NOTICE)


def slow_crc(text: bytes) -> int:
    """crc32_be() from its definition, bit by bit."""
    crc = 0
    for byte in text:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc


class Writer:
    """Writes operations; knows where text stands by rings of places that are overwritten in turn."""

    def __init__(self) -> None:
        self.bits: list[str] = []
        self.text = b""
        self.rings: dict[int, dict[int, bytes]] = {2: {}, 4: {}, 8: {}}
        self.opcodes: set[int] = set()

    def put(self, value: int, count: int) -> "Writer":
        """Write *count* bits."""
        self.bits.append(format(value, f"0{count}b") if count else "")
        return self

    def opcode(self, opcode: int) -> "Writer":
        """Write an opcode."""
        self.opcodes.add(opcode)
        return self.put(opcode, 5)

    def add(self, block: bytes) -> None:
        """Note eight bytes of text in the rings."""
        for size, ring in self.rings.items():
            for at in range(0, 8, size):
                place = (len(self.text) + at) // size % RING_PLACES[size]
                ring[place] = block[at : at + size]
        self.text += block

    def choices(self, block: bytes) -> list[tuple[int, list[tuple[int, int]]]]:
        """Every template that can write *block*, with its operands as (value, bits)."""
        where = {size: {text: place for place, text in ring.items()} for size, ring in self.rings.items()}
        found = []
        for opcode, template in enumerate(TEMPLATES):
            operands: list[tuple[int, int]] = []
            at = 0
            for kind, size in zip(template[::2], map(int, template[1::2]), strict=True):
                piece = block[at : at + size]
                at += size
                if kind == "D":
                    operands.append((int.from_bytes(piece, "big"), size * 8))
                elif piece in where[size]:
                    operands.append((where[size][piece], {2: 8, 4: 9, 8: 8}[size]))
                else:
                    break
            else:
                found.append((opcode, operands))
        return found

    def write(self, block: bytes, choice: int) -> None:
        """Write *block* by one of the operations that can; *choice* takes it from the shortest, wrapping round."""
        choices = sorted(self.choices(block), key=lambda found: sum(bits for _, bits in found[1]))
        opcode, operands = choices[choice % len(choices)]
        self.opcode(opcode)
        for value, count in operands:
            self.put(value, count)
        self.add(block)

    def end(self, crc: int | None = None) -> bytes:
        """The stream: end mark, checksum and padding behind the operations."""
        self.opcode(0x1E).put(slow_crc(self.text) if crc is None else crc, 32)
        return self.padded()

    def padded(self) -> bytes:
        """The operations alone, padded to eight bytes."""
        bits = "".join(self.bits)
        bits += "0" * (-len(bits) % 64)
        return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


def encode(text: bytes, choices: list[int]) -> bytes:
    """Pack as the kernel's compressor does, but with any template that fits in place of the shortest."""
    writer = Writer()
    whole = len(text) // 8 * 8
    for number, at in enumerate(range(0, whole, 8)):
        block = text[at : at + 8]
        if block == bytes(8) and choices[number % len(choices)] % 2:
            writer.opcode(0x1C).add(block)
        elif writer.text[-8:] == block and choices[number % len(choices)] % 3:
            writer.opcode(0x1B).put(0, 6).add(block)
        else:
            writer.write(block, choices[number % len(choices)])
    if rest := text[whole:]:
        writer.opcode(0x1D).put(len(rest), 3)
        for byte in rest:
            writer.put(byte, 8)
        writer.text += rest
    return writer.end()


@pytest.mark.parametrize("name", RECORDS)
def test_real_records_give_the_text_the_kernel_gave(name: str) -> None:
    """Two streams of Linux 6.1, checksum included, and nothing is left over."""
    packed, text = read_record(name)
    assert decode(packed) == (text, len(packed), ())


def test_crc_is_the_kernels_crc32_be() -> None:
    """The standard check value of this CRC, CRC-32/CKSUM's without its inversion and length; and the definition."""
    assert crc32_be(b"") == 0
    assert crc32_be(b"123456789") == 0x89A1897F
    assert all(crc32_be(text) == slow_crc(text) for text in (b"\0", b"\x01", b"Panic#1 Part1\n", bytes(range(256))))


def test_each_template_is_read_as_written() -> None:
    """Every opcode from 0 to 0x19, each where all its indexes have something to point at."""
    first, second = b"abcdefgh", b"efghabcd"
    for opcode in range(len(TEMPLATES)):
        writer = Writer()
        for block in (first, second):
            writer.write(block, len(writer.choices(block)) - 1)
        operands = next(operands for code, operands in writer.choices(second) if code == opcode)
        writer.opcode(opcode)
        for value, count in operands:
            writer.put(value, count)
        writer.add(second)
        stream = writer.end()
        assert decode(stream) == (first + second + second, len(stream), ()), TEMPLATES[opcode]


def test_rings_wrap_round() -> None:
    """Past 512 and 2048 bytes an index means the newest text at its place, up to the block being written."""
    text = b"".join(b"%03d.%03d " % (number * number % 101, number % 3) for number in range(900))
    writer = Writer()
    for at in range(0, len(text) // 8 * 8, 8):
        writer.write(text[at : at + 8], 0)
    assert writer.opcodes > {0x00, 0x19}, "the text must make the encoder copy"
    assert len(writer.text) > 3 * 2048
    assert decode(writer.end())[0] == writer.text


@given(
    pieces=st.lists(st.sampled_from([b"<6>[", b"    0.", b"00", b"\0" * 8, b"ab", b"x", b"fffffff0"]), max_size=900),
    choices=st.lists(st.integers(0, 40), min_size=1, max_size=40),
)
def test_round_trip(pieces: list[bytes], choices: list[int]) -> None:
    """What the encoder packs by any choice of operations comes back, with the right checksum and nothing left over."""
    text = b"".join(pieces)
    stream = encode(text, choices)
    assert decode(stream) == (text, len(stream), ())
    assert decode(stream + b"junk that is no padding") == (text, len(stream), ())


def test_repeat_writes_the_last_eight_bytes_again() -> None:
    """Operation 0x1b, 6 bits: 0 is once, 63 is 64 times."""
    for count in (1, 2, 64):
        writer = Writer().opcode(0).put(int.from_bytes(b"12345678", "big"), 64).opcode(0x1B).put(count - 1, 6)
        writer.text = b"12345678" * (count + 1)
        assert decode(writer.end())[0] == writer.text


def test_wrong_checksum_keeps_the_text() -> None:
    """The stream reached its end; a sentence gives both numbers."""
    writer = Writer()
    writer.write(b"Panic#1 ", 0)
    text, _, damage = decode(writer.end(crc=0xDEADBEEF))
    assert text == b"Panic#1 "
    assert damage == (f"the 842 checksum is wrong: deadbeef, but the text has {slow_crc(text):08x}",)


def test_missing_padding_does_no_harm() -> None:
    """The checksum proves the text, though the last bytes of the record were cut off."""
    packed, text = read_record(RECORDS[0])
    assert packed.endswith(b"\0\0"), "the record must end with padding"
    assert decode(packed[:-2]) == (text, len(packed) - 2, ())


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(Writer().opcode(0x1B).put(0, 6).end(), id="repeat of nothing"),
        pytest.param(Writer().opcode(0x1A).end(), id="opcode 0x1a"),
        pytest.param(Writer().opcode(0x1F).end(), id="opcode 0x1f"),
        pytest.param(Writer().opcode(0x19).put(0, 8).end(), id="index before any text"),
        pytest.param(Writer().opcode(0).put(0, 64).opcode(0x19).put(1, 8).end(), id="index ahead of the text"),
    ],
)
def test_impossible_operations_are_damage(stream: bytes) -> None:
    """What the kernel's decompressor refuses is refused, with the place in the message."""
    with pytest.raises(DamagedError, match="842 stream is corrupt at byte"):
        decode(stream)


def test_cut_streams_give_the_text_up_to_the_cut() -> None:
    """A real record cut anywhere: a prefix of the text, and a longer one the later it is cut."""
    packed, text = read_record(RECORDS[1])
    sizes = []
    for length in [*range(0, len(packed) - 8, 371), len(packed) - 8]:
        with pytest.raises(DamagedError, match=f"ends after {length} bytes without its end mark"):
            decode(packed[:length])
        found = salvage(packed[:length])
        assert text.startswith(found)
        sizes.append(len(found))
    assert sizes == sorted(sizes)
    assert sizes[0] == 0
    assert sizes[-1] >= len(text) - 64


def test_flipped_bits_leave_the_text_before_them() -> None:
    """The text that a cut at the flipped byte gives is there, whatever comes behind it."""
    packed, _ = read_record(RECORDS[0])
    for at, bit in product(range(0, len(packed) - 8, 613), (0, 5)):
        flipped = packed[:at] + bytes([packed[at] ^ 1 << bit]) + packed[at + 1 :]
        assert salvage(flipped).startswith(salvage(packed[:at]))
        assert len(salvage(flipped)) <= LIMIT + 512


@pytest.mark.parametrize("bomb", ["11100", "11011111111", "11101111" + "1" * 56], ids=["zeros", "repeat", "short"])
def test_bombs_stop_at_the_limit(bomb: str) -> None:
    """Eight bytes from 5 bits, 512 from 11: memory stays near the limit, whatever the stream holds."""
    bits = "00000" + "01" * 32 + bomb * 100_000
    bits += "0" * (-len(bits) % 8)
    stream = int(bits, 2).to_bytes(len(bits) // 8, "big")
    out = bytearray()
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError):
            decode_842(stream, out, 100_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 100_000 < len(out) <= 100_512
    assert peak < 400_000


@given(st.binary(max_size=300))
def test_any_bytes_give_a_value_or_damaged_error(data: bytes) -> None:
    """Any bytes give text or DamagedError, never another exception, and never more than the limit and one operation."""
    assert len(salvage(data, 1000)) <= 1000 + 512
