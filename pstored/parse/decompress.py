# SPDX-License-Identifier: Apache-2.0
"""Unpacking of dmesg records the kernel could not unpack itself (``.enc.z``), by trying.

Nothing in a record says how it was packed.  So each algorithm is tried, and the text decides: it must begin with a
dump header (``Panic#1 Part1``).  Damaged streams give all text up to the damage, with a sentence on what is wrong.

Limits: memory is the output, at most OUTPUT_LIMIT, and less for short records; time is linear in input and output.
LZ4 and LZO are unpacked here and not by their libraries: those give the whole text or nothing, need a guess at its
length, and have no wheels for small boards; 25 KiB of text take 2 ms here.  Only zstd needs a library, which is
loaded when a record begins with zstd's magic number.  No other algorithm fails as a whole if a record is cut: zstd
packs up to 128 KiB of text in blocks that are unpacked from their end.

Source: fs/pstore/platform.c, pstore_compress(), decompress_record(), and what it calls: lib/zlib_deflate,
lib/zstd, lib/842, lib/lz4 (format: lz4_Block_format.md), lib/lzo (format: Documentation/staging/lzo.rst).
"""

import importlib
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from types import ModuleType
from typing import Any

from pstored.errors import DamagedError
from pstored.parse.header import split_dump_header
from pstored.parse.lz import decode_lz4, decode_lzo
from pstored.parse.nx842 import decode_842

OUTPUT_LIMIT = 8 * 1024 * 1024
"""Bytes of text.  It all comes out of the printk buffer (1 MiB or less, unless ``log_buf_len=`` says otherwise), into
one buffer that was kmalloc()ed for long: 4 MiB at most.  Twice that; two copies exist for a moment."""

OUTPUT_FLOOR = 1024 * 1024
"""Bytes of text any record may give: what a zone of 256 KiB can hold (100/45 times its size, 4.18 to 6.5), doubled."""

OUTPUT_RATIO = 64
"""Times its own size a record may give beyond the floor; a log of one message over and over reaches 16 (its time
stamps differ).  With the floor it keeps a bomb of 1 KiB below 2 MiB."""

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

# Text and input in which a header must show before a stream is unpacked as a whole.  The longest header has 80 bytes;
# the costliest way to them is deflate with a table of code lengths (under 300 bytes).  So wrong guesses cost nothing.
_HEAD_TEXT = 256
_HEAD_INPUT = 2048

# At most this much text comes from one call of the inflater, and has to be done again, slowly, if the call fails.
_INFLATE_STEP = 64 * 1024

# 8 MiB, OUTPUT_LIMIT: libzstd would allocate up to 128 MiB if the frame says so.  The kernel's level 3 needs 2 MiB.
_ZSTD_WINDOW_LOG_MAX = 23

# The kernel reads ``====1.2-C\n`` by sscanf(), whose newline takes any white space with it (fs/pstore/ram.c,
# ramoops_read_kmsg_hdr(); lib/ctype.c).  Two such bytes begin no stream that a compressor makes of a record.
_WHITE_SPACE = tuple(bytes([byte]) for byte in b"\t\n\v\f\r \xa0")


class Algorithm(StrEnum):
    """How a record was packed; the words are those of ``pstore.compress=``."""

    DEFLATE = "deflate"
    """Raw deflate, without header and checksum: since 4.18; the only one since 6.6."""
    ZLIB = "zlib"
    """A zlib stream (RFC 1950): 3.12 to 4.17, and powerpc's nvram without pstore."""
    ZSTD = "zstd"
    """A zstd frame: 4.19 to 6.5."""
    LZ4 = "lz4"
    """One LZ4 block, of lz4 or lz4hc, which share the format; it has no end mark: 4.6 to 6.5."""
    LZO = "lzo"
    """LZO1X: 4.6 to 6.5."""
    NX842 = "842"
    """Software 842: 4.17 to 6.5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A record's text, as good as it could be had."""

    text: bytes
    """Begins with the dump header; up to the damage, if there is any."""
    algorithm: Algorithm
    complete: bool
    """Whether the stream reached its proper end.  For LZ4, which has no end mark, that is a block that closes as the
    format demands, and a text that ends with a newline, as all texts do."""
    damage: tuple[str, ...]
    """What is wrong, in sentences; empty if nothing is."""
    unused: int
    """Bytes of the record behind the end of the stream; 0 if it has no end.  Always 0 for LZ4."""


class UnpackError(DamagedError):
    """No algorithm gives a text that begins with a dump header."""

    def __init__(self, message: str, *, offset: int = 0, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message, offset=offset, hint="pip install 'pstored[compress]'" if missing else None)
        self.missing = missing
        """Packages, by their name on PyPI, that are not installed and could unpack it; a later try may succeed."""


def import_zstd() -> ModuleType | None:
    """Import ``compression.zstd`` (Python 3.14), else ``backports.zstd``; None if there is neither."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def unpack(
    data: bytes, *, limit: int = OUTPUT_LIMIT, find_zstd: Callable[[], ModuleType | None] = import_zstd
) -> Unpacked:
    r"""Unpack a record, its ECC notice cut off.

    Args:
        data: the record as stored, e.g. ``b"\xac\x55\x6d\x73..."``; junk behind the end of the stream is left alone
            (but LZ4 has no end, and takes it for its own).
        limit: bytes of text that are enough; for short records OUTPUT_FLOOR and OUTPUT_RATIO set a lower limit.
        find_zstd: gives the zstd module, or None if it is not installed.

    Returns:
        The text of a whole stream if there is one, else the longest text that a damaged one gives.

    Raises:
        UnpackError: no algorithm gives a text that begins with a dump header.
    """
    limit = min(limit, OUTPUT_FLOOR + OUTPUT_RATIO * len(data))
    if data.startswith(ZSTD_MAGIC):
        return _unpack_zstd(data, limit, find_zstd())  # no other stream with a header in it begins so
    tried = _best(_try_decoder(algorithm, data, limit) for algorithm in _DECODERS)
    found = tried or _best(_put_back(data, limit))
    if found is None:
        raise UnpackError(f"no algorithm unpacks this to a dump header: {data[:16]!r} at byte 0")
    return found


#   A decoder unpacks its first argument to the second, which is empty, and stops beyond the length that is the third.
#   It returns the bytes used, and sentences on what is wrong all the same.  It raises DamagedError, or IndexError where
#   the stream breaks off, if there is no end; all text up to there is in the second argument then.
#   What it returns or raises beyond the length does not count: _run() knows by the text.
_Decoder = Callable[[bytes, bytearray, int], tuple[int, tuple[str, ...]]]


def _best(candidates: Iterable[Unpacked | None]) -> Unpacked | None:
    found = [candidate for candidate in candidates if candidate is not None]
    return max(found, key=lambda one: (one.complete, not one.damage, len(one.text)), default=None)


def _try_decoder(algorithm: Algorithm, data: bytes, limit: int) -> Unpacked | None:
    decode = _DECODERS[algorithm]
    head = _run(algorithm, decode, data[:_HEAD_INPUT], _HEAD_TEXT)
    return _run(algorithm, decode, data, limit) if _has_header(head) else None


def _has_header(found: Unpacked) -> bool:
    return split_dump_header(found.text[:_HEAD_TEXT]).header is not None


def _run(algorithm: Algorithm, decode: _Decoder, data: bytes, limit: int) -> Unpacked:
    out = bytearray()
    complete = False
    used = len(data)
    damage: tuple[str, ...]
    try:
        used, damage = decode(data, out, limit)
        complete = True
    except IndexError:
        damage = (_cut(algorithm, data),)
    except DamagedError as error:
        damage = (str(error),)
    if len(out) > limit:
        del out[limit:]
        complete = False
        damage = (f"the {algorithm} stream gives more than {limit} bytes of text, the rest is left out",)
    return Unpacked(
        text=bytes(out),
        algorithm=algorithm,
        complete=complete,
        damage=damage,
        unused=len(data) - used if complete else 0,
    )


def _cut(algorithm: Algorithm, data: bytes) -> str:
    return f"the {algorithm} stream ends after {len(data)} bytes without its end mark"


def _corrupt(algorithm: Algorithm, at: int, error: object) -> DamagedError:
    # "Error -3 while decompressing data: invalid stored block lengths", the library's own, is better without its start
    what = str(error).rpartition(": ")[2]
    return DamagedError(
        f"the {algorithm} stream is corrupt at byte {at} ({what}), and text shortly before may be wrong", offset=at
    )


def _put_back(data: bytes, limit: int) -> Iterable[Unpacked | None]:
    """Try raw deflate with a byte before it that the kernel may have swallowed."""
    for byte in _WHITE_SPACE:
        found = _try_decoder(Algorithm.DEFLATE, byte + data, limit)
        if found is not None:
            note = f"the kernel swallowed the first byte of the stream; {byte.hex()} was put back"
            yield replace(found, damage=(note, *found.damage))


def _inflate(algorithm: Algorithm, data: bytes, start: int, out: bytearray, limit: int) -> int:
    """Unpack the raw deflate stream at *start*, and give the place behind its end."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    rest = data[start:]
    while not inflater.eof and len(out) <= limit:
        before = inflater.copy()
        try:
            piece = inflater.decompress(rest, _INFLATE_STEP)
        except zlib.error as error:
            at = len(data) - len(rest) + _inflate_slowly(before, rest, out)
            raise _corrupt(algorithm, at, error) from error
        if not piece and not inflater.eof:
            raise IndexError
        out += piece
        rest = inflater.unconsumed_tail
    return len(data) - len(inflater.unused_data)


def _inflate_slowly(inflater: "zlib._Decompress", data: bytes, out: bytearray) -> int:
    # A call that fails keeps back what it has unpacked.  Byte by byte, that is next to nothing.
    for at in range(len(data)):
        try:
            out += inflater.decompress(data[at : at + 1])
        except zlib.error:
            return at
    return len(data)


def _unpack_deflate(data: bytes, out: bytearray, limit: int) -> tuple[int, tuple[str, ...]]:
    return _inflate(Algorithm.DEFLATE, data, 0, out, limit), ()


#   stream = CMF FLG deflate-stream Adler-32(big endian)                                    RFC 1950, section 2.2
#   The kernel's own begin 48 89: level 6, window of 4 KiB.  There is no preset dictionary.
#   By hand and not by zlib, so that a wrong header or checksum costs a sentence and not the text.
def _unpack_zlib(data: bytes, out: bytearray, limit: int) -> tuple[int, tuple[str, ...]]:
    end = _inflate(Algorithm.ZLIB, data, 2, out, limit)
    damage = []
    header = int.from_bytes(data[:2], "big")
    if header % 31 or header & 0x0F20 != 0x0800:
        damage.append(f"the zlib header is wrong: {header:04x}")
    if end + 4 > len(data):
        raise IndexError
    expected, found = int.from_bytes(data[end : end + 4], "big"), zlib.adler32(out)
    if found != expected:
        damage.append(f"the zlib checksum is wrong: {expected:08x}, but the text has {found:08x}")
    return end + 4, tuple(damage)


_DECODERS: dict[Algorithm, _Decoder] = {
    Algorithm.DEFLATE: _unpack_deflate,
    Algorithm.ZLIB: _unpack_zlib,
    Algorithm.NX842: decode_842,
    Algorithm.LZ4: decode_lz4,
    Algorithm.LZO: decode_lzo,
}


def _unpack_zstd(data: bytes, limit: int, zstd: ModuleType | None) -> Unpacked:
    if zstd is None:
        raise UnpackError(f"no zstd library to unpack {data[:16]!r} at byte 0", missing=("backports.zstd",))

    def decode(data: bytes, out: bytearray, limit: int) -> tuple[int, tuple[str, ...]]:
        try:
            decompressor = make_zstd(zstd)
            out += decompressor.decompress(data, limit + 1)
        except zstd.ZstdError as error:
            at = _feed_zstd_slowly(zstd, data, out, limit)
            raise _corrupt(Algorithm.ZSTD, at, error) from error
        if not decompressor.eof:
            raise IndexError
        return len(data) - len(decompressor.unused_data), ()

    found = _run(Algorithm.ZSTD, decode, data, limit)
    if not _has_header(found):
        # A block (up to 128 KiB of text, so mostly the whole record) is unpacked from its end: all of it or nothing.
        reason = found.damage[0] if found.damage else f"its text begins with {found.text[:16]!r}"
        raise UnpackError(f"no dump header by zstd: {reason}")
    return found


def make_zstd(zstd: ModuleType) -> Any:
    """A decompressor that takes no more memory than a record needs, whatever the frame says."""
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MAX})


def _feed_zstd_slowly(zstd: ModuleType, data: bytes, out: bytearray, limit: int) -> int:
    # A call that fails keeps back the blocks before the damage; so do it byte by byte.
    decompressor = make_zstd(zstd)
    for at in range(len(data)):
        try:
            out += decompressor.decompress(data[at : at + 1], limit + 1 - len(out))
        except zstd.ZstdError:
            return at
        if decompressor.eof or len(out) > limit:  # a frame that is wrong as a whole may end by its pieces
            return at
    return len(data)
