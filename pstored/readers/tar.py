# SPDX-License-Identifier: Apache-2.0
"""A tar of records: /sys/fs/pstore as somebody has packed it, what systemd-pstore took, pstored's own records.tar.

By their names, whatever directory they are in; what else is in the tar is left out.  Times are as exact as the tar has
them: a pax header has fractions of a second, others have none.
"""

import tarfile
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation

from pstored.parse.filename import TYPES, split_record_name
from pstored.readers.memory import AsFile
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source
from pstored.terminal import some

MAX_MEMBERS = 10_000
"""So many are looked at: EFI space for as many records is in no machine."""
MAX_RECORD = 16 << 20
"""A larger member is no record."""
MAX_HEADER = 1 << 20
"""What tarfile reads at once is a header: one that says it has 8 GiB has not."""
_DIGITS = 12
"""Seconds have no more: a number can be written that takes all memory to work out."""
_MAGIC_AT, _MAGIC = 257, b"ustar"


class _File(AsFile):
    """Of which nothing large is read at once, whatever a header says."""

    def read(self, size: int = -1, /) -> bytes:
        return super().read(MAX_HEADER if size < 0 else min(size, MAX_HEADER)) or b""


def _recognize(source: Source) -> bool:
    """A tar in which one of the first members is a record."""
    if source.read(_MAGIC_AT, len(_MAGIC)) != _MAGIC:
        return False
    try:
        return any(_name(member) is not None for _, member in zip(range(64), _members(source), strict=False))
    except (tarfile.TarError, ValueError, EOFError):
        return False


def _members(source: Source) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=_File(source), mode="r:") as tar:
        while (member := tar.next()) is not None:
            yield member


def _name(member: tarfile.TarInfo) -> str | None:
    """The record that a member is, by its name; None if it is none."""
    name = member.name.rpartition("/")[2]
    split = split_record_name(name)
    is_plain = member.isreg() and not member.issparse()
    return name if is_plain and split is not None and split.type in TYPES else None


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Nanoseconds since 1970; 0 if what stands there is no time."""
    try:
        exact = Decimal(member.pax_headers.get("mtime", str(member.mtime)))
        return max(0, int(exact * 1_000_000_000)) if exact.is_finite() and exact.adjusted() < _DIGITS else 0
    except InvalidOperation:
        return 0


def read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:  # noqa: ARG001 - as every reader
    """Each record; the rest is named."""
    others: list[str] = []
    count = 0
    try:
        for member in _members(source):
            count += 1
            if count > MAX_MEMBERS:
                yield Remark(f"more than {MAX_MEMBERS} members: the rest is left out", is_damage=True)
                break
            name = _name(member)
            if name is not None and member.size <= MAX_RECORD:
                yield _record(source, member, name)
            elif not member.isdir():
                others.append(member.name)
    except (tarfile.TarError, ValueError, EOFError) as e:
        yield Remark(f"the tar is damaged after {count} members: {e}", is_damage=True)
    if others:
        yield Remark(f"left out of the tar, no records by their names: {some(others)}")


def _record(source: Source, member: tarfile.TarInfo, name: str) -> Salvaged:
    data = source.read(member.offset_data, member.size)
    lack = member.size - len(data)
    damage = (f"the tar ends before it: {lack} bytes are missing",) if lack else ()
    return Salvaged(name, data, mtime_ns=_mtime_ns(member), damage=damage)


READER = Reader(recognize=_recognize, read=read)
