# SPDX-License-Identifier: Apache-2.0
"""The harvest: from the store into the archive, durably; then, and only then, out of the store.

This is what runs early at boot and what can destroy evidence, so it is small: it moves bytes, and knows of a record
only its name and its ECC notice.  In this order:

1. Every record is read to its end and its digest taken; those already archived are left out.
2. The new ones are written into one bundle (:mod:`pstored.bundle`): four flushes, for one record or a thousand.
3. The bundle is read back and compared.
4. Record by record: may it be erased?  Is it still what the receipt says?  Then erase (:mod:`pstored.erase`).
5. What became of each is written to erased.json, without a flush: it may be lost with the power.

A run that ends anywhere in between leaves every record in the store, or whole in the archive, or both; the next run
goes on from there.
"""

from __future__ import annotations

import os

from pstored import durable
from pstored.archive import SCHEMA, Archive, Receipt
from pstored.archive import Harvest as Bundle
from pstored.bundle import Earlier, describe, read_back, write_bundle
from pstored.config import Config
from pstored.documents import dump_json, utc
from pstored.erase import Eraser, Erasure, Outcome
from pstored.errors import ArchiveError
from pstored.host import Facts, Host, mounts, volatile_reason
from pstored.lean import TYPE_CHECKING, NamedTuple
from pstored.parse.filename import split_record_name
from pstored.store import RecordReadError, Store, record_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Pass(NamedTuple):
    """What one harvest did."""

    harvest_id: str | None
    """The new bundle; None if there was nothing new."""
    archived: tuple[Receipt, ...]
    known: int
    """Records in the store that an earlier harvest has."""
    erasures: tuple[Erasure, ...]
    touched: tuple[str, ...]
    """Harvests whose erased.json has changed."""
    warnings: tuple[str, ...]

    def exit_status(self) -> int:
        """0, or 1 if something was left in the store that should not be there."""
        return int(any(e.is_trouble() for e in self.erasures))


NOTHING = Pass(None, (), 0, (), (), ())


def harvest(host: Host, config: Config) -> Pass:
    """Take what is in the store into the archive, and clear the store of it.

    Raises:
        StoreError: the store cannot be listed.
        ArchiveError: the archive cannot be written, or does not read back; nothing was erased.
    """
    if host.is_crash_kernel():
        return NOTHING._replace(warnings=("this is the kdump kernel: nothing is taken from the store here",))
    store = Store(host.path(config.harvest.store))
    names = store.names()
    if not names:
        return NOTHING._replace(warnings=_why_empty(host, store) + rival(host))
    archive = Archive(host.path(config.archive.path))
    with archive.lock():
        return _Harvester(host, config, store, archive).run(names)


def _why_empty(host: Host, store: Store) -> tuple[str, ...]:
    """What keeps records from being seen, if anything does."""
    if not os.path.isdir(store.path):
        return (f"there is no {store.path}: the kernel has no pstore, or its module is not loaded",)
    if host.root == "/" and not any(mount.type == "pstore" for mount in mounts()):
        return (f"no pstore is mounted: mount -t pstore pstore {store.path}",)
    return ()


RIVAL = "systemd-pstore"
WANTS = "/etc/systemd/system/sysinit.target.wants"


def rival(host: Host) -> tuple[str, ...]:
    """That systemd-pstore takes records from the same store, if it does; what it took is imported by ``collect``.

    Our unit conflicts with it, which drops its start at boot: where that is enabled, the other one does not run.
    """
    is_enabled, is_ours = (os.path.lexists(host.path(f"{WANTS}/{name}.service")) for name in (RIVAL, "pstored-harvest"))
    is_masked = os.path.realpath(host.path(f"/etc/systemd/system/{RIVAL}.service")) == "/dev/null"
    if is_ours or is_masked or not is_enabled:
        return ()
    return (f"{RIVAL}.service takes records from the same store: systemctl mask {RIVAL}.service",)


class _Harvester:
    def __init__(self, host: Host, config: Config, store: Store, archive: Archive) -> None:
        self.host = host
        self.config = config
        self.store = store
        self.archive = archive
        self.warnings: list[str] = []
        self.left: list[Erasure] = []
        self.known: dict[str, tuple[Receipt, str]] = {}  # record name to its receipt, and the harvest that has it
        self.new: list[str] = []
        self.touched: list[str] = []
        self.earlier = Earlier(archive)

    def run(self, names: list[str]) -> Pass:
        facts = self.host.facts()
        with durable.archive_errors("write to", self.archive.harvests):
            self._sort_out(names)
            bundle = self._write_bundle(facts) if self.new else None
        if bundle is not None:
            read_back(self.archive, bundle)
            self.archive.add_to_index(bundle)
        erasures = self._erase(bundle)
        return Pass(
            harvest_id=None if bundle is None else bundle.id,
            archived=() if bundle is None else bundle.receipts,
            known=len(self.known),
            erasures=tuple(sorted(erasures + self.left)),
            touched=tuple(self.touched),
            warnings=(*self.earlier.warnings, *self.warnings, *rival(self.host)),
        )

    # -- 1: what is new

    def _sort_out(self, names: list[str]) -> None:
        keys: dict[str, str] = {}
        for name in names:
            try:
                keys[name] = record_key(name, self.store.digest(name))
            except RecordReadError as e:
                self._unreadable(name, e)
        known_keys = self.archive.known_keys(keys.values())
        there = frozenset(names)
        for name, key in keys.items():
            try:
                known = self._recognize(name, key, known_keys.get(key, ()), there)
            except RecordReadError as e:
                self._unreadable(name, e)
                continue
            if known is None:
                self.new.append(name)
            else:
                self.known[name] = known

    def _recognize(
        self, name: str, key: str, harvests: Iterable[str], there: frozenset[str]
    ) -> tuple[Receipt, str] | None:
        """The record's receipt, and which of the harvests that have its key has it; None if it is new."""
        for harvest_id in harvests:
            if (receipt := self._find(harvest_id, name, key, there)) is not None:
                return receipt, harvest_id
        return None

    def _find(self, harvest_id: str, name: str, key: str, there: frozenset[str]) -> Receipt | None:
        """The receipt of this very record, and not of one of a crash with equal bytes, in an earlier harvest.

        A machine without printk.time that dies in the same way at every boot gives such.  A dmesg record's mtime is its
        crash's time; where that differs, it is the same record only if that was left in the store, under this name or
        under one that is there no more.
        """
        receipts = self.earlier.receipts(harvest_id, key)
        record = split_record_name(name)
        if not receipts or record is None or record.type != "dmesg":
            return receipts[0] if receipts else None
        mtime_ns = self.store.mtime_ns(name)
        same_time = next((r for r in receipts if r.mtime_ns == mtime_ns), None)
        if same_time is not None:
            return same_time
        erased = self.archive.load_erased(harvest_id)
        return next(
            (
                r
                for r in receipts
                if erased.get(r.name, {}).get("outcome", Outcome.ERASED) != Outcome.ERASED
                and (r.name == name or r.name not in there)
            ),
            None,
        )

    def _unreadable(self, name: str, e: RecordReadError) -> None:
        outcome = Outcome.VANISHED if e.vanished else Outcome.UNREADABLE
        self.left.append(Erasure(name, outcome, str(e)))

    # -- 2: the bundle

    def _write_bundle(self, facts: Facts) -> Bundle | None:
        return write_bundle(
            self.archive,
            self.store,
            self.new,
            wall_ns=facts.wall_ns,
            describe=describe(facts, store=self._source(facts), unreadable=self._unreadables()),
            unreadable=self._unreadable,
        )

    def _source(self, facts: Facts) -> dict[str, object]:
        return {
            "path": self.config.harvest.store,
            "backend": facts.backend,
            "parameters": self.host.pstore_parameters(),
        }

    def _unreadables(self) -> Iterator[dict[str, str]]:
        """Asked for when the bundle is written: by then it is known what could not be read."""
        for e in self.left:
            if e.outcome is Outcome.UNREADABLE:
                yield {"name": e.name, "why": e.why}

    # -- 4 and 5: erase

    def _erase(self, bundle: Bundle | None) -> list[Erasure]:
        volatile = None
        if not self.config.archive.allow_volatile:
            volatile = volatile_reason(self.archive.path)
        if volatile is not None:
            self.warnings.append(
                f"the archive {self.archive.path!r} does not survive a reboot: {volatile}; nothing is erased from the "
                "store (mount a disk there, or set allow_volatile = true in [archive])"
            )
        eraser = Eraser(self.host, self.store, self.config.harvest.erase, volatile=volatile)
        self.archive.flush_names(harvests=bundle is None)
        by_harvest: dict[str, list[Erasure]] = {}
        erasures = []
        for receipt, harvest_id in self._archived(bundle):
            erasure = eraser.erase(receipt)
            by_harvest.setdefault(harvest_id, []).append(erasure)
            erasures.append(erasure)
        space, warning = eraser.space()
        if warning is not None:
            self.warnings.append(warning)
        for harvest_id, done in by_harvest.items():
            try:
                self._write_erased(harvest_id, done, space)
            except ArchiveError as e:
                # too late to keep the records in the store, and they are whole in the archive: go on, and say so
                self.warnings.append(f"what was erased is not noted: {e}")
                self.left.append(Erasure("erased.json", Outcome.FAILED, f"cannot be written: {e}"))
        return erasures

    def _archived(self, bundle: Bundle | None) -> list[tuple[Receipt, str]]:
        """What is both in the store and, read back, in the archive: its receipt, and the harvest that has it."""
        found = [] if bundle is None else [(r, bundle.id) for r in bundle.receipts]
        return found + [(receipt._replace(name=name), h) for name, (receipt, h) in self.known.items()]

    def _write_erased(self, harvest_id: str, done: list[Erasure], space: dict[str, int] | None) -> None:
        """Bring the harvest's erased.json up to date; untouched if it says the same already."""
        old = self.archive.load_erased(harvest_id)
        now = utc()
        new = dict(old)
        for e in done:
            was = old.get(e.name)
            if was is None or (was.get("outcome"), was.get("why")) != (e.outcome, e.why):
                new[e.name] = {"name": e.name, "outcome": e.outcome, "why": e.why, "time": now}
        if new == old:
            return
        self.touched.append(harvest_id)
        document = {
            "schema": SCHEMA,
            "policy": self.config.harvest.erase,
            "space": space,
            "records": list(new.values()),
        }
        # lost or torn, the records are gone from the store and in the archive all the same
        directory = self.archive.harvest_directory(harvest_id)
        self.archive.write(directory, {"erased.json": dump_json(document)}, durably=False)
