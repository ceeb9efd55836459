# SPDX-License-Identifier: Apache-2.0
"""What differs between kernels, and between backends, in what they leave behind."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Era:
    """Kernels that write and show records alike; the crashed and the collecting kernel are of one era."""

    release: str
    """A release of that time, as ``uname -r`` gives it."""
    version: tuple[int, int]
    algorithm: str
    """What the crashed kernel compressed dmesg with, a key of compress.ALGORITHMS; ``none`` before v3.12."""
    zone_ids: bool = True
    """console and ftrace have an id in their file name (not up to v3.18)."""
    raw_header: bool = False
    """dmesg records of ramoops still begin with the ``====sec.usec`` line (~v3.10)."""
    pmsg: bool = True
    """There is a pmsg front end (v4.0)."""
    ftrace_ts: bool = True
    """ftrace records have a counter (~v4.10)."""
    shutdown: bytes = b"Shutdown"
    """Reason word of an orderly reboot: ``Restart`` up to v5.7."""
    ecc_word: bytes = b"ECC: "
    """Begins the ECC notice since ~v6.0."""
    efi: str = "efi"
    """Name of the EFI backend: ``efi_pstore`` since v6.2."""
    keeps_newest: bool = True
    """A chunk that would not compress is cut at its old end; since v6.6 at its new end."""

    @property
    def part_is_efi_id(self) -> bool:
        """An EFI record's id is its part number only (up to v3.11)."""
        return self.version <= (3, 11)


ERAS = {
    "3.10": Era(
        release="3.10.108",
        version=(3, 10),
        algorithm="none",
        zone_ids=False,
        raw_header=True,
        pmsg=False,
        ftrace_ts=False,
        shutdown=b"Restart",
        ecc_word=b"",
    ),
    "3.18": Era(
        release="3.18.140",
        version=(3, 18),
        algorithm="zlib",
        zone_ids=False,
        pmsg=False,
        ftrace_ts=False,
        shutdown=b"Restart",
        ecc_word=b"",
    ),
    "4.9": Era(
        release="4.9.337",
        version=(4, 9),
        algorithm="zlib",
        ftrace_ts=False,
        shutdown=b"Restart",
        ecc_word=b"",
    ),
    "4.19": Era(release="4.19.325", version=(4, 19), algorithm="deflate", shutdown=b"Restart", ecc_word=b""),
    "5.10": Era(release="5.10.262", version=(5, 10), algorithm="deflate", ecc_word=b""),
    "6.1": Era(release="6.1.192", version=(6, 1), algorithm="deflate"),
    "6.12": Era(release="6.12.117", version=(6, 12), algorithm="deflate32k", efi="efi_pstore", keeps_newest=False),
}
"""Keys for ``--kernel-era``, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Where records are kept."""

    bufsize: int
    """Bytes the backend gives to one stored part."""
    parts: int | None = None
    """Parts of a dump it keeps; None: all (up to kmsg_bytes)."""
    zones: bool = False
    """It has console, pmsg and ftrace zones."""
    since: tuple[int, int] = (3, 10)
    until: tuple[int, int] = (99, 0)


ZONE = 0x8000
"""Size of one zone of ramoops, header and parity included, and half of one of pstore_blk."""

ECC_PARITY = 16
"""What ``ramoops.ecc=1`` means: parity bytes for each block of 128."""

RAMOOPS_SLOTS = 8

_ZONE_HEADER = 12
_DUMP_TIME = 36  # ramoops writes "====sec.usec-C\n" in front; the kernel allots this much
_BLK_HEADER = 40  # struct psz_kmsg_header on LP64
_CPER = 200  # record header and section descriptor


def zone_data_size(zone: int, parity: int = 0) -> int:
    """Bytes of a ramoops zone that hold data (fs/pstore/ram_core.c, persistent_ram_init_ecc())."""
    room = zone - _ZONE_HEADER
    if not parity:
        return room
    blocks = -(-(room - parity) // (128 + parity))
    return room - (blocks + 1) * parity


BACKENDS = {
    "ramoops": Backend(bufsize=zone_data_size(ZONE) - _DUMP_TIME, parts=1, zones=True),
    "efi": Backend(bufsize=1024, until=(6, 1)),
    "efi_pstore": Backend(bufsize=1024, since=(6, 2)),
    "erst": Backend(bufsize=8192 - _CPER),
    "pstore_blk": Backend(bufsize=2 * ZONE - _ZONE_HEADER - _BLK_HEADER, parts=1, zones=True, since=(5, 8)),
}
"""Keys for ``--backend``: the names in the file names."""


def bufsize(backend: str, *, ecc: bool) -> int:
    """Bytes for one stored part; less where a ramoops zone also holds parity."""
    if ecc and backend == "ramoops":
        return zone_data_size(ZONE, ECC_PARITY) - _DUMP_TIME
    return BACKENDS[backend].bufsize


def default_era(backend: str) -> str:
    """The newest era in which the backend has that name."""
    return [name for name, era in ERAS.items() if BACKENDS[backend].until >= era.version][-1]


def capacity(era: Era, algorithm: str, bufsize: int) -> int:
    """Bytes of text the kernel tries to fit into one part of *bufsize* (fs/pstore/platform.c).

    Since v6.6: as if everything shrank to 60 %.  Before that deflate guessed by size, and the others took the
    worst case, so that their parts hold hardly more than *bufsize*.
    """
    if algorithm == "none":
        return bufsize
    if era.version >= (6, 6):
        return bufsize * 100 // 60
    if algorithm in ("zlib", "deflate", "deflate32k"):
        return bufsize * 100 // _guess(bufsize)
    return bufsize  # their bound is for input of any kind: log text always fits


def _guess(size: int) -> int:
    for top, percent in ((999, 60), (2000, 56), (3000, 54), (3999, 52), (10000, 45)):
        if size <= top:
            return percent
    return 60
