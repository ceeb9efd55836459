# SPDX-License-Identifier: Apache-2.0
"""ACPI's boot error record: what firmware tells of the boot before, /sys/firmware/acpi/tables/data/BERT or a copy."""

from collections.abc import Iterator
from uuid import UUID

from pstored.errors import DamagedError
from pstored.parse.cpersections import KNOWN
from pstored.parse.estatus import block_length, parse_estatus
from pstored.parse.filename import BERT
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source

MAX_REGION = 1 << 20
"""No firmware reserves more: the kernel prints no more than five records of 1 KiB."""
_ENTRY_AT = 20
_GUID_SIZE = 16


def _recognize(source: Source) -> bool:
    """It has no magic number: by the type of its first section, which is one of few."""
    head = source.read(0, _ENTRY_AT + _GUID_SIZE)
    length = block_length(head)
    if length is None or len(head) < _ENTRY_AT + _GUID_SIZE or length > MAX_REGION:
        return False
    return UUID(bytes_le=head[_ENTRY_AT:]) in KNOWN


def read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:  # noqa: ARG001 - as every reader
    """One record with all blocks of the region; nothing if there is none, which is how a good boot ends."""
    data = source.read(0, MAX_REGION)
    try:
        status = parse_estatus(data)
    except DamagedError:
        yield Remark("no error of the boot before is in it")
        return
    yield Salvaged(f"cper-{BERT}-0", data[: status.size])


READER = Reader(recognize=_recognize, read=read)
