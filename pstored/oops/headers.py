# SPDX-License-Identifier: Apache-2.0
"""What begins a report: the kernel's first lines, and what kind of report follows.

A header is told by its line's beginning, in the words of the printk() that writes it, so that a program which quotes
the kernel raises nothing.  Every rule names an anchor, a string that its line must hold: the anchors of all rules are
looked for in the whole text at once, and only the lines that hold one are looked at (see :func:`candidates`).
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from pstored.oops.checks import CHECKS
from pstored.oops.faults import FAULTS
from pstored.oops.rule import Role, Rule


class Header(NamedTuple):
    """A first line that was found."""

    kind: str
    role: Role
    groups: dict[str, bytes]
    """``function``, ``address``, ``comm``, ``pid``, ``cpu``, ``words``, where the line names them."""


RULES = CHECKS + FAULTS
_ANCHORS = tuple(dict.fromkeys(rule.anchor for rule in RULES))
_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_LONG = 10
"""From so many bytes on, find() passes some 4 GB/s: it looks at every n-th byte only."""
_FOUND = tuple(a for a in _ANCHORS if len(a) >= _LONG or not a[:1].isupper())


@cache
def _scanner() -> re.Pattern[bytes]:
    """One pass over a text for the short anchors, which begin with a capital; by first letter, for speed."""
    letters: dict[bytes, list[bytes]] = {}
    for anchor in _ANCHORS:
        if anchor not in _FOUND:
            letters.setdefault(anchor[:1], []).append(re.escape(anchor[1:]))
    return re.compile(b"|".join(first + b"(?:" + b"|".join(rest) + b")" for first, rest in letters.items()))


@cache
def _rules(anchor: bytes) -> tuple[tuple[int, Rule, re.Pattern[bytes]], ...]:
    return tuple((n, rule, re.compile(rule.pattern)) for n, rule in enumerate(RULES) if rule.anchor == anchor)


def candidates(text: bytes) -> list[tuple[int, bytes]]:
    """Where the anchors of all rules stand in a text, in order: offset and anchor; mostly nowhere."""
    found = [
        (at, m[0]) for m in _scanner().finditer(text) if not (at := m.start()) or text[at - 1] not in _WORD
    ]  # no DEBUG
    for anchor in _FOUND:
        at = text.find(anchor)
        while at >= 0:
            found.append((at, anchor))
            at = text.find(anchor, at + 1)
    found.sort()
    return found


def match_header(text: bytes, anchors: Iterable[bytes]) -> Header | None:
    """What a line is the first of, given the anchors that it holds; None if of nothing.  The first rule counts."""
    best: tuple[int, Rule, re.Match[bytes]] | None = None
    for anchor in set(anchors):
        for number, rule, pattern in _rules(anchor):
            if best is not None and best[0] < number:
                break
            if (found := pattern.match(text)) is not None:
                best = number, rule, found
                break
    if best is None:
        return None
    _, rule, found = best
    return Header(rule.kind, rule.role, {name: value for name, value in found.groupdict().items() if value is not None})
