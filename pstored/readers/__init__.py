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

    module: str | None
    """Below this package; its ``READER`` reads the format.  None: a directory, known by its files' names."""
    about: str
    """What it is, in a few words."""


KINDS: dict[str, Kind] = {
    "systemd-pstore": Kind(
        None, "records as files: a directory as systemd-pstore leaves it, or a copy of /sys/fs/pstore"
    ),
    "tar": Kind("tar", "a tar of records: of /sys/fs/pstore, or of what systemd-pstore took"),
    "vmcore": Kind("kdump.vmcore", "a vmcore: the memory that kdump saved, by makedumpfile or not"),
    "ramoops": Kind("ramoops", "a region of ramoops, alone or at --offset"),
    "pstore_blk": Kind("blk", "a block device or flash partition of pstore_blk"),
    "erst": Kind("erst", "the file that QEMU's acpi-erst keeps its records in"),
    "bert": Kind("bert", "ACPI's boot error record: /sys/firmware/acpi/tables/data/BERT"),
    "efi": Kind("efivar", "crash variables of EFI, as efivarfs shows them: dump-type0-*"),
    "cper": Kind("cper", "CPER records, as they are read from /dev/erst_dbg"),
    "mtdoops": Kind("mtdoops", "a flash partition with dumps of mtdoops"),
    "nvram": Kind("nvram", "the NVRAM of a PowerPC machine"),
    "vmcore-dmesg": Kind("kdump.dmesgtext", "the log that kdump put beside a vmcore: vmcore-dmesg.txt, dmesg.STAMP"),
    "bugreport": Kind("bugreport", "an Android bug report, zipped or not"),
    "last-kmsg": Kind("lastkmsg", "/proc/last_kmsg"),
    "netconsole": Kind("netcapture", "what netconsole sent: a pcap or pcapng file, JSON lines, extended text"),
    "serial": Kind("serial", "a text log of a console: a serial line's, kern.log"),
    "ram": Kind("ram", "a dump of all memory, in which regions of ramoops and logs of kernels are looked for"),
}
"""By the word for ``--as``, in the order in which a file is tried: what is known by a magic number comes first, what
may be any text behind, and last what has to be searched."""


def load(kind: str) -> "Reader":
    """Import the reader of a kind of file."""
    reader: Reader = import_module(f"{__name__}.{KINDS[kind].module}").READER
    return reader
