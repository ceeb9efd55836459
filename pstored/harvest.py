# SPDX-License-Identifier: Apache-2.0
"""The harvest: from the store into the archive, durably; then, and only then, out of the store.

This is what runs early at boot and what can destroy evidence, so it is small: it moves bytes, and knows of a record
only its name and its ECC notice.  In this order:

1. Every record is read to its end and its digest taken; those already archived are left out.
2. The new ones are written into one bundle: records.tar, harvest.json.  Flush both, flush the directory, rename it
   into place, flush its parent: four flushes, for one record or a thousand.
3. The bundle is read back and compared.
4. Record by record: may it be erased (:func:`verdict`)?  Is it still what the receipt says?  Then erase.
5. What became of each is written to erased.json: two flushes.

A run that ends anywhere in between leaves every record in the store, or whole in the archive, or both; the next run
goes on from there.
"""

import errno
import os
import tarfile
import time
from enum import StrEnum
from typing import BinaryIO, NamedTuple

from pstored import __version__, durable
from pstored.archive import SCHEMA, Archive, Receipt, dump_json, make_id
from pstored.archive import Harvest as Bundle
from pstored.config import Config, ErasePolicy
from pstored.efivars import CrashVariables
from pstored.errors import ArchiveError
from pstored.host import Facts, Host, volatile_reason
from pstored.parse.filename import RecordName, split_record_name
from pstored.store import CHUNK, Digest, RecordReadError, Store


class Outcome(StrEnum):
    """What became of a record in the store."""

    ERASED = "erased"
    LIVE = "live"
    """Left: the zone is the running boot's, too, and renews itself at boot."""
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

_LIVE_TYPES = frozenset(("console", "pmsg", "ftrace"))
_BY_UNIQUE_ID = frozenset(("efi", "efi_pstore", "erst"))
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
        return Outcome.LIVE, "erasing would drop what the running boot has logged; the zone renews itself at boot", True
    if name.backend in _BY_UNIQUE_ID:
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
        return NOTHING
    archive = Archive(host.path(config.archive.path))
    with archive.lock():
        return _Harvester(host, config, store, archive).run(names)


class _Harvester:
    def __init__(self, host: Host, config: Config, store: Store, archive: Archive) -> None:
        self.host = host
        self.config = config
        self.store = store
        self.archive = archive
        self.warnings: list[str] = []
        self.left: list[Erasure] = []
        self.known: dict[str, tuple[str, str]] = {}  # record name to (key, harvest that has it)
        self.new: list[str] = []
        self.touched: list[str] = []
        self.bundles: dict[str, Bundle | None] = {}  # earlier harvests, read back; None: damaged

    def run(self, names: list[str]) -> Pass:
        facts = self.host.facts()
        with durable.archive_errors("write to", self.archive.harvests):
            self._sort_out(names)
            bundle = self._write_bundle(facts) if self.new else None
        if bundle is not None:
            self._read_back(bundle)
            self.archive.add_to_index(bundle)
        erasures = self._erase(bundle)
        return Pass(
            harvest_id=None if bundle is None else bundle.id,
            archived=() if bundle is None else bundle.receipts,
            known=len(self.known),
            erasures=tuple(sorted(erasures + self.left)),
            touched=tuple(self.touched),
            warnings=tuple(self.warnings),
        )

    # -- 1: what is new

    def _sort_out(self, names: list[str]) -> None:
        known_keys = self.archive.known_keys()
        for name in names:
            try:
                key = _key(name, self.store.digest(name))
            except RecordReadError as e:
                self._unreadable(name, e)
                continue
            harvest_id = known_keys.get(key)
            if harvest_id is not None and self._is_sound(harvest_id):
                self.known[name] = key, harvest_id
            else:
                self.new.append(name)

    def _is_sound(self, harvest_id: str) -> bool:
        """Whether an earlier harvest still reads back; if not, what the store has of it is archived anew."""
        if harvest_id not in self.bundles:
            self.bundles[harvest_id] = None
            try:
                bundle = self.archive.load_harvest(harvest_id)
                self._read_back(bundle)
                self.bundles[harvest_id] = bundle
            except ArchiveError as e:
                self.warnings.append(f"{e}; what is still in the store is archived anew")
        return self.bundles[harvest_id] is not None

    def _unreadable(self, name: str, e: RecordReadError) -> None:
        outcome = Outcome.VANISHED if e.vanished else Outcome.UNREADABLE
        self.left.append(Erasure(name, outcome, str(e)))

    # -- 2: the bundle

    def _write_bundle(self, facts: Facts) -> Bundle | None:
        temporary = os.path.join(self.archive.harvests, durable.NEW + "harvest")
        os.mkdir(temporary, durable.DIRECTORY_MODE)
        os.chmod(temporary, durable.DIRECTORY_MODE)
        receipts = self._write_tar(os.path.join(temporary, "records.tar"))
        if not receipts:  # all vanished in between
            durable.remove_tree(temporary)
            return None
        ids = self.archive.harvest_ids()
        harvest_id = make_id(
            (f"{r.name} {r.sha256}" for r in receipts), wall_ns=facts.wall_ns, after=ids[-1] if ids else None
        )
        description = self._describe(harvest_id, facts, receipts)
        durable.write_flushed(os.path.join(temporary, "harvest.json"), dump_json(description))
        durable.commit_directory(temporary, self.archive.harvest_directory(harvest_id))
        return Bundle(harvest_id, description, tuple(receipts))

    def _describe(self, harvest_id: str, facts: Facts, receipts: list[Receipt]) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "id": harvest_id,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(facts.wall_ns // 1_000_000_000)),
            "time_ns": facts.wall_ns,
            "pstored": __version__,
            "boot_id": facts.boot_id,
            "machine_id": facts.machine_id,
            "kernel": {"release": facts.kernel_release, "version": facts.kernel_version, "cmdline": facts.cmdline},
            "uptime_s": facts.uptime_s,
            "oops_count": facts.oops_count,
            "tainted": facts.tainted,
            "store": {
                "path": self.config.harvest.store,
                "backend": facts.backend,
                "parameters": self.host.pstore_parameters(),
            },
            "records": [r._asdict() for r in receipts],
            "unreadable": [{"name": e.name, "why": e.why} for e in self.left if e.outcome is Outcome.UNREADABLE],
        }

    def _write_tar(self, path: str) -> list[Receipt]:
        fd = durable.create(path)
        try:
            with open(fd, "wb", closefd=False) as tar:
                receipts = [r for name in self.new if (r := self._add_member(tar, name)) is not None]
                tar.write(bytes(2 * tarfile.BLOCKSIZE))  # the end of a tar
            durable.flush(fd, path)
        finally:
            os.close(fd)
        return receipts

    def _add_member(self, tar: BinaryIO, name: str) -> Receipt | None:
        """Copy one record behind what is there.  Its size is known only at its end, so the header is written last."""
        info = tarfile.TarInfo(name)
        info.mode = 0o444
        mtime_ns = self.store.mtime_ns(name)
        info.mtime = mtime_ns / 1_000_000_000  # a fraction goes into a pax header; harvest.json has it exactly
        at = tar.tell()
        header_size = len(_header(info))
        tar.write(bytes(header_size))
        try:
            digest = self.store.digest(name, sink=tar.write)
        except RecordReadError as e:
            tar.seek(at)
            tar.truncate()
            self._unreadable(name, e)
            return None
        tar.write(bytes(-digest.size % tarfile.BLOCKSIZE))
        end = tar.tell()
        info.size = digest.size
        header = _header(info)
        if len(header) != header_size:
            raise ArchiveError(f"record {name!r} of {digest.size} bytes does not fit into a tar")
        tar.seek(at)
        tar.write(header)
        tar.seek(end)
        return Receipt(
            name=name,
            size=digest.size,
            sha256=digest.sha256(),
            content_sha256=digest.content_sha256(),
            key=_key(name, digest),
            mtime_ns=mtime_ns,
            error=digest.error,
        )

    # -- 3: read back

    def _read_back(self, bundle: Bundle) -> None:
        """Compare what is on the disk with the receipts.

        Raises:
            ArchiveError: it differs.
        """
        path = os.path.join(self.archive.harvest_directory(bundle.id), "records.tar")
        problem = None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            with open(fd, "rb") as f:
                os.posix_fadvise(
                    fd, 0, 0, os.POSIX_FADV_DONTNEED
                )  # from the disk, not from memory, if the kernel likes
                with tarfile.open(fileobj=f, mode="r:") as tar:
                    problem = _compare(tar, bundle.receipts)
        except (OSError, tarfile.TarError) as e:
            problem = str(e)
        if problem is not None:
            raise ArchiveError(
                f"{path!r} does not read back as written: {problem}",
                hint="nothing was erased from the store; check the disk",
            )

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
        variables = CrashVariables(self.host)
        by_harvest: dict[str, list[Erasure]] = {}
        erasures = []
        for receipt, harvest_id in self._archived(bundle):
            erasure = self._erase_one(receipt, volatile, variables)
            by_harvest.setdefault(harvest_id, []).append(erasure)
            erasures.append(erasure)
        space = self._check_space(variables, erasures)
        for harvest_id, done in by_harvest.items():
            self._write_erased(harvest_id, done, space)
        return erasures

    def _archived(self, bundle: Bundle | None) -> list[tuple[Receipt, str]]:
        """What is both in the store and, read back, in the archive: its receipt, and the harvest that has it."""
        found = [] if bundle is None else [(r, bundle.id) for r in bundle.receipts]
        for name, (key, harvest_id) in self.known.items():
            earlier = self.bundles[harvest_id]
            if earlier is not None:
                receipt = next(r for r in earlier.receipts if r.key == key)
                found.append((receipt._replace(name=name), harvest_id))
        return found

    def _erase_one(self, receipt: Receipt, volatile: str | None, variables: CrashVariables) -> Erasure:
        name = receipt.name
        record = split_record_name(name)
        if receipt.error is not None:
            return Erasure(name, Outcome.UNREADABLE, receipt.error)
        # asked anew for each record: an oops may come at any time
        oopsed = self.host.oops_happened()
        outcome, why, expected = verdict(record, self.config.harvest.erase, oopsed=oopsed)
        if outcome is not Outcome.ERASED:
            return Erasure(name, outcome, why, expected)
        if volatile is not None:
            return Erasure(name, Outcome.KEPT, f"the archive does not survive a reboot: {volatile}")
        try:
            if _key(name, self.store.digest(name)) != receipt.key:
                return Erasure(name, Outcome.CHANGED, "it is no longer what was archived; the next pass takes it anew")
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
        if record is not None and record.backend.startswith("efi") and variables.still_there(record.id):
            return Erasure(
                name, Outcome.FAILED, "the firmware still has the variable; it will be back at the next boot"
            )
        return Erasure(name, Outcome.ERASED, why, expected)

    def _check_space(self, variables: CrashVariables, erasures: list[Erasure]) -> dict[str, int] | None:
        """On EFI: how much room the erase gave back."""
        gone = [e for e in erasures if e.outcome is Outcome.ERASED and "-efi" in e.name]
        before, after = variables.free_before, variables.free_now() if gone else None
        if before is None or after is None:
            return None
        if after <= before:
            self.warnings.append(
                f"the firmware has not given back the space of {len(gone)} erased variables ({after} bytes free); most "
                "do at the next boot, some never: then the next crash cannot be recorded"
            )
        return {"efi_free_before": before, "efi_free_after": after}

    def _write_erased(self, harvest_id: str, done: list[Erasure], space: dict[str, int] | None) -> None:
        """Bring the harvest's erased.json up to date; untouched if it says the same already."""
        old = self.archive.load_erased(harvest_id)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
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
        durable.replace_files(self.archive.harvest_directory(harvest_id), {"erased.json": dump_json(document)})


def _key(name: str, digest: Digest) -> str:
    """A record's identity: type, backend, content.  Names come again (ramoops slots), times change (remount)."""
    record = split_record_name(name)
    owner = f"{record.type}-{record.backend}" if record is not None else name
    return f"{owner}:{digest.content_sha256()}" + (":partial" if digest.error is not None else "")


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _compare(tar: tarfile.TarFile, receipts: tuple[Receipt, ...]) -> str | None:
    """The first difference between a tar and its receipts, in words."""
    for receipt in receipts:
        member = tar.next()
        if member is None or member.name != receipt.name:
            return f"record {receipt.name!r} is not where it should be"
        file = tar.extractfile(member)
        digest = Digest()
        while file is not None and (piece := file.read(CHUNK)):
            digest.update(piece)
        if (digest.size, digest.sha256()) != (receipt.size, receipt.sha256):
            return f"record {receipt.name!r} differs"
    return None if tar.next() is None else "there is more than was written"
