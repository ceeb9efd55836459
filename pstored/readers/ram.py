# SPDX-License-Identifier: Apache-2.0
"""A dump of all memory: a board's RAM, as its debugger or its boot loader saved it, with a region of ramoops in it."""

from pstored.readers.model import Reader, Source
from pstored.readers.ramoops import read
from pstored.readers.ramoops_layout import find_headers, is_region


def _recognize(source: Source) -> bool:
    """Whether there is one anywhere in it.  All of it may have to be read, so that this reader is asked last."""
    before: dict[str, int] = {}
    for at, order in find_headers(source):
        if order in before or is_region(source, [at], order):
            return True
        before[order] = at
    return False


READER = Reader(recognize=_recognize, read=read)
