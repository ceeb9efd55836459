# SPDX-License-Identifier: Apache-2.0
"""A dump of all memory: a board's RAM, as its debugger or its boot loader saved it, a virtual machine's.

In it are looked for regions of ramoops, and the logs of kernels that have run there.
"""

from collections.abc import Iterator

from pstored.readers.kdump.raw import has_kernel, read_kernels
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source
from pstored.readers.ramoops import read as read_ramoops
from pstored.readers.ramoops_layout import find_headers, is_region


def _recognize(source: Source) -> bool:
    """Whether there is one anywhere in it.  All of it may have to be read, so that this reader is asked last."""
    before: dict[str, int] = {}
    for at, order in find_headers(source):
        if order in before or is_region(source, [at], order):
            return True
        before[order] = at
    return has_kernel(source)


def _read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:
    yield from read_ramoops(source, options)
    yield from read_kernels(source, options)


READER = Reader(recognize=_recognize, read=_read)
