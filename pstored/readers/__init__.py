# SPDX-License-Identifier: Apache-2.0
"""Readers of what kernels leave elsewhere than in pstorefs: memory, flash, serial lines, the net, dumps.

One module a format, and nothing else knows that format.  All are pure: a :class:`~pstored.readers.model.Source` in,
records out, named as pstorefs would name them, so that what comes after need not know where they are from.

Which there are stands here, in words, so that ``--help`` need not import them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pstored.readers.model import Reader


class Kind(NamedTuple):
    """One format."""

    module: str
    """Below this package; its ``READER`` reads the format."""
    about: str
    """What it is, in a few words."""


KINDS: dict[str, Kind] = {
    "mtdoops": Kind("mtdoops", "a flash partition with dumps of mtdoops"),
    "nvram": Kind("nvram", "the NVRAM of a PowerPC machine"),
}
"""By the word for ``--as``, in the order in which a source is tried: what is known by a magic number comes first."""


def load(kind: str) -> "Reader":
    """Import the reader of a kind."""
    reader: Reader = import_module(f"{__name__}.{KINDS[kind].module}").READER
    return reader
