# SPDX-License-Identifier: Apache-2.0
"""What every reader takes and gives."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol


class Source(Protocol):
    """Bytes that can be read from any place: a file, a device.  It may be far larger than memory."""

    @property
    def name(self) -> str:
        """The path of its file, for what only a name tells; no proof of anything.  Empty: standard input."""

    @property
    def size(self) -> int:
        """Bytes, as far as is known."""

    def read(self, at: int, count: int) -> bytes:
        """The *count* bytes from byte *at* on; fewer only at the end, or where the medium cannot be read."""


class Options(NamedTuple):
    """What the user says of a source."""

    parameters: Mapping[str, str] = {}
    """By the kernel's names, ``{"ramoops.record_size": "0x20000"}``; a reader uses those that it knows."""
    erased: bool = False
    """Give records, too, that the kernel had erased, where their bytes are still there."""


class Sender(NamedTuple):
    """Which machine a record is of, where it came over the net."""

    address: str
    """Empty if that is not known."""
    host: str | None = None
    """As its own words say; None if they do not."""


class Salvaged(NamedTuple):
    """One record found."""

    name: str
    """As pstorefs would show it: ``dmesg-ramoops-0``, ``console-serial-1``, ``mce-erst-7``."""
    data: bytes
    """As pstorefs would show it, ECC notice included."""
    mtime_ns: int = 0
    """The crash's time, nanoseconds since 1970; 0 if the source has none, and never when its file was written."""
    packed: bytes | None = None
    """As a kernel without the algorithm shows it, as ``NAME.enc.z``: if the archive has that, it has this record."""
    notes: tuple[str, ...] = ()
    """What somebody should know of it."""
    damage: tuple[str, ...] = ()
    """What of it is lost, in words."""
    erased: bool = False
    """The kernel had erased it."""
    sender: Sender | None = None
    """Who sent it, if it came over the net."""


class Remark(NamedTuple):
    """Something to be said of the whole source, not of one record."""

    text: str
    is_damage: bool = False
    """Whether something was lost, which goes into the exit status."""


class Reader(NamedTuple):
    """One format: ``READER`` of the module that :data:`pstored.readers.KINDS` names."""

    recognize: Callable[[Source], bool]
    """Whether a source is of this format, judged by its bytes, never by its name alone; looks at little of it."""
    read: Callable[[Source, Options], Iterator[Salvaged | Remark]]
    """All that can be had of it, record by record; damage is told, never raised."""
    together: bool = False
    """The files of this format in one directory are of one machine and one store: EFI variables, a crash's files."""
