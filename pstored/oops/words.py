# SPDX-License-Identifier: Apache-2.0
"""Tables of function names: words by the kernel file they are in, ``*`` for any characters of a name."""

import re
from collections.abc import Iterable

Names = tuple[tuple[str, str], ...]
"""File of the kernel, and the names in it, separated by blanks."""


def compile_names(*tables: Names, strip: bool = False) -> re.Pattern[str]:
    """One expression that matches exactly the names of some tables.

    Args:
        tables: the names.
        strip: leave leading underscores out, as the names to be matched do.
    """
    return re.compile("(?:" + "|".join(_alternatives(tables, strip=strip)) + ")$")


def _alternatives(tables: Iterable[Names], *, strip: bool) -> list[str]:
    words = {word.lstrip("_") if strip else word for names in tables for _, line in names for word in line.split()}
    return [re.escape(word).replace(r"\*", r"\w*") for word in sorted(words)]
