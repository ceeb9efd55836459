# SPDX-License-Identifier: Apache-2.0
r"""The Reed-Solomon code that ramoops protects its zones with: which blocks are damaged, and what they were.

Source: fs/pstore/ram_core.c, persistent_ram_init_ecc(), and lib/reed_solomon: symbols of 8 bits, field polynomial
0x11d, first root 1, primitive element 2.  A block of up to 128 bytes has *e* bytes of parity, and is whole if its
polynomial, parity behind data, is 0 at the *e* powers of 2; up to *e*/2 wrong bytes can be put right.

Checking is exact, and done for some thousand blocks at once: byte *n* of each makes one string, of which
``bytes.translate`` gives the product with any power, and long integers add up the products.  A damaged block is put
right by the package reedsolo, if it is installed.
"""

import importlib
from collections.abc import Callable
from types import ModuleType

BLOCK = 128
"""Bytes of data in a block: ECC's block_size, which no kernel lets anybody set."""
MAX_PARITY = 64
"""No zone has more bytes of it in a block: it takes a third of the memory then."""
_BATCH = 4096


def _powers() -> list[int]:
    found = [1]
    for _ in range(254):
        double = found[-1] << 1
        found.append(double ^ 0x11D if double & 0x100 else double)
    return found


_POWER = _powers()
_LOG = {value: exponent for exponent, value in enumerate(_POWER)}


def _product_table(exponent: int) -> bytes:
    """For ``bytes.translate``: each byte times 2 to the *exponent*."""
    return bytes([0, *(_POWER[(_LOG[value] + exponent) % 255] for value in range(1, 256))])


_TIMES = [_product_table(exponent) for exponent in range(255)]


def damaged_blocks(data: bytes, parity: bytes, roots: int, *, block: int = BLOCK) -> list[int]:
    """Which blocks are not what was written, in order.

    Args:
        data: blocks of *block* bytes; the last may be shorter.
        parity: of each block, one behind the other.
        roots: bytes of parity of each block.
        block: bytes of data in a block.
    """
    if short := len(data) % block:
        # as the code's definition has it: what is not there counts as zeros in front
        data = data[:-short] + bytes(block - short) + data[-short:]
    count = len(data) // block
    found: list[int] = []
    for first in range(0, count, _BATCH):
        last = min(first + _BATCH, count)
        found += (
            first + n
            for n in _damaged(
                [data[first * block + n : last * block : block] for n in range(block)]
                + [parity[first * roots + n : last * roots : roots] for n in range(roots)],
                roots,
            )
        )
    return found


def _damaged(columns: list[bytes], roots: int) -> list[int]:
    """Which rows of a matrix are no code words; it is given by its columns."""
    syndromes = [0] * roots
    for exponent, column in enumerate(reversed(columns)):
        syndromes[0] ^= int.from_bytes(column, "little")
        for root in range(1, roots):
            syndromes[root] ^= int.from_bytes(column.translate(_TIMES[root * exponent % 255]), "little")
    wrong = 0
    for syndrome in syndromes:
        wrong |= syndrome
    if not wrong:
        return []
    return [row for row, value in enumerate(wrong.to_bytes(len(columns[0]), "little")) if value]


# -- correcting


def import_reedsolo() -> ModuleType | None:
    """The package, or None if it is not installed."""
    try:
        return importlib.import_module("reedsolo")
    except ImportError:
        return None


MAX_LOST = 2048
"""Blocks beyond repair: so many are no damage, but no blocks of this code.  The rest is not tried; one takes
half a millisecond."""
MISSING = "reedsolo is not installed: pip install 'pstored[ecc]'"

Correct = Callable[[bytes], tuple[bytes, int] | None]
"""From a block with its parity behind it to the data that was written and the number of bytes that were wrong, parity
included; None if more are wrong than the code can tell."""


def corrector(roots: int, find: Callable[[], ModuleType | None] = import_reedsolo) -> Correct | None:
    """What puts blocks right; None if the package that does it is missing."""
    reedsolo = find()
    if reedsolo is None:
        return None
    codec = reedsolo.RSCodec(roots, fcr=0, prim=0x11D, generator=2)
    lost = 0

    def correct(block: bytes) -> tuple[bytes, int] | None:
        nonlocal lost
        if lost >= MAX_LOST:
            return None
        try:
            data, _, places = codec.decode(block)
        except reedsolo.ReedSolomonError:
            lost += 1
            return None
        return bytes(data), len(places)

    return correct
