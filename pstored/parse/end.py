# SPDX-License-Identifier: Apache-2.0
"""A record of our own making: how a boot ended that left none, as JSON; archived like those of the kernel.

It keeps what will be gone later: the journal's last lines of that boot, and what the hardware said of the reset.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from pstored.errors import DamagedError

SCHEMA = 1


class BootEnd(NamedTuple):
    """How a boot ended."""

    boot_id: str
    kernel: str | None
    """As ``uname -r``."""
    kind: str
    """``reset`` (power loss or hard reset) or ``watchdog``."""
    title: str
    evidence: tuple[str, ...]
    wall: float | None
    """Last sign of life, Unix seconds by that boot's clock."""
    uptime_s: float | None
    """The same, since it began."""
    last_words: tuple[str, ...]
    """The last lines that it logged, oldest first."""

    def render(self) -> str:
        """What a person reads beside the title."""
        lines = list(self.evidence)
        if self.last_words:
            lines += ["", "the last that was logged:", *(f"  {line}" for line in self.last_words)]
        return "\n".join(lines) + "\n"


def format_end(end: BootEnd) -> bytes:
    """The record's bytes."""
    return (json.dumps({"schema": SCHEMA} | end._asdict(), indent=1) + "\n").encode()


def parse_end(data: bytes) -> BootEnd:
    """Read a record.

    Raises:
        DamagedError: it is not what :func:`format_end` gives.
    """
    try:
        fields = json.loads(data)
        return BootEnd(
            boot_id=_text(fields["boot_id"]),
            kernel=None if fields["kernel"] is None else _text(fields["kernel"]),
            kind=_text(fields["kind"]),
            title=_text(fields["title"]),
            evidence=_texts(fields["evidence"]),
            wall=_number(fields["wall"]),
            uptime_s=_number(fields["uptime_s"]),
            last_words=_texts(fields["last_words"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise DamagedError(f"is no record of a boot's end: {e!r}") from e


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text, not {type(value).__name__}")
    return value


def _texts(values: Sequence[object]) -> tuple[str, ...]:
    return tuple(_text(value) for value in values)


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        raise TypeError("a number")
    return float(value)
