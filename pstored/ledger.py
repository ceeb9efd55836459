# SPDX-License-Identifier: Apache-2.0
"""The ledger, boots.jsonl: a line for each boot that pstored has run in, oldest first.

What a boot can know of itself, and of how the one before it ended, is gone with the next one; so it is written down
when pstored first runs in it, brought up to now from time to time, and closed when the service manager stops the
system.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from pstored import manager
from pstored.archive import Archive
from pstored.host import BOOT_ID, Facts, Host
from pstored.resetreason import Clue, reset_clues
from pstored.stamp import UNSTAMPED, Stamp

NAME = "boots.jsonl"
MAX_BOOTS = 1000
"""The ledger keeps the newest so many."""
LOOK_AGAIN_S = 600.0
"""The running boot's line is not rewritten more often: each time costs two flushes."""


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
    """Whether a unit of ours was there to note an orderly end: then a line without one did not end so."""
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
    """Read boots.jsonl, oldest first; a line that is none of ours is left out."""
    found = []
    for line in data.split(b"\n"):
        try:
            fields = json.loads(line)
            known = {k: fields[k] for k in Boot.__dataclass_fields__ if k in fields}
            known["clues"] = tuple(Clue(*map(_text, clue)) for clue in known.get("clues", ()))
            if (said := known.get("witnesses")) is not None:
                known["witnesses"] = tuple(Witness(bool(orderly), _text(says)) for orderly, says in said)
            boot = Boot(**known)
            boot.starts()  # numbers must be numbers
            if BOOT_ID.fullmatch(boot.boot_id) and isinstance(boot.kernel, str | None):
                found.append(boot)
        except (ValueError, TypeError, KeyError):
            continue
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text, not {value!r}")
    return value


def format_ledger(ledger: Iterable[Boot]) -> bytes:
    """The file's bytes."""
    return b"".join(json.dumps(asdict(boot)).encode() + b"\n" for boot in ledger)


def read_ledger(archive: Archive) -> list[Boot]:
    """The boots seen, oldest first; empty if there is no ledger."""
    try:
        with open(os.path.join(archive.path, NAME), "rb") as f:
            return parse_ledger(f.read())
    except OSError:
        return []


# -- the running boot


class Look(NamedTuple):
    """One look at the running boot."""

    facts: Facts
    stamp: Stamp = UNSTAMPED
    closes: bool = False
    closed: bool = False
    clues: Callable[[], tuple[Clue, ...]] = tuple
    """Asked at the first look only."""


def look(host: Host, *, stamped: Stamp = UNSTAMPED, closed: bool = False) -> Look:
    """Look at the running boot; *closed* if it is known that it ends in order."""
    closes = host.root == "/" and manager.closes_boots()
    return Look(host.facts(), stamp=stamped, closes=closes, closed=closed, clues=lambda: reset_clues(host))


def see_boot(ledger: list[Boot], look: Look) -> list[Boot]:
    """The ledger with the running boot's line added, or brought up to now if its last look is some time ago."""
    facts = look.facts
    if facts.boot_id is None:
        return ledger
    wall = facts.wall_ns / 1e9
    known = next((boot for boot in ledger if boot.boot_id == facts.boot_id), None)
    if known is None:
        new = Boot(
            boot_id=facts.boot_id,
            kernel=facts.kernel_release,
            version=facts.kernel_version,
            first_wall=wall,
            first_uptime=facts.uptime_s,
            last_wall=wall,
            last_uptime=facts.uptime_s,
            stamped=bool(look.stamp.devices),
            stamped_uptime=look.stamp.uptime_s,
            closes=look.closes,
            closed=look.closed,
            clues=look.clues(),
        )
        return [*ledger, new][-MAX_BOOTS:]
    seen = replace(
        known,
        closes=known.closes or look.closes,
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
