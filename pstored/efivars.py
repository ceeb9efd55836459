# SPDX-License-Identifier: Apache-2.0
"""Crash variables in efivarfs: whether an erased one is really gone, and whether its space came back.

pstore ignores what the firmware answers to an erase (fs/pstore/inode.c, pstore_unlink()), so this is the only way to
know before the next boot.  Names: drivers/firmware/efi/efi-pstore.c; efivarfs shows ``<name>-<GUID>``.
"""

import os

from pstored.host import Host, free_bytes

CRASH_GUID = "cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0"
"""LINUX_EFI_CRASH_GUID."""


class CrashVariables:
    """The crash variables of this machine, as listed when this was made."""

    def __init__(self, host: Host) -> None:
        self.directory = host.path("/sys/firmware/efi/efivars")
        self.free_before = free_bytes(self.directory)
        self._by_id: dict[int, str] = {}
        try:
            names = os.listdir(self.directory)
        except OSError:
            names = []
        for name in names:
            # dump-type<type>-<part>-<count>-<seconds>[-C|-D]-<GUID>
            if name.startswith("dump-type") and name.endswith(CRASH_GUID):
                fields = name.removesuffix("-" + CRASH_GUID).split("-")
                if len(fields) >= 5 and all(f.isascii() and f.isdigit() for f in fields[2:5]):
                    part, count, seconds = (int(f) for f in fields[2:5])
                    self._by_id[(seconds * 100 + part) * 1000 + count] = name  # efi-pstore.c, generic_id()

    def still_there(self, record_id: int | None) -> bool | None:
        """Whether the variable of an erased record can still be read; None if it was never listed here.

        efivarfs keeps the *name* of a variable that was removed through pstore until it is mounted again, so only
        reading tells.
        """
        name = None if record_id is None else self._by_id.get(record_id)
        if name is None:
            return None
        try:
            with open(os.path.join(self.directory, name), "rb", buffering=0) as f:
                return bool(f.read(8))
        except OSError:
            return False

    def free_now(self) -> int | None:
        """Free bytes in the variable store; None if the kernel does not say."""
        return free_bytes(self.directory)
