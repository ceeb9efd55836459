# SPDX-License-Identifier: Apache-2.0
"""What the running kernel keeps outside pstore, in flash: mtdoops' partition, and the NVRAM of a PowerPC machine.

Both are only read, and neither kernel ever erases a dump there: each is archived once (see
:mod:`pstored.intake.neighbours`), and shown by the machine at every boot until it is overwritten.
"""

import os
import re
from collections.abc import Iterator
from contextlib import closing

from pstored.config import Config
from pstored.errors import StoreError
from pstored.host import Host
from pstored.intake.bundles import Import
from pstored.intake.neighbours import Neighbour
from pstored.intake.sources import Opened, open_source
from pstored.readers import load
from pstored.readers.model import Options, Remark, Salvaged

MTD = "/proc/mtd"
NVRAM = "/dev/nvram"
POWERPC = "/proc/powerpc"
"""A directory on 64-bit PowerPC alone: on a PC, /dev/nvram is the CMOS, and to open it loads a driver."""
_MTD_LINE = re.compile(r'mtd(\d{1,6}): [0-9a-f]+ [0-9a-f]+ "([^\n]*)"')


def import_mtdoops(host: Host, config: Config, *, only_list: bool = False) -> Import | None:
    """Take the dumps in the partition that mtdoops writes to; None if there is none, or nothing new in it.

    Source: drivers/mtd/mtdoops.c: its parameter mtddev is the partition's number, or its name.

    Args:
        host: whose it is.
        config: whether to, and where the archive is.
        only_list: write nothing.

    Raises:
        ArchiveError: the archive cannot be written, or does not read back.
    """
    if not config.elsewhere.flash or host.is_crash_kernel():
        return None
    parameters = host.pstore_parameters()
    number = _partition(host, parameters.get("mtdoops.mtddev", ""))
    if number is None:
        return None
    path = f"/dev/mtd{number}"
    neighbour = Neighbour(host, config, path, "mtdoops", only_list=only_list)
    return neighbour.take(_found(host, path, "mtdoops", Options(parameters)))


def _partition(host: Host, mtddev: str) -> int | None:
    """The number of the partition; None if mtdoops has none, or this kernel has no such partition."""
    partitions = {int(number): name for number, name in _MTD_LINE.findall(host.read(MTD) or "")}
    if re.fullmatch("[0-9]{1,6}", mtddev):
        return int(mtddev) if int(mtddev) in partitions else None
    return next((number for number, name in partitions.items() if mtddev and name == mtddev), None)


def import_nvram(host: Host, config: Config, *, only_list: bool = False) -> Import | None:
    """Take the oops in a PowerPC machine's NVRAM, where pstore does not show it; None if there is nothing new.

    Args:
        host: whose it is.
        config: whether to, and where the archive is.
        only_list: write nothing.

    Raises:
        ArchiveError: the archive cannot be written, or does not read back.
    """
    if not config.elsewhere.flash or host.is_crash_kernel() or host.facts().backend == "nvram":
        return None
    if not os.path.isdir(host.path(POWERPC)):
        return None
    neighbour = Neighbour(host, config, NVRAM, "nvram", only_list=only_list)
    return neighbour.take(_found(host, NVRAM, "nvram", Options()))


def _found(host: Host, path: str, kind: str, options: Options) -> Iterator[Salvaged | Remark]:
    """What is new to say: that a partition is empty is not."""
    if not os.path.exists(host.path(path)):
        yield Remark("not there: a service sees it only by a drop-in (pstored.conf)")
        return
    try:
        with closing(open_source(host.path(path), unpacked=False)) as opened:
            yield from _of(opened, kind, options)
    except StoreError as e:
        yield Remark(str(e), is_damage=True)


def _of(opened: Opened, kind: str, options: Options) -> Iterator[Salvaged | Remark]:
    for found in load(kind).read(opened, options):
        if isinstance(found, Salvaged) or found.is_damage:
            yield found
    if opened.problem is not None:
        yield Remark(opened.problem, is_damage=True)
