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

    pattern: re.Pattern[bytes]
    """All of them, the first that fits counts: a group for each, and behind it the groups that it names."""
    rules: dict[int, tuple[int, Rule, dict[str, int]]]
    """By the number of its group: number among all rules, rule, and the groups that it names."""


_NAMED_GROUP = re.compile(rb"\(\?P<\w+>")


@cache
def _choice(anchor: bytes) -> _Choice:
    patterns: list[bytes] = []
    rules: dict[int, tuple[int, Rule, dict[str, int]]] = {}
    group = 1
    for n, rule in enumerate(RULES):
        if rule.anchor == anchor:
            own = re.compile(rule.pattern)
            patterns.append(b"(%s)" % _NAMED_GROUP.sub(b"(", rule.pattern))
            rules[group] = n, rule, {name: group + at for name, at in own.groupindex.items()}
            group += 1 + own.groups
    return _Choice(re.compile(b"|".join(patterns)), rules)


def match_header(text: bytes, anchors: Iterable[bytes]) -> Header | None:
    """What a line is the first of, given the anchors that it holds; None if of nothing.  The first rule counts."""
    first = None
    for anchor in set(anchors):
        pattern, rules = _choice(anchor)
        found = pattern.match(text)
        if found is not None and found.lastindex is not None:  # the rule's own group is closed last
            number, rule, names = rules[found.lastindex]
            if first is None or number < first[0]:
                first = number, rule, names, found
    if first is None:
        return None
    _, rule, names, found = first
    return Header(rule.kind, rule.role, {name: found[at] for name, at in names.items() if found[at] is not None})
