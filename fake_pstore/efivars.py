# SPDX-License-Identifier: Apache-2.0
"""efivarfs with the crash variables behind records of pstore: drivers/firmware/efi/efi-pstore.c, fs/efivarfs."""

import zlib
from collections.abc import Iterable
from pathlib import Path

from .names import efi_variable

GUID = "cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0"
_ATTRIBUTES = (7).to_bytes(4, "little")
"""Non-volatile, boot services, run time."""


def write_variables(directory: Path, records: Iterable[tuple[str, bytes]], *, packed: bool = True) -> list[Path]:
    """Make the variables whose records pstorefs shows under these names with these contents."""
    directory.mkdir(parents=True, exist_ok=True)
    made = []
    for name, text in records:
        number = int(name.removesuffix(".enc.z").rsplit("-", 1)[1])
        seconds, rest = divmod(number, 100_000)
        part, count = divmod(rest, 1000)
        path = directory / f"{efi_variable(part, count, seconds, compressed=packed)}-{GUID}"
        path.write_bytes(_ATTRIBUTES + (_deflated(text) if packed else text))
        made.append(path)
    return made


def _deflated(text: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(text) + deflate.flush()
