# SPDX-License-Identifier: Apache-2.0
"""How a boot ended: from all that witnesses say, one kind, and the evidence in words.  Pure.

A crash record is proof.  An orderly end is what a witness saw of it: the console's last lines, the journal's, the
ledger's.  Where one of them was there and saw none, and no record tells of a crash, the machine was reset, or lost its
power; what the hardware says in the next boot tells which.
"""

from enum import StrEnum
from typing import NamedTuple

from pstored.ledger import Witness
from pstored.resetreason import Clue


class EndKind(StrEnum):
    """How a boot ended."""

    CLEAN = "clean"
    """Shut down, rebooted or halted in order."""
    PANIC = "panic"
    OOPS = "oops"
    """An oops, and no orderly end after it."""
    WATCHDOG = "watchdog"
    RESET = "reset"
    """Power loss, or a hard reset by somebody or something."""
    UNKNOWN = "unknown"
    RUNNING = "running"
    """It is the running boot."""


class CrashOf(NamedTuple):
    """A crash in the archive."""

    id: str
    kind: str
    severity: str
    title: str


class Evidence(NamedTuple):
    """All that is known of one boot's end."""

    crashes: tuple[CrashOf, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    """Of console, journal, ledger: those that there are."""
    clues: tuple[Clue, ...] = ()
    """What the boot after it was told by its hardware."""


class End(NamedTuple):
    """How a boot ended."""

    kind: EndKind
    evidence: tuple[str, ...]
    unexplained: bool = False
    """Whether a witness was there, saw no orderly end, and no record tells of a crash."""


def judge(evidence: Evidence) -> End:
    """How a boot ended, by its evidence."""
    told = tuple(f"{c.title} (crash {c.id})" for c in evidence.crashes if c.severity != "reset")
    seen = tuple(t.says for t in sorted(evidence.witnesses, key=lambda t: not t.orderly))
    hints = tuple(f"{clue.source} says: {clue.says}" for clue in evidence.clues)
    severities = {c.severity for c in evidence.crashes}
    if "panic" in severities:
        return End(EndKind.PANIC, (*told, *seen, *hints))
    if any(t.orderly for t in evidence.witnesses):
        return End(EndKind.CLEAN, (*seen, *told))  # some boards reboot by their watchdog: no clue outweighs this
    if "oops" in severities:
        return End(EndKind.OOPS, (*told, *seen, *hints))
    unexplained = bool(evidence.witnesses) and not severities - {"warning"}
    return End(_kind(evidence), (*told, *seen, *hints) or ("nothing was there to see it",), unexplained)


def _kind(evidence: Evidence) -> EndKind:
    settled = next((c.kind for c in evidence.crashes if c.severity == "reset" and c.kind in list(EndKind)), None)
    if settled is not None:
        return EndKind(settled)
    if any(clue.means == "watchdog" for clue in evidence.clues):
        return EndKind.WATCHDOG
    if evidence.witnesses or any(clue.means in ("power", "hardware") for clue in evidence.clues):
        return EndKind.RESET
    return EndKind.UNKNOWN


def title(end: End, clues: tuple[Clue, ...]) -> str:
    """An unexplained end in one line."""
    if end.kind is EndKind.WATCHDOG:
        return "watchdog reset: no crash record, no orderly end"
    clue = next((c for c in clues if c.means in ("power", "hardware")), None)
    if clue is not None:
        return f"reset, no crash record, no orderly end; the hardware says: {clue.says}"
    return "unexplained reset or power loss: no crash record, no orderly end"
