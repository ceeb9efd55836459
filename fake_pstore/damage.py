# SPDX-License-Identifier: Apache-2.0
"""Ways in which records come out other than they went in, and the notice by which ramoops tells."""

import random
from typing import NamedTuple

ECC_NEW = b"ECC: "
ECC_OLD = b""


def ecc_notice(word: bytes, corrected: int = 0, bad_blocks: int = 0) -> bytes:
    r"""What ramoops puts behind every record of a region with ECC, e.g. ``b"\nECC: No errors detected\n"``.

    Args:
        word: ECC_NEW, or ECC_OLD up to about v5.19.
        corrected: bytes put right.
        bad_blocks: blocks beyond repair.
    """
    if not corrected and not bad_blocks:
        return b"\n" + word + b"No errors detected\n"
    return b"\n%s%d Corrected bytes, %d unrecoverable blocks\n" % (word, corrected, bad_blocks)


def flip_bits(data: bytes, rng: random.Random, number: int = 8) -> bytes:
    """That many bits the other way round, anywhere (no bit twice)."""
    damaged = bytearray(data)
    for bit in rng.sample(range(8 * len(data)), min(number, 8 * len(data))):
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Only the first part, between a quarter and three quarters."""
    return data[: rng.randrange(len(data) // 4, len(data) * 3 // 4 + 1)]


def zero_stretch(data: bytes, rng: random.Random) -> bytes:
    """An eighth of the data, anywhere, as NULs: a block that never reached the medium."""
    length = len(data) // 8
    start = rng.randrange(len(data) - length + 1)
    return data[:start] + bytes(length) + data[start + length :]


def lose_header(data: bytes, rng: random.Random) -> bytes:
    """The first bytes are other ones, so that neither a header nor a known compression begins there."""
    return rng.randbytes(min(16, len(data))) + data[16:]


DAMAGES = {"flip": flip_bits, "truncate": truncate, "zeros": zero_stretch, "header": lose_header}
"""Keys for ``--damage``."""


class Oddity(NamedTuple):
    """A file in pstorefs that is not what it should be; the name without ``-<backend>``."""

    record_type: str
    suffix: str
    data: bytes
    what: str


def garbage(rng: random.Random) -> list[Oddity]:
    """Names and contents no current kernel gives: what is not understood must be kept all the same."""
    return [
        Oddity("unknown", "-7711216860565340199", rng.randbytes(300), "section type the kernel does not know"),
        Oddity("type9", "-3", b"odd type number of an old kernel\n", "odd type number"),
        Oddity("annotate", "-0", b"vendor annotation\n", "type of a vendor"),
        Oddity("boot-log", "-0", b"vendor boot log\n", "type of a vendor, with a hyphen"),
        Oddity("dmesg", "-901", b"", "empty"),
        Oddity("dmesg", "-902", rng.randbytes(4096), "random bytes"),
        Oddity("dmesg", "-903.enc.z", rng.randbytes(777), "random bytes, said to be compressed"),
        Oddity("dmesg", "-904", bytes(4096), "NULs"),
        Oddity("dmesg", "-905", b"Panic#1 Part1\n", "a header and nothing else"),
        Oddity("dmesg", "-906", b"Panic#4294967295 Part4294967295\n<6>[    1.000000] far\n", "numbers at their end"),
        Oddity("dmesg", "-907", b"Panic#1 Part1\n<6>[    1.000000] \x1b]0;pwn\x07\x1b[2J\xff\xfe\n", "escapes"),
        Oddity("console", "-0", b"\xff" * 512, "flash never written"),
        Oddity("dmesg", "-18446744073709551615", b"Oops#1 Part1\n<4>[    1.000000] last id\n", "largest id"),
    ]  # fmt: skip
