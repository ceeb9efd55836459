# SPDX-License-Identifier: Apache-2.0
"""Crash variables of EFI as efivarfs shows them: left behind when another backend is active, or copied from there.

Source: drivers/firmware/efi/efi-pstore.c; fs/efivarfs/file.c.  ``file = attributes:u32 part``, little-endian, and
``name = "dump-type" type "-" part "-" count "-" seconds ["-" ("C" / "D")] "-" GUID``; up to 3.8 without the count, and
then the part is all there is of an id.
"""

import os
import re
from collections.abc import Iterator

from pstored.errors import DamagedError
from pstored.parse.decompress import unpack
from pstored.parse.header import split_dump_header
from pstored.readers.dump import as_shown
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source

BACKEND = "efi_pstore"
"""As kernels since 6.2 call it; up to 6.1 it is ``efi``."""
MAX_VARIABLE = 1 << 16
"""No firmware takes a larger one."""
_ATTRIBUTES = 4
_NON_VOLATILE = 1
_NAME = re.compile(
    r"dump-type(?P<type>0)-(?P<part>[0-9]{1,10})(?:-(?P<count>[0-9]{1,10}))?-(?P<seconds>[0-9]{1,12})"
    r"(?:-(?P<packed>[CD]))?-cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0"
)


def _recognize(source: Source) -> bool:
    """By its name, and by what is in it: attributes of a variable that survives a reboot, then a dump."""
    if _NAME.fullmatch(os.path.basename(source.name)) is None or source.size > MAX_VARIABLE:
        return False
    data = source.read(0, MAX_VARIABLE)
    return len(data) > _ATTRIBUTES and data[0] & _NON_VOLATILE != 0 and _is_dump(data[_ATTRIBUTES:])


def _is_dump(part: bytes) -> bool:
    if split_dump_header(part).header is not None:
        return True
    try:
        unpack(part)
    except DamagedError:
        return False
    return True


def read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:  # noqa: ARG001 - as every reader
    """The part of a dump that the variable holds."""
    name = _NAME.fullmatch(os.path.basename(source.name))
    if name is None:
        yield Remark("its name is none of a crash variable's, which tell the time and the part", is_damage=True)
        return
    part, count, seconds = int(name["part"]), int(name["count"] or 0), int(name["seconds"])
    number = (seconds * 100 + part) * 1000 + count if name["count"] else part  # generic_id()
    data = source.read(0, MAX_VARIABLE)[_ATTRIBUTES:]
    # without a letter, from before there was compression; but some of these kernels were patched
    packed = name["packed"] == "C" or (name["packed"] is None and split_dump_header(data).header is None)
    shown = as_shown(f"dmesg-{BACKEND}-{number}", data, compressed=packed)
    yield Salvaged(shown.name, shown.data, mtime_ns=seconds * 1_000_000_000, packed=shown.packed)


READER = Reader(recognize=_recognize, read=read, together=True)
