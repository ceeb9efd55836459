# SPDX-License-Identifier: Apache-2.0
"""CPER records, one behind the other: read from /dev/erst_dbg, or saved by firmware."""

from collections.abc import Iterator

from pstored.errors import DamagedError
from pstored.parse.cper import (
    CREATOR_PSTORE,
    DATA_AT,
    HEADER_SIZE,
    SECTION_DMESG,
    SECTION_DMESG_COMPRESSED,
    SECTION_MCE,
    Cper,
    parse_cper,
    record_length,
)
from pstored.readers.dump import as_shown
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source

MAX_RECORD = 4 << 20
"""No error log address range is larger; ERST's are some KiB."""
MAX_RECORDS = 65_536
"""Where the kernel gives up, too: fs/pstore/platform.c, pstore_get_backend_records()."""
BACKEND = "erst"


def salvage(data: bytes, *, erased: bool = False) -> Salvaged:
    """One record as pstorefs shows it; one that the kernel would not show has the type ``cper``, and is whole.

    Source: drivers/acpi/apei/erst.c, erst_reader().

    Args:
        data: from its signature on.
        erased: its store says so.

    Raises:
        DamagedError: it is none.
    """
    cper = parse_cper(data)
    kind = cper.sections[0].type if cper.sections else None
    if cper.creator != CREATOR_PSTORE or kind is None:
        return Salvaged(f"cper-{BACKEND}-{cper.record_id}", data[: cper.length], damage=cper.damage, erased=erased)
    content = data[DATA_AT : max(DATA_AT, cper.length)]
    mtime_ns = cper.unix_time * 1_000_000_000
    if kind in (SECTION_DMESG, SECTION_DMESG_COMPRESSED):
        name = f"dmesg-{BACKEND}-{cper.record_id}"
        shown = as_shown(name, content, compressed=kind == SECTION_DMESG_COMPRESSED)
        return Salvaged(
            shown.name, shown.data, mtime_ns=mtime_ns, packed=shown.packed, damage=_loss(cper), erased=erased
        )
    word = "mce" if kind == SECTION_MCE else "unknown"
    name = f"{word}-{BACKEND}-{cper.record_id}"
    return Salvaged(name, content, mtime_ns=mtime_ns, damage=_loss(cper), erased=erased)


def _loss(cper: Cper) -> tuple[str, ...]:
    return cper.damage[:1]  # that bytes are missing stands first, and again for the section


def _recognize(source: Source) -> bool:
    length = record_length(source.read(0, HEADER_SIZE))
    return length is not None and HEADER_SIZE <= length <= MAX_RECORD


def _read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:  # noqa: ARG001 - as every reader
    at = 0
    for _ in range(MAX_RECORDS):
        if at >= source.size:
            return
        length = record_length(source.read(at, HEADER_SIZE))
        if length is None or not HEADER_SIZE <= length <= MAX_RECORD:
            yield Remark(f"no record at byte {at}: {source.size - at} bytes are left out", is_damage=True)
            return
        try:
            yield salvage(source.read(at, length))
        except DamagedError as e:
            yield Remark(f"at byte {at}: {e}", is_damage=True)
        at += length
    yield Remark(f"more than {MAX_RECORDS} records: the rest is left out", is_damage=True)


READER = Reader(recognize=_recognize, read=_read)
