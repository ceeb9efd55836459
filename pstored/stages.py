# SPDX-License-Identifier: Apache-2.0
"""The stages in their order: harvest, import, the running kernel's log, analysis, settling, delivery, pruning.

Each is a function of its own; here is what ``collect`` does, and what single commands share of it.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from pstored.analyze import Found, analyze
from pstored.archive import Archive
from pstored.boots.history import History
from pstored.boots.ledger import Look, look, note_boot, read_ledger
from pstored.boots.settle import settle
from pstored.config import Config
from pstored.deliver import Delivery, deliver
from pstored.erase import Outcome
from pstored.errors import ArchiveError, DiskError, PstoredError, StoreError
from pstored.harvest import NOTHING, Pass, harvest
from pstored.host import BOOT_ID_FILE, Host
from pstored.intake import kernellog
from pstored.intake.bundles import Import
from pstored.intake.elsewhere import import_last_kmsg, import_received
from pstored.intake.flash import import_mtdoops, import_nvram
from pstored.intake.kdump import collect_kdump
from pstored.intake.neighbours import import_bert, import_efi_variables, import_ramoops_memory
from pstored.intake.systemdpstore import import_systemd_pstore
from pstored.journal.bootjournal import BootJournal
from pstored.quota import prune
from pstored.stamp import UNSTAMPED, Stamp, stamp
from pstored.store import Store

T = TypeVar("T")
TAKES: tuple[Callable[[Host, Config], Import | None], ...] = (
    import_systemd_pstore,
    collect_kdump,
    import_received,
    import_last_kmsg,
    import_efi_variables,
    import_mtdoops,
    import_nvram,
    import_ramoops_memory,
    import_bert,  # the last: what it tells of may be a crash that another has brought
)
"""What is looked for beside the store, in this order."""


class Collected(NamedTuple):
    """What all stages did."""

    harvest: Pass
    imported: Import | None
    log: kernellog.Look | None
    """None if the running kernel's log was not to be looked into."""
    kdump: Import | None = None
    elsewhere: tuple[Import, ...] = ()
    """What else this machine has beside the store, where it has any of that."""
    found: Found | None = None
    """None if the analysis was not reached, and nothing behind it."""
    crashes: tuple[dict[str, Any], ...] = ()
    """crash.json of what is new."""
    delivery: Delivery = Delivery((), ())
    pruned: tuple[str, ...] = ()
    """Harvests removed, since the archive was over its limits."""
    trouble: PstoredError | None = None
    """What kept a stage from being done."""

    def imports(self) -> list[Import]:
        """All that was imported from beside the store."""
        return [one for one in (self.imported, self.kdump, *self.elsewhere) if one is not None]

    def _problems(self) -> bool:
        return any(one.problems for one in self.imports())

    def due(self) -> list[str]:
        """What is left to be done, in words."""
        left = Counter(str(e.outcome) for e in self.harvest.erasures if e.is_trouble())
        waiting = Counter(e.sink for e in self.delivery.pending if not e.refused)
        due = [f"{n} record{'s' * (n != 1)} in the store: {outcome}" for outcome, n in sorted(left.items())]
        due += [f"{n} to be delivered: {sink}" for sink, n in sorted(waiting.items())]
        due += ["the import"] if self._problems() else []
        due += [f"{n} not analyzed"] if self.found is not None and (n := len(self.found.failures)) else []
        due += ["the log of the running kernel"] if self.log is not None and self.log.failed else []
        return due + ([str(self.trouble)] if self.trouble is not None else [])

    def is_worth_a_retry(self) -> bool:
        """Whether another run may do more without anything happening before.

        A record that is deferred waits for another mount or boot, one that is kept for another configuration.
        """
        waits = (Outcome.DEFERRED, Outcome.KEPT)
        parts = (
            any(e.is_trouble() and e.outcome not in waits for e in self.harvest.erasures),
            any(not e.refused for e in self.delivery.pending),
            self._problems(),
            self.log is not None and self.log.failed,
            self.trouble is not None,
        )
        return any(parts)

    def exit_status(self) -> int:
        """0; 1 if something is damaged or left to be done; 75 if it is only to be delivered."""
        parts = (
            self.harvest.exit_status(),
            self._problems(),
            self.log is not None and self.log.failed,
            self.found is not None and self.found.failures,
            not all(crash["complete"] for crash in self.crashes),
        )
        return 1 if any(parts) else self.delivery.exit_status()


def collect(host: Host, config: Config, archive: Archive, *, kernel_log: bool) -> Collected:
    """All stages once.  One that fails does not keep the rest from what is in the archive already.

    Args:
        host: the running system.
        config: all of it.
        archive: where.
        kernel_log: also look into the running kernel's log for an oops that it has survived.

    Raises:
        ArchiveError: the archive cannot be written, or does not read back; nothing was erased.
    """
    stamped = stamp(host, config.boots.stamp_prefix)  # before anything that may fail, or take long
    done = NOTHING
    trouble: PstoredError | None = None
    try:
        done = with_room(host, archive, config, lambda: harvest(host, config))
    except StoreError as e:
        trouble = e
    imports: list[Import | None] = []
    for take in TAKES:
        try:
            imports.append(with_room(host, archive, config, partial(take, host, config)))
        except PstoredError as e:
            imports.append(None)
            trouble = trouble or e
    log = _look_into_log(host, config, archive) if kernel_log else None
    took, kdump, *rest = imports
    elsewhere = tuple(one for one in rest if one is not None)
    so_far = Collected(done, took, log, kdump, elsewhere, trouble=trouble)
    try:
        with archive.lock():
            found = find(host, config, archive, stamped=stamped, touched=done.touched)
            return so_far._replace(
                found=found,
                trouble=trouble or found.trouble,
                crashes=tuple(archive.load_crash(i) for i in found.crashes),
                delivery=deliver(host, archive, config),
                pruned=tuple(keep_limits(host, archive, config)),
            )
    except ArchiveError as e:
        return so_far._replace(trouble=e)


def find(
    host: Host,
    config: Config,
    archive: Archive,
    *,
    stamped: Stamp = UNSTAMPED,
    again: bool = False,
    touched: Iterable[str] = (),
) -> Found:
    """Note the running boot, analyze, and settle the boots that are over; the caller holds the archive's lock."""
    seen = look(host, stamped=stamped)
    trouble = _note(archive, seen)
    journal = BootJournal(host)
    witness = journal if config.boots.journal else None
    found = analyze(archive, config, journal=witness, again=again, touched=touched)
    if trouble is None:
        try:
            if _settle(host, archive, journal, seen):
                found = found.and_then(analyze(archive, config, journal=witness))
        except DiskError as e:
            trouble = e
    return found._replace(trouble=found.trouble or trouble)


def _note(archive: Archive, seen: Look) -> DiskError | None:
    """Note the running boot in the ledger; why not, if that cannot be: crashes count for more."""
    try:
        note_boot(archive, seen)
    except DiskError as e:
        return e
    return None


def _settle(host: Host, archive: Archive, journal: BootJournal, seen: Look) -> bool:
    """Settle the boots that are over; gives whether that made a harvest."""
    running = seen.facts.boot_id
    if running is None and not os.path.exists(host.path(BOOT_ID_FILE)):
        running = Host().boot_id()  # below DIR there may be the running system's files without /proc
    if running is None or seen.is_crash_kernel:  # which boot is not over cannot be told
        return False
    history = History(archive, read_ledger(archive), journal, running, archive.remembered_crashes())
    return bool(settle(history, seen.facts))


def with_room(host: Host, archive: Archive, config: Config, stage: Callable[[], T]) -> T:
    """Do a stage; if the archive has no room, make it keep its limits, and try once more."""
    try:
        return stage()
    except ArchiveError:
        if not _make_room(host, archive, config):
            raise
        return stage()


def _make_room(host: Host, archive: Archive, config: Config) -> bool:
    try:
        with archive.lock():
            return bool(keep_limits(host, archive, config))
    except ArchiveError:
        return False


def keep_limits(host: Host, archive: Archive, config: Config) -> list[str]:
    """Remove what is over the archive's limits; the caller holds its lock."""
    return prune(archive, config, store=Store(host.path(config.harvest.store)))


def _look_into_log(host: Host, config: Config, archive: Archive) -> kernellog.Look:
    try:
        return with_room(host, archive, config, lambda: kernellog.look(host, config))
    except ArchiveError as e:
        return kernellog.Look(None, 0, (f"the log of the running kernel is not archived: {e}",), failed=True)
