# SPDX-License-Identifier: Apache-2.0
"""Unpacking by trying: real records of every algorithm, whole, cut, damaged; and bombs."""

import functools
import random
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.errors import DamagedError
from pstored.parse.decompress import (
    OUTPUT_FLOOR,
    OUTPUT_LIMIT,
    OUTPUT_RATIO,
    ZSTD_MAGIC,
    Algorithm,
    Unpacked,
    UnpackError,
    import_zstd,
    unpack,
)

CAPTURES = Path(__file__).parent.parent / "fake_pstore" / "captures"
NOTICE = b"\nECC: No errors detected\n"
RECORDS = ("dmesg-ramoops-0", "dmesg-ramoops-1")
HEADER = b"Panic#1 Part1\n"
MIB = 1 << 20

ALGORITHMS = {
    "842": Algorithm.NX842,
    "deflate": Algorithm.DEFLATE,
    "lz4": Algorithm.LZ4,
    "lz4hc": Algorithm.LZ4,
    "lzo": Algorithm.LZO,
    "zstd": Algorithm.ZSTD,
}
"""What ``pstore.compress=`` of the captures gives."""

SALVAGEABLE = [name for name in ALGORITHMS if name != "zstd"]
"""A zstd block, here the whole record, is unpacked from its end."""

TEXTS = st.lists(
    st.sampled_from([b"<6>[    0.", b"000000] ", b"\n", b"Call Trace:\n", b"x", b"f" * 300, b"0123456789abcdef" * 80])
    | st.binary(max_size=30),
    max_size=120,
).map(lambda pieces: HEADER + b"".join(pieces) + b"\n")
"""Texts of a record, which all end with a newline."""


@functools.cache
def read_record(name: str, record: str = RECORDS[0]) -> tuple[bytes, bytes]:
    """A real record as stored, and its text; both without the ECC notice."""
    with tarfile.open(CAPTURES / f"lab-enc-{name}" / "pstore.tar.xz") as tar:
        stored = tar.extractfile(f"{record}.enc.z")
        assert stored is not None
        packed = stored.read()
    with tarfile.open(CAPTURES / f"lab-enc-{name}" / "truth.tar.xz") as tar:
        shown = tar.extractfile(record)
        assert shown is not None
        text = shown.read()
    assert packed.endswith(NOTICE)
    assert text.endswith(NOTICE)
    return packed.removesuffix(NOTICE), text.removesuffix(NOTICE)


def need_zstd() -> ModuleType:
    """The zstd library; without one the test is skipped."""
    zstd = import_zstd()
    if zstd is None:
        pytest.skip("neither compression.zstd nor backports.zstd")
    return zstd


def whole(text: bytes, algorithm: Algorithm, unused: int = 0) -> Unpacked:
    """What a stream without fault gives."""
    return Unpacked(text=text, algorithm=algorithm, complete=True, damage=(), unused=unused)


def unpack_or_none(data: bytes) -> Unpacked | None:
    """Unpack; None for UnpackError, and no other exception passes."""
    try:
        return unpack(data)
    except UnpackError:
        return None


def deflate(text: bytes, *, window: int = 15, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Raw deflate."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -window, 8, strategy)
    return packer.compress(text) + packer.flush()


def old_zlib(text: bytes) -> bytes:
    """As Linux 3.12 to 4.17: level 6, window of 4 KiB, memLevel 4."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 12, 4)
    return packer.compress(text) + packer.flush()


def store(text: bytes, last: int = 0) -> bytes:
    """A stored deflate block."""
    size = len(text).to_bytes(2, "little")
    return bytes([last]) + size + bytes(byte ^ 0xFF for byte in size) + text


def pack_842(bits: str) -> bytes:
    """The header as 842 operations, and *bits* behind it."""
    first, rest = (int.from_bytes(part, "big") for part in (HEADER[:8], HEADER[8:]))
    bits = f"00000{first:064b}11101110{rest:048b}{bits}"
    bits += "0" * (-len(bits) % 64)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def zstd_frame(*blocks: bytes, window_log: int = 17) -> bytes:
    """A zstd frame without content size, as old kernels wrote."""
    return ZSTD_MAGIC + bytes([0, (window_log - 10) << 3]) + b"".join(blocks)


def zstd_block(content: bytes, kind: int = 0, size: int | None = None, last: int = 0) -> bytes:
    """Kind 0 is raw, 1 is a byte over and over; 3 is reserved."""
    return ((len(content) if size is None else size) << 3 | kind << 1 | last).to_bytes(3, "little") + content


# --- what real kernels wrote ---


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_real_records_give_the_text_the_kernel_gave(name: str, record: str) -> None:
    """Six algorithms of Linux 6.1, each byte for byte as a kernel with that algorithm showed it."""
    if name == "zstd":
        need_zstd()
    packed, text = read_record(name, record)
    assert unpack(packed) == whole(text, ALGORITHMS[name])


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if not name.startswith("lz4")])
def test_junk_behind_the_end_is_counted(name: str) -> None:
    """The ECC notice left on, as for old kernels' variants of it: the text is whole, the rest is unused."""
    packed, text = read_record(name)
    assert unpack(packed + NOTICE) == whole(text, ALGORITHMS[name], unused=len(NOTICE))


@pytest.mark.parametrize("name", ["lz4", "lz4hc"])
def test_lz4_keeps_the_text_before_junk(name: str) -> None:
    """LZ4 has no end mark: with the notice left on, the text is there, and the record is not called whole."""
    packed, text = read_record(name)
    found = unpack(packed + NOTICE)
    assert found.text.startswith(text)
    assert not found.complete
    assert found.damage


def test_old_kernels_zlib_streams() -> None:
    """RFC 1950 with a 4 KiB window begins 48 89."""
    _, text = read_record("deflate")
    packed = old_zlib(text)
    assert packed.startswith(b"\x48\x89")
    assert unpack(packed + b"junk") == whole(text, Algorithm.ZLIB, unused=4)


@pytest.mark.parametrize("window", [11, 15])
def test_deflate_with_any_window(window: int) -> None:
    """2 KiB from 4.18 to 6.5, 32 KiB since 6.6."""
    _, text = read_record("deflate")
    assert unpack(deflate(text, window=window)) == whole(text, Algorithm.DEFLATE)


@pytest.mark.parametrize(
    "header", [b"Oops#12 Part3\n", b"Panic#1 Part12\n", b"Restart#2 Part1\n", b"Kexec#1 Part1\n", b"Panic#1 Part 2\n"]
)
def test_all_dump_headers_are_accepted(header: bytes) -> None:
    """Reasons of old and new kernels."""
    assert unpack(deflate(header + b"text\n")).text == header + b"text\n"


@pytest.mark.parametrize(
    "text",
    [b"", b"text\n", b"panic#1 Part1\n", b"Panic#1 Part1", b"Panic# Part1\n", b"Panic#1 Part\n", b"\nPanic#1 Part1\n"],
)
def test_text_without_a_dump_header_is_refused(text: bytes) -> None:
    """Though the stream is perfect: what a wrong algorithm gives looks like that."""
    for packed in (deflate(text), zlib.compress(text)):
        with pytest.raises(UnpackError, match="no algorithm unpacks this to a dump header"):
            unpack(packed)


# --- damage ---


@pytest.mark.parametrize("name", SALVAGEABLE)
def test_cut_records_give_the_text_up_to_the_cut(name: str) -> None:
    """Cut anywhere: a prefix of the text, the longer the later the cut, and never called whole."""
    packed, text = read_record(name)
    sizes = []
    end = len(packed) - 8 * (name == "842")  # its padding is no loss
    for length in [*range(0, 1000, 97), *range(1000, end, 701), end - 1]:
        found = unpack_or_none(packed[:length])
        sizes.append(0 if found is None else len(found.text))
        if found is not None:
            assert text.startswith(found.text)
            assert found.algorithm == ALGORITHMS[name]
            assert not found.complete
            assert f"ends after {length} bytes" in found.damage[0]
            assert found.unused == 0
    assert sizes == sorted(sizes)
    assert sizes[-1] > len(text) - 64
    assert sizes[len(sizes) // 2] > len(text) // 8


def test_every_cut_of_an_lz4_record_is_noticed() -> None:
    """Behind any literals a cut block looks whole, but for its last literals and its last line."""
    packed, text = read_record("lz4")
    for length in range(4000, 5500):
        found = unpack(packed[:length])
        assert text.startswith(found.text)
        assert not found.complete
        assert found.damage


def test_every_cut_of_a_long_deflate_stream() -> None:
    """Text that zlib has still to give when the input has run out comes too, wherever that happens."""
    packed = deflate(HEADER + bytes(200_000))
    for length in range(40, len(packed)):
        assert unpack(packed[:length]).text == zlib.decompressobj(-15).decompress(packed[:length])


@pytest.mark.parametrize(
    ("start", "match"),
    [
        pytest.param(b"\xf0\x00", b"\x10\x00", id="lz4"),
        pytest.param(b"\xf0\x00", b"\x00\x00", id="lz4 nowhere"),
        pytest.param(bytes([17 + 15]), b"\x21\x3c\x00", id="lzo"),
        pytest.param(bytes([17 + 15]), b"\x00\x00", id="lzo behind a run"),
    ],
)
def test_matches_before_the_start_are_damage(start: bytes, match: bytes) -> None:
    """A distance of 0, or one byte more than there is text: all up to there comes, and nothing made up."""
    found = unpack(start + HEADER + b"x" + match + bytes(300))
    assert found.text == HEADER + b"x"
    assert found.damage[0].endswith("(it copies text not yet written), and text shortly before may be wrong")


def test_lz4_block_that_ends_too_soon() -> None:
    """Behind a match, fewer than five literals are no end, though they end a line."""
    start = b"\xf2\x00" + HEADER + b"\n\x01\x00"
    assert unpack(start + b"\x50abcd\n") == whole(HEADER + b"\n" * 7 + b"abcd\n", Algorithm.LZ4)
    found = unpack(start + b"\x40abc\n")
    assert found.text == HEADER + b"\n" * 7 + b"abc\n"
    assert found.damage == ("the lz4 stream ends after 24 bytes without its end mark",)
    assert unpack(b"\xe0" + HEADER) == whole(HEADER, Algorithm.LZ4)


def test_cut_zlib_records() -> None:
    """Cut in the stream; and in the checksum, where all text is there and the doubt remains."""
    _, text = read_record("deflate")
    packed = old_zlib(text)
    for length in (100, 4000, len(packed) - 20):
        found = unpack(packed[:length])
        assert found.text
        assert text.startswith(found.text)
        assert found.damage == (f"the zlib stream ends after {length} bytes without its end mark",)
    found = unpack(packed[:-1])
    assert found.text == text
    assert not found.complete


def test_wrong_zlib_header_or_checksum_costs_no_text() -> None:
    """The end is reached, and a sentence says what is wrong."""
    _, text = read_record("deflate")
    packed = old_zlib(text)
    for damaged, what in (
        (b"\x00\x00" + packed[2:], "the zlib header is wrong: 0000"),
        (packed[:-1] + bytes([packed[-1] ^ 1]), "the zlib checksum is wrong"),
    ):
        found = unpack(damaged)
        assert found.text == text
        assert found.algorithm == Algorithm.ZLIB
        assert found.complete
        assert len(found.damage) == 1
        assert what in found.damage[0]


def test_wrong_842_checksum_costs_no_text() -> None:
    """842 is the other algorithm with a checksum."""
    packed = pack_842("11110" + "0" * 32)
    found = unpack(packed)
    assert found.text == HEADER
    assert found.complete
    assert "the 842 checksum is wrong: 00000000" in found.damage[0]


def test_corrupt_deflate_keeps_the_text_before() -> None:
    """zlib keeps back what it had unpacked when it fails; the text comes nevertheless."""
    found = unpack(store(HEADER + b"a" * 1000) + deflate(b"b" * 500 + bytes(range(256)))[:-2] + b"\xff" * 40)
    assert found.text.startswith(HEADER + b"a" * 1000 + b"b" * 500)
    found = unpack(store(HEADER + b"a" * 1000) + b"\x06")  # the third block type, which is none
    assert found.text == HEADER + b"a" * 1000
    assert found.damage == (
        "the deflate stream is corrupt at byte 1019 (invalid block type), and text shortly before may be wrong",
    )


@pytest.mark.parametrize("name", SALVAGEABLE)
def test_flipped_bits_leave_the_text_before_them(name: str) -> None:
    """What a cut at the flipped byte gives is there too, whatever comes behind it."""
    packed, _ = read_record(name)
    draw = random.Random(842)
    for at in draw.sample(range(1000, len(packed) - 8), 40):
        flipped = packed[:at] + bytes([packed[at] ^ 1 << draw.randrange(8)]) + packed[at + 1 :]
        before = unpack(packed[:at]).text
        assert unpack(flipped).text.startswith(before)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_damage_anywhere_gives_a_value_or_unpack_error(name: str) -> None:
    """Flipped bits, zeroed and lost bytes, near the start too: never another exception, never a text without header."""
    packed, _ = read_record(name)
    draw = random.Random(name)
    for _ in range(60):
        at = draw.choice((draw.randrange(40), draw.randrange(len(packed))))
        width = draw.choice((1, 1, 4, 64))
        for patch in (bytes(byte ^ 1 << draw.randrange(8) for byte in packed[at : at + width]), bytes(width), b""):
            found = unpack_or_none(packed[:at] + patch + packed[at + width :])
            assert found is None or found.text.startswith((b"Oops#", b"Panic#"))


def test_a_whole_stream_beats_a_longer_salvage() -> None:
    """e0 and a header begin an LZ4 block of 14 literals, here long and without end, and 207 literals of LZO, whole."""
    text = (HEADER + b"\x01\x00" + b"\x0f\x01\x00" + b"\xff" * 50 + b"\x00").ljust(207, b"\x10")
    packed = b"\xe0" + text
    salvaged = unpack(packed)
    assert salvaged.algorithm == Algorithm.LZ4
    assert len(salvaged.text) > 50 * 255
    assert not salvaged.complete
    assert unpack(packed + b"\x11\x00\x00") == whole(text, Algorithm.LZO)


# --- the byte that the kernel swallows ---


def test_swallowed_first_byte_is_put_back() -> None:
    """A short stream of fixed codes that begins with P begins with 0b, white space to the kernel's sscanf()."""
    packed = deflate(HEADER + b"<0>[    1.000000] Kernel panic\n", strategy=zlib.Z_FIXED)
    assert packed[0] == 0x0B
    found = unpack(packed[1:] + b"xy")
    assert found.text == HEADER + b"<0>[    1.000000] Kernel panic\n"
    assert found.complete
    assert found.unused == 2
    assert found.damage == ("the kernel swallowed the first byte of the stream; 0b was put back",)
    cut = unpack(packed[1:-8])
    assert HEADER in cut.text
    assert [sentence.split(";")[0] for sentence in cut.damage] == [
        "the kernel swallowed the first byte of the stream",
        f"the deflate stream ends after {len(packed) - 8} bytes without its end mark",
    ]


# --- zstd, and its library ---


def test_without_zstd_the_error_says_what_to_install() -> None:
    """A zstd record, and no library: the package's name, and how to get it."""
    packed, _ = read_record("zstd")
    with pytest.raises(UnpackError, match="no zstd library to unpack") as caught:
        unpack(packed, find_zstd=lambda: None)
    assert caught.value.missing == ("backports.zstd",)
    assert caught.value.hint == "pip install 'pstored[compress]'"
    assert isinstance(caught.value, DamagedError)


def test_other_records_need_no_library() -> None:
    """zstd is looked for only behind its magic number; and its absence is no excuse for other records."""

    def forbidden() -> None:
        raise AssertionError("zstd was looked for")

    for name in SALVAGEABLE:
        packed, text = read_record(name)
        assert unpack(packed, find_zstd=forbidden).text == text
    with pytest.raises(UnpackError) as caught:
        unpack(b"no record at all", find_zstd=forbidden)
    assert caught.value.missing == ()
    assert caught.value.hint is None


def test_cut_or_corrupt_zstd_gives_the_blocks_before() -> None:
    """Frames of several blocks: the whole ones come; a record of one block, as real ones are, gives nothing."""
    need_zstd()
    blocks = (zstd_block(HEADER), zstd_block(b"one\n"), zstd_block(b"two\n", last=1))
    assert unpack(zstd_frame(*blocks) + b"junk") == whole(HEADER + b"one\ntwo\n", Algorithm.ZSTD, unused=4)
    cut = unpack(zstd_frame(*blocks)[:-1])
    assert cut.text.startswith(HEADER + b"one\n")
    assert not cut.complete
    corrupt = unpack(zstd_frame(*blocks[:2], zstd_block(b"two\n", kind=3), b"more"))
    assert corrupt.text == HEADER + b"one\n"
    assert "the zstd stream is corrupt at byte" in corrupt.damage[0]
    packed, _ = read_record("zstd")
    with pytest.raises(UnpackError, match="no dump header by zstd: the zstd stream ends after 7000 bytes"):
        unpack(packed[:7000])


@pytest.mark.parametrize("behind", [b"", b"junk"])
@pytest.mark.parametrize("size", [len(HEADER) + 1, 255])
def test_zstd_frame_that_is_not_as_long_as_it_says(size: int, behind: bytes) -> None:
    """Wrong as a whole, and it ends all the same when it is fed by pieces: the text, and that it may not be all."""
    need_zstd()
    one_segment = 0x20
    found = unpack(
        b"\x28\xb5\x2f\xfd" + bytes([one_segment, size]) + zstd_block(HEADER) + zstd_block(b"", last=1) + behind
    )
    assert found.text == HEADER
    assert "the zstd stream is corrupt" in found.damage[0]


def test_zstd_checksum() -> None:
    """Kernels write none; where there is a wrong one, the text is there all the same."""
    zstd = need_zstd()
    packed = zstd.compress(HEADER + b"text\n" * 50, options={zstd.CompressionParameter.checksum_flag: 1})
    found = unpack(packed[:-1] + bytes([packed[-1] ^ 1]))
    assert found.text == HEADER + b"text\n" * 50
    assert not found.complete
    assert "checksum" in found.damage[0]


def test_zstd_window_is_bounded() -> None:
    """A frame that asks for a window of 128 MiB is refused before it is allocated; the kernel's 2 MiB pass."""
    need_zstd()
    text = zstd_block(HEADER, last=1)
    assert unpack(zstd_frame(text, window_log=21)).text == HEADER
    with pytest.raises(UnpackError, match="requires too much memory"):
        unpack(zstd_frame(text, window_log=27))


# --- bombs ---


def bombs() -> dict[str, Callable[[], bytes]]:
    """Streams, each of an algorithm, that would give far more text than a record can."""
    return {
        "deflate": lambda: deflate(HEADER + bytes(16 * MIB)),
        "zlib": lambda: zlib.compress(HEADER + bytes(16 * MIB)),
        "zstd": lambda: zstd_frame(zstd_block(HEADER), zstd_block(b"x", kind=1, size=1 << 17) * 128),
        "lz4": lambda: b"\xff\x00" + HEADER + b"x\x01\x00" + b"\xff" * 65536 + b"\x00",
        "lzo": lambda: bytes([17 + len(HEADER)]) + HEADER + b"\x20" + bytes(65536) + b"\x01\x00\x00",
        "842": lambda: pack_842("11011111111" * 33_000),
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs_cost_bounded_memory(name: str) -> None:
    """16 MiB from a few KiB: the text stops at the limit, with a sentence, and two copies is all there ever is."""
    packed = bombs()[name]()
    if name == "zstd":
        need_zstd()
    limit = min(OUTPUT_LIMIT, OUTPUT_FLOOR + OUTPUT_RATIO * len(packed))
    tracemalloc.start()
    try:
        found = unpack(packed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.algorithm == name
    assert len(found.text) == limit
    assert not found.complete
    assert found.damage == (f"the {name} stream gives more than {limit} bytes of text, the rest is left out",)
    assert peak < 2.5 * limit + 2 * len(packed)


def test_the_callers_limit_counts() -> None:
    """The text is cut to the byte; what is exactly as long as the limit is whole."""
    for name in SALVAGEABLE:
        packed, text = read_record(name)
        assert unpack(packed, limit=len(text)) == whole(text, ALGORITHMS[name])
        found = unpack(packed, limit=len(text) - 1)
        assert found.text == text[:-1]
        assert not found.complete
        assert "more than" in found.damage[0]


def test_repetitive_records_are_not_cut() -> None:
    """A log of one message without time stamps packs 400 times; what a large zone can hold of it comes whole."""
    text = HEADER + b"<4>foo: bar is broken\n" * 45_000
    assert unpack(deflate(text)) == whole(text, Algorithm.DEFLATE)


# --- any text, any bytes ---


@given(TEXTS)
def test_round_trip_deflate_and_zlib(text: bytes) -> None:
    """What zlib packs comes back."""
    assert unpack(deflate(text)) == whole(text, Algorithm.DEFLATE)
    assert unpack(old_zlib(text)) == whole(text, Algorithm.ZLIB)


@given(TEXTS)
def test_round_trip_zstd(text: bytes) -> None:
    """What libzstd packs comes back."""
    zstd = need_zstd()
    assert unpack(zstd.compress(text, 3)) == whole(text, Algorithm.ZSTD)


@given(TEXTS, st.sampled_from(["default", "high_compression"]))
def test_round_trip_lz4(text: bytes, mode: str) -> None:
    """What liblz4 packs, fast or well, comes back; and cut anywhere, a prefix of it."""
    block = pytest.importorskip("lz4.block")
    packed = block.compress(text, mode=mode, store_size=False)
    assert unpack(packed) == whole(text, Algorithm.LZ4)
    found = unpack_or_none(packed[: len(packed) // 2])
    assert found is None or text.startswith(found.text)


@given(TEXTS, st.sampled_from([1, 9]))
def test_round_trip_lzo(text: bytes, level: int) -> None:
    """What liblzo2 packs comes back: LZO1X-1, as the kernel, and LZO1X-999, which uses every kind of match."""
    lzo = pytest.importorskip("lzo")
    packed = lzo.compress(text, level, False)
    assert unpack(packed + b"junk") == whole(text, Algorithm.LZO, unused=4)
    found = unpack_or_none(packed[: len(packed) // 2])
    assert found is None or text.startswith(found.text)


def test_far_matches() -> None:
    """Matches over 16 and 32 KiB back, and runs over 255: the longest forms of LZ4 and LZO."""
    block, lzo = pytest.importorskip("lz4.block"), pytest.importorskip("lzo")
    draw = random.Random(1)
    noise = [draw.randbytes(size) for size in (700, 15_000, 17_000, 2000)]
    text = HEADER + b"".join(noise) + noise[0] + noise[3] + noise[1] + bytes(5000) + noise[2] + b"\n"
    assert unpack(block.compress(text, store_size=False)) == whole(text, Algorithm.LZ4)
    for level in (1, 9):
        assert unpack(lzo.compress(text, level, False)) == whole(text, Algorithm.LZO)


@given(
    st.binary(max_size=400),
    st.sampled_from(
        [
            b"",
            bytes([len(HEADER) << 4]) + HEADER,
            bytes([17 + len(HEADER)]) + HEADER,
            pack_842("")[:18],
            store(HEADER),
            b"\x48\x89" + store(HEADER),
            zstd_frame(zstd_block(HEADER)),
            ZSTD_MAGIC,
        ]
    ),
)
def test_any_bytes_give_a_value_or_unpack_error(data: bytes, start: bytes) -> None:
    """Any bytes, behind a good start of each algorithm too, give a text with a header or UnpackError, nothing else."""
    found = unpack_or_none(start + data)
    if found is not None:
        assert found.text.startswith(HEADER) or not start
        assert len(found.text) <= OUTPUT_FLOOR + OUTPUT_RATIO * len(start + data)
        assert found.complete or found.damage
        assert 0 <= found.unused <= len(data)
