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
_NUMBERED = b"[#"
_CAPITAL = tuple(anchor for anchor in _ANCHORS if anchor[:1].isupper())
_SMALL = tuple(anchor for anchor in _ANCHORS if anchor not in (*_CAPITAL, _NUMBERED))
_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")


@cache
def _scanner() -> re.Pattern[bytes]:
    """One pass over a text for all anchors that begin with a capital; by first letter, for speed."""
    letters: dict[bytes, list[bytes]] = {}
    for anchor in _CAPITAL:
        letters.setdefault(anchor[:1], []).append(re.escape(anchor[1:]))
    return re.compile(b"|".join(first + b"(?:" + b"|".join(rest) + b")" for first, rest in letters.items()))


_NUMBER_SIGN = re.compile(rb"#(?<=\[#)")
"""``[#``, by its second byte: that is rare, and looking for one byte is fastest."""


def candidates(text: bytes) -> list[tuple[int, bytes]]:
    """Where the anchors of all rules stand in a text, in order: offset and anchor; mostly nowhere."""
    found = [
        (at, m[0]) for m in _scanner().finditer(text) if not (at := m.start()) or text[at - 1] not in _WORD
    ]  # no DEBUG
    found += [(m.start() - 1, _NUMBERED) for m in _NUMBER_SIGN.finditer(text)]
    for anchor in _SMALL:  # long ones: find() looks at every n-th byte only
        at = text.find(anchor)
        while at >= 0:
            found.append((at, anchor))
            at = text.find(anchor, at + 1)
    found.sort()
    return found


class _Choice(NamedTuple):
    """The rules of one anchor."""

    first: re.Pattern[bytes]
    """All of them, a group for each: the number of the group that is found is that of the first rule that fits."""
    rules: list[tuple[int, Rule, re.Pattern[bytes]]]
    """Number among all rules, rule, its own pattern."""


_NAMED_GROUP = re.compile(rb"\(\?P<\w+>")


@cache
def _choice(anchor: bytes) -> _Choice:
    rules = [(n, rule, re.compile(rule.pattern)) for n, rule in enumerate(RULES) if rule.anchor == anchor]
    nameless = (_NAMED_GROUP.sub(b"(?:", rule.pattern) for _, rule, _ in rules)
    return _Choice(re.compile(b"|".join(b"(%s)" % pattern for pattern in nameless)), rules)


def match_header(text: bytes, anchors: Iterable[bytes]) -> Header | None:
    """What a line is the first of, given the anchors that it holds; None if of nothing.  The first rule counts."""
    fitting = []
    for anchor in set(anchors):
        first, rules = _choice(anchor)
        if (found := first.match(text)) is not None and found.lastindex is not None:
            fitting.append(rules[found.lastindex - 1])
    if not fitting:
        return None
    _, rule, pattern = min(fitting)
    groups = {} if (found := pattern.match(text)) is None else found.groupdict()
    return Header(rule.kind, rule.role, {name: value for name, value in groups.items() if value is not None})
