# SPDX-License-Identifier: Apache-2.0
"""The ledger, boots.jsonl: a line for each boot that pstored has run in, oldest first.

What a boot can know of itself, and of how the one before it ended, is gone with the next one; so it is written down
when pstored first runs in it, brought up to now from time to time, and closed when the service manager stops the
system.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from pstored import manager
from pstored.archive import READERS, Archive
from pstored.boots.resetreason import Clue, reset_clues
from pstored.documents import MAX_JSON, read_own
from pstored.errors import DiskError
from pstored.host import Facts, Host, is_boot_id
from pstored.stamp import UNSTAMPED, Stamp

logger = logging.getLogger(__name__)

NAME = "boots.jsonl"
MAX_BOOTS = 1000
"""The ledger keeps the newest so many."""
LOOK_AGAIN_S = 600.0
"""The running boot's line is not rewritten more often: each time costs two flushes."""
MAX_SECONDS = 253_402_300_800.0
"""The end of the year 9999: no clock and no uptime says more."""


class Witness(NamedTuple):
    """What the console, the journal or this ledger saw of a boot's end."""

    orderly: bool
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """A line of the ledger: a boot as pstored has seen it, first and last."""

    boot_id: str
    kernel: str | None
    """As ``uname -r``."""
    version: str | None
    """As ``uname -v``."""
    os_version: str | None = None
    """Of the system that it ran, os-release(5): after an update the next boot runs another."""
    os_build: str | None = None
    first_wall: float
    """Unix seconds when pstored first ran in it, by its clock, right or wrong."""
    first_uptime: float | None
    """Seconds since that boot began, at the same moment."""
    last_wall: float
    last_uptime: float | None
    stamped: bool = False
    """Whether its kernel log bears our stamp."""
    stamped_uptime: float | None = None
    """Seconds since that boot began when it was stamped; the harvest does so before the first look."""
    closes: bool = False
    """Whether, at the last look, a unit of ours was there to note an orderly end: then one without it was none."""
    closed: bool = False
    """Whether it ended in order: the service manager was stopping the system at the last look."""
    clues: tuple[Clue, ...] = ()
    """Of the boot before it."""
    witnesses: tuple[Witness, ...] | None = None
    """Of its end; None until a later boot has asked."""

    def starts(self) -> list[float]:
        """When it began, Unix seconds: by the first look, and by the last (the clock may have been set in between)."""
        looks = ((self.first_wall, self.first_uptime), (self.last_wall, self.last_uptime))
        return [wall - uptime for wall, uptime in looks if uptime is not None]


# -- the file


def parse_ledger(data: bytes) -> list[Boot]:
    """Read boots.jsonl, oldest first; a line that is none of ours, or of a boot that is there already, is left out."""
    found: dict[str, Boot] = {}
    for line in data.split(b"\n"):
        if (boot := _parse_line(line)) is not None:
            found.setdefault(boot.boot_id, boot)
    return list(found.values())


@lru_cache(2 * MAX_BOOTS)  # each stage reads the ledger, and few lines of it change
def _parse_line(line: bytes) -> Boot | None:
    try:
        fields = json.loads(line)
        known = {k: fields[k] for k in Boot.__dataclass_fields__ if k in fields}
        known["clues"] = tuple(Clue(*map(_text, clue)) for clue in known.get("clues", ()))
        if (said := known.get("witnesses")) is not None:
            known["witnesses"] = tuple(Witness(bool(orderly), _text(says)) for orderly, says in said)
        return Boot(**known) if _is_sound(known) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text, not {value!r}")
    return value


_NONE = type(None)
_TYPES: dict[str, tuple[type, ...]] = {
    "boot_id": (str,),
    "kernel": (str, _NONE),
    "version": (str, _NONE),
    "os_version": (str, _NONE),
    "os_build": (str, _NONE),
    "stamped": (bool,),
    "closes": (bool,),
    "closed": (bool,),
}


def _is_sound(line: dict[str, Any]) -> bool:
    """Whether every value is what it should be: they are reckoned with, compared and shown."""
    for name, types in _TYPES.items():
        if name in line and not isinstance(line[name], types):
            return False
    for name in ("first_uptime", "last_uptime", "stamped_uptime"):
        if (uptime := line.get(name)) is not None and not _is_seconds(uptime):
            return False
    return is_boot_id(line["boot_id"]) and _is_seconds(line["first_wall"]) and _is_seconds(line["last_wall"])


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < MAX_SECONDS  # NaN is not


def format_ledger(ledger: Iterable[Boot]) -> bytes:
    """The file's bytes."""
    names = Boot.__dataclass_fields__
    return b"".join(json.dumps({name: getattr(boot, name) for name in names}).encode() + b"\n" for boot in ledger)


def read_ledger(archive: Archive) -> list[Boot]:
    """The boots seen, oldest first; empty if there is no ledger.

    Raises:
        DiskError: it cannot be read now: written anew it would forget.
    """
    path = os.path.join(archive.path, NAME)
    try:
        return parse_ledger(read_own(path)[:MAX_JSON])
    except FileNotFoundError:
        return []
    except OSError as e:
        hint = READERS if isinstance(e, PermissionError) else None
        raise DiskError(f"cannot read {path!r}: {e.strerror}", hint=hint) from e


def known_boots(archive: Archive) -> list[Boot]:
    """The boots seen; none, and that is said, if the disk does not give them: crashes count for more."""
    try:
        return read_ledger(archive)
    except DiskError as e:
        logger.warning("the boots seen so far count for nothing now: %s", e)
        return []


# -- the running boot


class Look(NamedTuple):
    """One look at the running boot."""

    facts: Facts
    stamp: Stamp = UNSTAMPED
    closes: bool | None = None
    """None if that cannot be told."""
    closed: bool = False
    is_crash_kernel: bool = False
    """The kdump kernel is no boot of the machine's own: the ledger does not get it, and it judges none."""
    clues: Callable[[], tuple[Clue, ...]] = tuple
    """Asked at the first look only."""


def look(host: Host, *, stamped: Stamp = UNSTAMPED, closed: bool = False) -> Look:
    """Look at the running boot; *closed* if it is known that it ends in order."""
    closes = manager.closes_boots() if host.root == "/" else None
    return Look(
        host.facts(),
        stamp=stamped,
        closes=closes,
        closed=closed,
        is_crash_kernel=host.is_crash_kernel(),
        clues=lambda: reset_clues(host),
    )


def see_boot(ledger: list[Boot], look: Look) -> list[Boot]:
    """The ledger with the running boot's line added, or brought up to now if its last look is some time ago."""
    facts = look.facts
    if facts.boot_id is None or look.is_crash_kernel:
        return ledger
    wall = facts.wall_ns / 1e9
    known = next((boot for boot in ledger if boot.boot_id == facts.boot_id), None)
    if known is None:
        new = Boot(
            boot_id=facts.boot_id,
            kernel=facts.kernel_release,
            version=facts.kernel_version,
            os_version=facts.os_version,
            os_build=facts.os_build,
            first_wall=wall,
            first_uptime=facts.uptime_s,
            last_wall=wall,
            last_uptime=facts.uptime_s,
            stamped=bool(look.stamp.devices),
            stamped_uptime=look.stamp.uptime_s,
            closes=bool(look.closes),
            closed=look.closed,
            clues=look.clues(),
        )
        return [*ledger, new][-MAX_BOOTS:]
    seen = replace(
        known,
        closes=known.closes if look.closes is None else look.closes,  # that unit may have been stopped by hand
        closed=look.closed,  # a stop of the system that was called off is none
    )
    if look.stamp.devices and not known.stamped:
        seen = replace(seen, stamped=True, stamped_uptime=look.stamp.uptime_s)
    if seen == known and abs(wall - known.last_wall) < LOOK_AGAIN_S:
        return ledger
    seen = replace(seen, last_wall=wall, last_uptime=facts.uptime_s)
    return [seen if boot is known else boot for boot in ledger]


def note_boot(archive: Archive, look: Look) -> None:
    """Write the running boot into the ledger; the caller holds the archive's lock."""
    before = read_ledger(archive)
    ledger = see_boot(before, look)
    if ledger != before:
        write_ledger(archive, ledger)


def write_ledger(archive: Archive, ledger: Iterable[Boot]) -> None:
    """Replace the ledger; the caller holds the archive's lock."""
    archive.write(archive.path, {NAME: format_ledger(ledger)})
