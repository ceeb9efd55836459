# SPDX-License-Identifier: Apache-2.0
"""Values that the writers pass on."""

from dataclasses import dataclass
from typing import NamedTuple

from .kernels import Era
from .klog import STAMP_PREFIX, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is chosen beside the scenario."""

    backend: str
    era: Era
    algorithm: str | None = None
    """The crashed kernel's compression, unknown to the kernel that shows the records; None: both have the era's."""
    ecc: bytes | None = None
    """First word of the ECC notice; None without ECC (ramoops only)."""
    seed: int = 0
    boot_ids: tuple[str, ...] = ()
    """Of the boots, oldest first, the collecting boot last; made up where there are too few."""
    stamp_prefix: str = STAMP_PREFIX
    """Before the boot id in the log; empty: no stamp."""
    damage: tuple[str, ...] = ()
    """Keys of damage.DAMAGES, each for one record."""
    missing_parts: frozenset[int] = frozenset()
    parts: int | None = None
    """As many parts a dump, whatever kmsg_bytes is: the log is lengthened to give them."""


class Record(NamedTuple):
    """A file in pstorefs."""

    name: str
    data: bytes
    mtime_ns: int
    what: str
    """In words, for the summary."""


class BootTruth(NamedTuple):
    """What a boot really was: what a reader must find out."""

    boot_id: str
    began: int
    """Unix seconds."""
    events: tuple[str, ...]
    """Words of scenarios.EVENTS."""
    messages: tuple[Message, ...] = ()
    """All that its kernel logged; see devkmsg.py."""
