# SPDX-License-Identifier: Apache-2.0
"""The tables of ``pstored.conf`` for what goes out: ``[delivery]``, and one a sink, which turns it on by being there.

Imported by :mod:`pstored.config` where a file has one of them, and only then.  What is unset is None: then
``[delivery]``, or the sink's own default, counts.  No key holds a secret: those that name a file with one take a path,
or the name of a systemd credential (:mod:`pstored.credentials`).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


class Text(StrEnum):
    """How much of the crashed kernel's log goes out."""

    FULL = "full"
    """All of it, up to ``max_text_bytes``."""
    TRACE = "trace"
    """The kernel's reports in it, without registers and stack."""
    NONE = "none"


class Delivery(NamedTuple):
    """``[delivery]``: how crashes go out, and what of them."""

    enabled: bool = True
    """To any sink."""
    timeout_s: int = 30
    """How long a sink may take to connect, and to answer."""
    sink_timeout_s: int = 300
    """How long one sink may take in one run; one that takes longer is ended."""
    retry_s: int = 60
    """After a failure the next try comes so much later; then twice as much, and so on ..."""
    retry_max_s: int = 3600
    """... but no more than this."""
    per_minute: int = 60
    """A sink gets no more deliveries than this in a minute; 0 is no limit."""
    repeat_first: int = 3
    """So many crashes of one loose signature are delivered one by one, the others are counted; 0: all one by one."""
    repeat_window_s: int = 86400
    """In so long a time."""
    text: Text = Text.FULL
    max_text_bytes: int = 64 * 1024
    """Of a longer text the beginning and the end go out."""
    redact: bool = True
    """Leave out what identifies, or gives away (pstored.redact)."""
    redact_words: tuple[str, ...] = ()
    """Further words to leave out: shell patterns, fnmatch(3)."""


class File(NamedTuple):
    """``[file]``: one JSON object a line, appended to a file; or a file for each."""

    enabled: bool = True
    path: str = "/var/log/pstored/crashes.jsonl"
    """A directory that is there already: a file for each crash in it."""
    text: Text | None = None
    max_text_bytes: int | None = None


class Exec(NamedTuple):
    """``[exec]``: a program that gets each crash on standard input."""

    enabled: bool = True
    command: tuple[str, ...] = ()
    """The program, by its absolute path, and its arguments."""
    text: Text | None = None
    max_text_bytes: int | None = None


TABLES: dict[str, type[Any]] = {"delivery": Delivery, "file": File, "exec": Exec}
"""Name of a table to its type."""


def delivery(outgoing: Mapping[str, Any]) -> Delivery:
    """``[delivery]`` of what a configuration has."""
    found: Delivery = outgoing.get("delivery") or Delivery()
    return found


def enabled(outgoing: Mapping[str, Any]) -> list[str]:
    """The outgoing sinks that are to get each crash."""
    if not delivery(outgoing).enabled:
        return []
    return [name for name in TABLES if name != "delivery" and name in outgoing and outgoing[name].enabled]
