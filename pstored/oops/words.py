# SPDX-License-Identifier: Apache-2.0
"""Tables of function names: words by the kernel file they are in, ``*`` for any characters of a name."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable

Names = tuple[tuple[str, str], ...]
"""File of the kernel, and the names in it, separated by blanks."""


def compile_names(*tables: Names, strip: bool = False) -> Callable[[str], bool]:
    """A function that says whether a name is one of those in some tables.

    Most words are names or beginnings of names, and found by look-up: a trace has many names to be asked for.

    Args:
        tables: the names.
        strip: leave leading underscores out, as the names to be matched do.
    """
    words = {word.lstrip("_") if strip else word for names in tables for _, line in names for word in line.split()}
    whole = frozenset(word for word in words if "*" not in word)
    beginnings = _shortest(word[:-1] for word in words if word.find("*") == len(word) - 1)
    others = sorted(word for word in words if -1 < word.find("*") < len(word) - 1)
    pattern = re.compile("|".join(re.escape(word).replace(r"\*", r"\w*") for word in others) or "(?!)")

    def matches(name: str) -> bool:
        at = bisect_right(beginnings, name)
        return name in whole or (at > 0 and name.startswith(beginnings[at - 1])) or pattern.fullmatch(name) is not None

    return matches


def _shortest(beginnings: Iterable[str]) -> list[str]:
    """The beginnings, sorted, without those that begin with another: only the last one before a name can be its."""
    found: list[str] = []
    for beginning in sorted(beginnings):
        if not (found and beginning.startswith(found[-1])):
            found.append(beginning)
    return found
