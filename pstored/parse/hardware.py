# SPDX-License-Identifier: Apache-2.0
"""An error record of firmware in words: a CPER record, or the boot error record's status blocks."""

from typing import NamedTuple

from pstored.parse.cper import SEVERITIES, SIGNATURE, Section, parse_cper
from pstored.parse.cpersections import tell
from pstored.parse.estatus import parse_estatus, worst

FATAL = 1


class HardwareError(NamedTuple):
    """What a record tells."""

    severity: int
    """As :data:`pstored.parse.cper.SEVERITIES` has it."""
    summary: str
    """One sentence: ``fatal hardware error: memory: multi-bit ECC error at 0x7d000000``."""
    text: bytes
    """Every section, every field."""
    damage: tuple[str, ...]

    @property
    def is_fatal(self) -> bool:
        """Whether the machine can have died of it."""
        return self.severity == FATAL


def parse_hardware(data: bytes) -> HardwareError:
    """Read a record of either form.

    Raises:
        DamagedError: it is neither.
    """
    if data.startswith(SIGNATURE):
        cper = parse_cper(data)
        return _told(worst([cper.severity, *(s.severity for s in cper.sections)]), cper.sections, cper.damage)
    status = parse_estatus(data)
    return _told(status.severity, status.sections, status.damage)


def _told(severity: int, sections: tuple[Section, ...], damage: tuple[str, ...]) -> HardwareError:
    told = [(section, tell(section)) for section in sections]
    first = next((t for s, t in told if s.severity == severity), told[0][1] if told else None)
    summary = f"{_word(severity)} hardware error" + ("" if first is None else f": {first.title}")
    if len(told) > 1:
        summary += f", and {len(told) - 1} more"
    lines = [summary]
    for section, words in told:
        lines += ["", f"{_word(section.severity)}: {words.title}"]
        lines += [f"{name:<18}{value}" for name, value in words.rows]
    return HardwareError(severity, summary, "\n".join([*lines, ""]).encode(errors="backslashreplace"), damage)


def _word(severity: int) -> str:
    return SEVERITIES[severity] if severity < len(SEVERITIES) else f"severity {severity}"
