# SPDX-License-Identifier: Apache-2.0
"""What goes to a terminal: text from a record made safe to show, and how to write it."""

from __future__ import annotations

from pstored.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


def visible(text: bytes | str) -> str:
    """Text with everything escaped that a terminal would act on; tabs become spaces."""
    if isinstance(text, bytes):
        text = text.decode(errors="backslashreplace")
    text = text.expandtabs()
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names of many, made safe to show, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(visible(name) for name in names[:most]) + more


class Style(NamedTuple):
    """How to write."""

    color: bool = False

    def bold(self, text: str) -> str:
        """Strong."""
        return f"\x1b[1m{text}\x1b[0m" if self.color else text

    def red(self, text: str) -> str:
        """Alarming."""
        return f"\x1b[1;31m{text}\x1b[0m" if self.color else text

    def green(self, text: str) -> str:
        """As it should be."""
        return f"\x1b[32m{text}\x1b[0m" if self.color else text

    def yellow(self, text: str) -> str:
        """Doubtful."""
        return f"\x1b[33m{text}\x1b[0m" if self.color else text

    def dim(self, text: str) -> str:
        """In passing."""
        return f"\x1b[2m{text}\x1b[0m" if self.color else text
