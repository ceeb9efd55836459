# SPDX-License-Identifier: Apache-2.0
"""A bundle: the records of one pass in one tar with one receipt each, durable in four flushes, read back.

However many records there are: the tar, harvest.json, their directory, its parent.
"""

from __future__ import annotations

import os

from pstored import __version__, durable, ustar
from pstored.archive import SCHEMA, Archive, Harvest, Receipt
from pstored.documents import dump_json, open_own, read_document, seal, utc
from pstored.errors import ArchiveError
from pstored.host import Facts
from pstored.ids import make_id
from pstored.lean import TYPE_CHECKING
from pstored.parse.filename import KMSG
from pstored.store import CHUNK, Digest, RecordReadError, Store, record_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, BinaryIO


def live_boot(facts: dict[str, Any]) -> str | None:
    """The boot whose log a harvest was read from while it ran; None for a harvest from elsewhere."""
    store = facts.get("store")
    return facts.get("boot_id") if isinstance(store, dict) and store.get("backend") == KMSG else None


def is_foreign(facts: dict[str, Any]) -> bool:
    """Whether a harvest's records may be another machine's: an import from a directory that somebody named."""
    store = facts.get("store")
    return facts.get("machine_id") is None and isinstance(store, dict) and "kind" in store


def is_received(facts: dict[str, Any]) -> bool:
    """Whether a harvest came over the net, so that anybody may have made it: ``pstored netconsole``."""
    store = facts.get("store")
    return isinstance(store, dict) and "sender" in store


def started_ns(facts: dict[str, Any]) -> int | None:
    """When the collecting boot began, by its own clock."""
    wall_ns, uptime_s = facts.get("time_ns"), facts.get("uptime_s")
    if not isinstance(wall_ns, int) or not isinstance(uptime_s, int | float):
        return None
    return wall_ns - int(uptime_s * 1e9)


def write_bundle(
    archive: Archive,
    store: Store,
    names: Sequence[str],
    *,
    wall_ns: int,
    describe: Callable[[str, list[Receipt]], dict[str, object]],
    unreadable: Callable[[str, RecordReadError], None] = lambda name, e: None,  # noqa: ARG005
) -> Harvest | None:
    """Archive the records *names*; None if none of them can be read any more.

    Args:
        archive: where; the caller holds its lock.
        store: where from.
        names: what.
        wall_ns: for the id.
        describe: gives harvest.json, from the id and the receipts.
        unreadable: told of each record that cannot be read.

    Raises:
        OSError, ArchiveError: it cannot be written; what is there of it is litter.
    """
    temporary = os.path.join(archive.harvests, durable.NEW + "harvest")
    durable.mkdir(temporary)
    receipts = _write_tar(os.path.join(temporary, "records.tar"), store, names, unreadable)
    if not receipts:  # all vanished in between
        durable.remove_tree(temporary)
        return None
    newest = next(archive.newest_harvests(), None)
    digests = (f"{r.name} {r.sha256}" for r in receipts)
    harvest_id = make_id(digests, wall_ns=wall_ns, after=newest)
    facts = seal(describe(harvest_id, receipts))
    durable.write_flushed(os.path.join(temporary, "harvest.json"), dump_json(facts))
    durable.commit_directory(temporary, archive.harvest_directory(harvest_id))
    return Harvest(harvest_id, facts, tuple(receipts))


def describe(
    facts: Facts,
    *,
    store: Mapping[str, object],
    unreadable: Iterable[Mapping[str, str]] = (),
    said: Mapping[str, Mapping[str, object]] = {},
) -> Callable[[str, list[Receipt]], dict[str, object]]:
    """What harvest.json says of a bundle, for :func:`write_bundle`.

    Args:
        facts: the collecting system.
        store: where the records are from: path, backend, parameters.
        unreadable: names, and why.
        said: record name to what else is known of it: notes, damage.
    """

    def document(harvest_id: str, receipts: list[Receipt]) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "id": harvest_id,
            "time": utc(facts.wall_ns // 1_000_000_000),
            "time_ns": facts.wall_ns,
            "pstored": __version__,
            "boot_id": facts.boot_id,
            "machine_id": facts.machine_id,
            "kernel": {"release": facts.kernel_release, "version": facts.kernel_version, "cmdline": facts.cmdline},
            "uptime_s": facts.uptime_s,
            "oops_count": facts.oops_count,
            "tainted": facts.tainted,
            "store": dict(store),
            "records": [{**r._asdict(), **said.get(r.name, {})} for r in receipts],
            "unreadable": list(unreadable),
        }

    return document


def _write_tar(
    path: str, store: Store, names: Sequence[str], unreadable: Callable[[str, RecordReadError], None]
) -> list[Receipt]:
    receipts = []
    fd = durable.create(path)
    try:
        with open(fd, "wb", closefd=False) as tar:
            for name in names:
                at = tar.tell()
                try:
                    receipts.append(_add_member(tar, store, name))
                except RecordReadError as e:
                    tar.seek(at)
                    tar.truncate()
                    unreadable(name, e)
            tar.write(ustar.END)
        durable.flush(fd, path)
    finally:
        os.close(fd)
    return receipts


def _add_member(tar: BinaryIO, store: Store, name: str) -> Receipt:
    """Copy one record behind what is there.  Its size is known only at its end, so the header is written last."""
    mtime_ns = store.mtime_ns(name)
    at = tar.tell()
    header_size = len(ustar.member_header(name, 0, mtime_ns))
    tar.write(bytes(header_size))
    digest = store.digest(name, sink=tar.write)
    tar.write(ustar.padding(digest.size))
    end = tar.tell()
    header = ustar.member_header(name, digest.size, mtime_ns)
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
        key=record_key(name, digest),
        mtime_ns=mtime_ns,
        error=digest.error,
    )


def read_back(archive: Archive, bundle: Harvest) -> None:
    """Compare what is on the disk with the receipts.

    Raises:
        ArchiveError: it differs.
    """
    directory = archive.harvest_directory(bundle.id)
    path = os.path.join(directory, "records.tar")
    problem = None
    try:
        if read_document(os.path.join(directory, "harvest.json")) != dump_json(bundle.facts):
            problem = "harvest.json is another"
        with open_own(path) as f:
            # from the disk, not from memory, if the kernel likes
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            problem = problem or _compare(f, bundle.receipts)
    except (OSError, ArchiveError) as e:
        problem = str(e)
    if problem is not None:
        raise ArchiveError(
            f"{path!r} does not read back as written: {problem}",
            hint="nothing was erased from the store; check the disk",
        )


class Earlier:
    """The harvests that are there already, each read back once: what one still has need not be archived again."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._bundles: dict[str, Harvest | None] = {}
        self.warnings: list[str] = []
        """What does not read back."""

    def receipts(self, harvest_id: str, key: str) -> list[Receipt]:
        """Those of the records with this key; none if the harvest is damaged: what there is of it is archived anew."""
        if harvest_id not in self._bundles:
            self._bundles[harvest_id] = None
            try:
                bundle = self._archive.load_harvest(harvest_id)
                read_back(self._archive, bundle)
                self._bundles[harvest_id] = bundle
            except ArchiveError as e:
                self.warnings.append(f"{e}; what is still there of it is archived anew")
        found = self._bundles[harvest_id]
        return [] if found is None else [r for r in found.receipts if r.key == key]


def _compare(tar: BinaryIO, receipts: tuple[Receipt, ...]) -> str | None:
    """The first difference between a tar and what it must be by its receipts, in words; None if there is none."""
    for receipt in receipts:
        header = ustar.member_header(receipt.name, receipt.size, receipt.mtime_ns)
        if tar.read(len(header)) != header:
            return f"record {receipt.name!r} is not where it should be"
        digest = Digest()
        while digest.size < receipt.size and (piece := tar.read(min(CHUNK, receipt.size - digest.size))):
            digest.update(piece)
        padding = ustar.padding(receipt.size)
        if (digest.size, digest.sha256()) != (receipt.size, receipt.sha256) or tar.read(len(padding)) != padding:
            return f"record {receipt.name!r} differs"
    return None if tar.read() == ustar.END else "there is more, or less, than was written"
