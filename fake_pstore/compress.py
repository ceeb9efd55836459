# SPDX-License-Identifier: Apache-2.0
"""Each algorithm by which kernels have compressed dmesg records, as bytes exactly as they are stored."""

import zlib
from collections.abc import Callable

from .sw842 import compress_842


def _deflate(data: bytes, *, wbits: int, level: int = 6, mem_level: int = 8) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, wbits, mem_level)
    return stream.compress(data) + stream.flush()


def compress_zlib(data: bytes) -> bytes:
    """v3.12 to v4.17: a zlib stream of level 6, window 4 KiB, which begins 48 89."""
    return _deflate(data, wbits=12, mem_level=4)


def compress_deflate(data: bytes) -> bytes:
    """v4.18 to v6.5: raw deflate by the crypto API, window 2 KiB."""
    return _deflate(data, wbits=-11, mem_level=6)


def compress_deflate32k(data: bytes) -> bytes:
    """Since v6.6: raw deflate, window 32 KiB."""
    return _deflate(data, wbits=-15)


def compress_lz4(data: bytes) -> bytes:
    """v4.6 to v6.5: one LZ4 block without frame, size or end mark."""
    import lz4.block

    return bytes(lz4.block.compress(data, store_size=False))


def compress_lz4hc(data: bytes) -> bytes:
    """v4.17 to v6.5: as lz4, by the slower search."""
    import lz4.block

    return bytes(lz4.block.compress(data, mode="high_compression", compression=9, store_size=False))


def compress_lzo(data: bytes) -> bytes:
    """v4.6 to v6.5: a raw LZO1X stream, which ends 11 00 00."""
    import lzo

    return bytes(lzo.compress(data, 1, False))


def _zstd(data: bytes, *, sized: bool) -> bytes:
    try:
        from compression import zstd  # Python 3.14
    except ImportError:
        from backports import zstd
    options = {zstd.CompressionParameter.compression_level: 3, zstd.CompressionParameter.content_size_flag: sized}
    return bytes(zstd.compress(data, options=options))


def compress_zstd(data: bytes) -> bytes:
    """v5.16 to v6.5: a zstd frame of level 3 with content size, without checksum."""
    return _zstd(data, sized=True)


def compress_zstd_unsized(data: bytes) -> bytes:
    """v4.19 to v5.15: as zstd, but the frame does not say how long its content is."""
    return _zstd(data, sized=False)


ALGORITHMS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "zlib": compress_zlib,
    "deflate": compress_deflate,
    "deflate32k": compress_deflate32k,
    "lz4": compress_lz4,
    "lz4hc": compress_lz4hc,
    "lzo": compress_lzo,
    "zstd": compress_zstd,
    "zstd-unsized": compress_zstd_unsized,
    "842": compress_842,
}
"""Keys for ``--compress``."""
