# SPDX-License-Identifier: Apache-2.0
"""Signatures: short words that are equal for the same bug on any board, and that others can work out, too.

::

    loose  = hex(SHA-256(kind LF function LF))[:16]
    strict = hex(SHA-256(kind LF frame LF frame LF ...))[:16]

``kind`` and ``function`` are the event's; where there is no function, the title stands for it, each run of hexadecimal
digits with at least one decimal digit in it replaced by ``#``.  ``frame`` is the name of each of the first five
functions of the call trace from the function that is blamed outwards, helpers and unreliable frames left out, as
:func:`pstored.oops.blame.readable` gives it: no offset, address, module, compiler suffix or hash; system calls without
what an architecture puts before their names.
"""

import hashlib
import re
from collections.abc import Iterable

FRAMES = 5
"""So many frames tell two bugs in one function apart, and are mostly the same from one kernel build to the next."""
LENGTH = 16
_HEX = re.compile(r"(?:0x)?[0-9a-f]+")


def loose(kind: str, function: str | None, title: str) -> str:
    """The signature by kind and function."""
    return _digest([kind, _HEX.sub(_number, title) if function is None else function])


def _number(found: re.Match[str]) -> str:
    return "#" if any(digit.isdecimal() for digit in found[0]) else found[0]


def strict(kind: str, frames: Iterable[str], function: str | None, title: str) -> str:
    """The signature by kind and the first meaningful frames; without any, by what the loose one is made of."""
    names = list(frames)[:FRAMES]
    return _digest([kind, *names]) if names else loose(kind, function, title)


def _digest(words: list[str]) -> str:
    text = "\n".join((*words, ""))
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:LENGTH]
