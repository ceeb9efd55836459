# SPDX-License-Identifier: Apache-2.0
"""Tables of function names: words by the kernel file they are in, ``*`` for any characters of a name."""

import re
from collections.abc import Callable

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
    beginnings = frozenset(word[:-1] for word in words if word.find("*") == len(word) - 1)
    lengths = sorted({len(word) for word in beginnings})
    others = sorted(word for word in words if -1 < word.find("*") < len(word) - 1)
    pattern = re.compile("|".join(re.escape(word).replace(r"\*", r"\w*") for word in others) or "(?!)")

    def matches(name: str) -> bool:
        if name in whole or any(name[:length] in beginnings for length in lengths):
            return True
        return pattern.fullmatch(name) is not None

    return matches
