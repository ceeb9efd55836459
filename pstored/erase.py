# SPDX-License-Identifier: Apache-2.0
"""The erase: what may go out of the store, and whether it really went.

A record is erased only when its bytes are in the archive, read back; when erasing it cannot hurt (:func:`verdict`);
and when a second reading still equals the receipt.
"""

from __future__ import annotations

import errno
import os

from pstored.archive import Receipt
from pstored.config import ErasePolicy
from pstored.efivars import CrashVariables
from pstored.host import Host
from pstored.lean import NamedTuple, StrEnum
from pstored.parse.filename import RecordName, split_record_name
from pstored.store import RecordReadError, Store, record_key


class Outcome(StrEnum):
    """What became of a record in the store."""

    ERASED = "erased"
    LIVE = "live"
    """Left: the zone is the running boot's, too."""
    KEPT = "kept"
    """Left: by policy, or because the backend cannot erase."""
    DEFERRED = "deferred"
    """Left for now: erasing might destroy a newer crash."""
    CHANGED = "changed"
    """Left: it is no longer what was archived."""
    FAILED = "failed"
    """Left: the kernel or the firmware did not erase it."""
    UNREADABLE = "unreadable"
    """Left: not all of it could be read."""
    VANISHED = "vanished"
    """Gone before we came to it: somebody else took it."""


QUIET = frozenset((Outcome.ERASED, Outcome.LIVE, Outcome.VANISHED))
"""Outcomes that nobody needs to look at."""


class Erasure(NamedTuple):
    """One record of the store after the pass."""

    name: str
    outcome: Outcome
    why: str
    expected: bool = False
    """Left in the store as it should be; otherwise it is in the exit status."""

    def is_trouble(self) -> bool:
        """Whether somebody should look."""
        return self.outcome not in QUIET and not self.expected


_LIVE_TYPES = frozenset(("console", "pmsg", "ftrace"))
_BY_TIME = frozenset(("efi", "efi_pstore", "erst"))
_NO_ERASE = frozenset(("nvram",))


def verdict(name: RecordName | None, policy: ErasePolicy, *, oopsed: bool | None) -> tuple[Outcome, str, bool]:
    """Whether an archived record may be erased: ERASED if so, else why not, and whether that is as it should be.

    Args:
        name: the record's; None if it is no record's name.
        policy: the configured one.
        oopsed: whether the running boot has seen an oops; None if unknown, which counts as yes.
    """
    if policy is ErasePolicy.NONE:
        return Outcome.KEPT, 'erase = "none" is configured', True
    if policy is ErasePolicy.ALL:
        return Outcome.ERASED, 'erase = "all" is configured', True
    if name is None:
        return Outcome.KEPT, "not the name of a record: what erasing it does is unknown", False
    if name.backend in _NO_ERASE:
        return Outcome.KEPT, f"the {name.backend} backend cannot erase; known by its digest from now on", True
    if name.type in _LIVE_TYPES:
        return Outcome.LIVE, "the zone is in use: erasing would drop what the running boot has logged", True
    if name.backend in _BY_TIME:
        if oopsed:
            # ids are made of the crash's time: where the clock stands still between boots, the oops of this one may lie
            # under the id of an older record, unseen (tried with ERST and an RTC that always says 1970)
            return Outcome.DEFERRED, "an oops happened in this boot, and may have taken this record's id", False
        return Outcome.ERASED, "the id names this record and no other", True
    if name.backend == "pstore_blk" and name.type == "dmesg":
        # fs/pstore/zone.c, psz_kmsg_erase(): compares the record's counter with the slot's before it erases
        return Outcome.ERASED, "the kernel erases the slot only if it still holds this record", True
    if name.type != "dmesg":
        return Outcome.LIVE, f"a record of type {name.type!r} in {name.backend} may be a live zone", True
    # ramoops, and backends nobody has told us about: the id is a slot, and the next oops takes slot 0, unseen
    if oopsed is False:
        return Outcome.ERASED, "no oops in this boot, so the slot holds what was listed", True
    seen = (
        "an oops happened in this boot" if oopsed else "the kernel does not say whether an oops happened in this boot"
    )
    return (
        Outcome.DEFERRED,
        f"{seen}: the slot may hold a newer crash than the one shown, until pstore is mounted anew",
        False,
    )


LOW_SPACE = 64 * 1024
"""Two or three crashes' worth.  Firmware that collects its garbage only when nearly full (OVMF) never gives space back
before: while there is this much, that harms nobody, and is only noted in erased.json."""


class Eraser:
    """Erases records of one store, in one pass."""

    def __init__(self, host: Host, store: Store, policy: ErasePolicy, *, volatile: str | None) -> None:
        self.host = host
        self.store = store
        self.policy = policy
        self.volatile = volatile
        """Why the archive would not survive a reboot; None if it would."""
        self.variables = CrashVariables(host)
        self._from_efi = 0

    def erase(self, receipt: Receipt) -> Erasure:
        """Erase one archived record if that may be; says what became of it."""
        name = receipt.name
        record = split_record_name(name)
        if receipt.error is not None:
            return Erasure(name, Outcome.UNREADABLE, receipt.error)
        outcome, why, expected = self._verdict(record)
        if outcome is not Outcome.ERASED:
            return Erasure(name, outcome, why, expected)
        if self.volatile is not None:
            return Erasure(name, Outcome.KEPT, f"the archive does not survive a reboot: {self.volatile}")
        try:
            digest = self.store.digest(name)
            if digest.error is not None:
                return Erasure(name, Outcome.UNREADABLE, f"a second reading differs: {digest.error}")
            if record_key(name, digest) != receipt.key:
                return Erasure(name, Outcome.CHANGED, "it is no longer what was archived; the next pass takes it anew")
            # asked once more: an oops during the reading leaves its dump in the slot that is about to be erased
            outcome, why, expected = self._verdict(record)
            if outcome is not Outcome.ERASED:
                return Erasure(name, outcome, why, expected)
            self.store.erase(name)
        except RecordReadError as e:
            return Erasure(name, Outcome.VANISHED if e.vanished else Outcome.UNREADABLE, str(e))
        except FileNotFoundError:
            return Erasure(name, Outcome.VANISHED, "somebody else erased it first")
        except OSError as e:
            if e.errno == errno.EPERM and record is not None:
                why = f"the kernel refuses: the {record.backend} backend cannot erase, or the process may not"
            else:
                why = f"the kernel refuses: {os.strerror(e.errno or 0)}"
            return Erasure(name, Outcome.FAILED, why)
        if record is not None and record.backend.startswith("efi") and self.variables.still_there(record.id):
            return Erasure(
                name, Outcome.FAILED, "the firmware still has the variable; it will be back at the next boot"
            )
        self._from_efi += record is not None and record.backend.startswith("efi")
        return Erasure(name, Outcome.ERASED, why, expected)

    def _verdict(self, record: RecordName | None) -> tuple[Outcome, str, bool]:
        return verdict(record, self.policy, oopsed=self.host.oops_happened())

    def space(self) -> tuple[dict[str, int] | None, str | None]:
        """On EFI: how much room the erase gave back, and a warning if none."""
        before, after = self.variables.free_before, self.variables.free_now() if self._from_efi else None
        if before is None or after is None:
            return None, None
        warning = None
        if after <= before and after < LOW_SPACE:
            warning = (
                f"the firmware has not given back the space of {self._from_efi} erased variables ({after} bytes free); "
                "most do at the next boot, some never: then the next crash cannot be recorded"
            )
        return {"efi_free_before": before, "efi_free_after": after}, warning
