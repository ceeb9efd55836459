# SPDX-License-Identifier: Apache-2.0
"""File names in pstorefs: which type, backend and id a record has, and what the id of a backend tells.

Source: fs/pstore/inode.c, pstore_mkfile(); the ids: drivers/firmware/efi/efi-pstore.c, efi_pstore_write() and
drivers/firmware/efi/cper.c, cper_next_record_id().
"""

from __future__ import annotations

from pstored.lean import NamedTuple

_DIGITS = frozenset("0123456789")
_SMALL = frozenset("abcdefghijklmnopqrstuvwxyz")
_LETTERS = _SMALL | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_MAX_ID = len(str(2**64 - 1))

MAX_NAME = 255
"""NAME_MAX; the kernel's own buffer is 64 bytes, so no true name is longer."""

TYPES = frozenset(
    ("dmesg", "mce", "console", "ftrace", "rtas", "powerpc-ofw", "powerpc-common", "pmsg", "powerpc-opal")
)
"""Record types the kernel has words for: pstore_type_names[] in fs/pstore/platform.c."""

KMSG = "kmsg"
"""No backend of the kernel's: the log of the running kernel, which pstored archives as a record after an oops."""
KDUMP = "kdump"
"""Likewise: the log of a kernel that crashed, out of its memory, or as a file beside that."""

BERT = "bert"
"""No backend of the kernel's: ACPI's boot error record, what firmware tells of the boot before."""

BESIDE = {
    KMSG: "the running kernel's log",
    KDUMP: "the log in the memory dump",
    "mtdoops": "the log in mtdoops",
    "serial": "the serial console",
    "netconsole": "what netconsole sent",
}
"""Backends that are none of pstore's, which pstored names itself, and what a log of theirs is called.

Their ``dmesg`` records have no header, and never had one.  Their ``console`` is that of any boot, and may end anywhere.
"""

HEADERLESS = frozenset((*BESIDE, "nvram"))
"""Backends whose dumps may have no header: powerpc's nvram driver writes none where there is no pstore."""


class RecordName(NamedTuple):
    """What a file name in pstorefs says."""

    type: str
    """``dmesg``, ``console``, ...; a word the kernel does not have is passed through."""
    backend: str
    """``ramoops``, ``efi`` (up to 6.1), ``efi_pstore``, ``erst``, ``pstore_blk``, ``nvram``, or another."""
    id: int | None
    """None on kernels up to 3.18, which wrote none for console and ftrace."""
    compressed: bool
    """``.enc.z``: the kernel that shows the record could not decompress it."""


def split_record_name(name: str) -> RecordName | None:
    """Split a file name such as ``dmesg-efi_pstore-179540752201001``; None if it is no record's name."""
    #   name = type "-" backend ["-" id] [".enc.z"]
    # Types may hold hyphens (powerpc-ofw), backends never do: so the split is from the right.  The id is optional
    # because kernels up to 3.18 wrote console-ramoops.  Vendors add types of their own, so any word is one.
    if len(name) > MAX_NAME:
        return None
    rest = name.removesuffix(".enc.z")
    head, _, last = rest.rpartition("-")
    number = last if _is_of(last, _DIGITS) and len(last) <= _MAX_ID else None
    kind, _, backend = head.rpartition("-") if number is not None else (head, "-", last)
    if not _is_of(backend, _LETTERS | _DIGITS) or backend[0] in _DIGITS or not _is_type(kind):
        return None
    return RecordName(kind, backend, None if number is None else int(number), compressed=rest != name)


def _is_of(word: str, letters: frozenset[str]) -> bool:
    return word != "" and letters.issuperset(word)


def _is_type(word: str) -> bool:
    """Words of small letters and digits between hyphens and underscores; the first begins with a letter."""
    return word[:1] in _SMALL and all(_is_of(part, _SMALL | _DIGITS) for part in word.replace("_", "-").split("-"))


class EfiId(NamedTuple):
    """What the id of an EFI record holds, since Linux 3.12."""

    time_s: int
    """Unix seconds by the clock of the boot that crashed; the parts of one dump may differ."""
    part: int
    dump_count: int


def split_efi_id(record_id: int) -> EfiId | None:
    """Undo ``(seconds * 100 + part) * 1000 + count``; None for the bare part numbers of kernels up to 3.11.

    Part numbers of 100 and more run over into the seconds: the header inside the record has the last word.
    """
    if record_id < 100_000:
        return None
    return EfiId(time_s=record_id // 100_000, part=record_id // 1000 % 100, dump_count=record_id % 1000)


def erst_boot_key(record_id: int) -> int | None:
    """What all ERST records of one boot have in common: the time of its first record; None if the id has no such form.

    High half: Unix seconds of the first record of the boot, low half: a running number.  From 2038 on, bit 63 is set
    and the time stands 24 bits up.
    """
    if record_id >> 63:
        return (record_id & ~(1 << 63)) >> 24
    return record_id >> 32 or None
