# SPDX-License-Identifier: Apache-2.0
"""A stored dmesg record as a kernel shows it in pstorefs."""

import re
from typing import NamedTuple

from pstored.errors import DamagedError
from pstored.parse.decompress import unpack

_TEXT_END = re.compile(rb"[^\t\n\r\x1b -\xff]|\xff{4}")
OLD_TAIL = "where it ended is not known: what an older dump had left may stand behind it"
"""Of a plain text that the kernel had erased."""


def text_only(stored: bytes) -> bytes:
    """A text up to what is none: what a zone holds behind it, NULs or the ones of empty flash."""
    end = _TEXT_END.search(stored)
    return stored if end is None else stored[: end.start()]


class Shown(NamedTuple):
    """A file in pstorefs."""

    name: str
    data: bytes
    packed: bytes | None
    """What a kernel without the algorithm shows, as ``NAME.enc.z``; None if that is what is shown."""


def as_shown(name: str, stored: bytes, *, compressed: bool, notice: bytes = b"") -> Shown:
    """What the kernel that has the right algorithm shows; of a record that is damaged, it shows it packed.

    Source: fs/pstore/platform.c, decompress_record(); fs/pstore/inode.c, pstore_mkfile().

    Args:
        name: without ``.enc.z``.
        stored: the record without header and ECC notice.
        compressed: what the backend says of it.
        notice: the ECC notice.
    """
    if not compressed:
        return Shown(name, stored + notice, None)
    packed = Shown(f"{name}.enc.z", stored + notice, None)
    try:
        unpacked = unpack(stored)
    except DamagedError:
        return packed
    if unpacked.damage or not unpacked.complete:
        return packed
    return Shown(name, unpacked.text + notice, packed.data)
