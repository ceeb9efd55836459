# SPDX-License-Identifier: Apache-2.0
r"""The archive: what is kept, where, and how it survives.  Its layout is a public interface.

::

    /var/lib/pstored/                   0750, files 0640, whatever the umask
        boots.jsonl                     the ledger, one line a boot (pstored.boots.attribution)
        harvests/<harvest-id>/          immutable but for the last two, which are replaced whole
            records.tar                 the records as the kernel showed them: names, bytes, mtimes; any tar reads it
            harvest.json                who, when, on which boot; per record a receipt (size, digests)
            erased.json                 after the erase: per record, erased or why not
            analyzed.json               after the analysis: the crashes found, or why there is none
        crashes/<crash-id>/             derived: `pstored analyze --all` makes it again, but for delivered.json
            crash.json                  the report; a crash is there when this file is
            dmesg.txt console.txt ...   what a person reads
            delivered.json              which sinks have it, and since when
        outbox/<sink>/<crash-id>.json   still to be delivered to the journal
        outgoing/<sink>/...             what was sent to the outgoing sinks (pstored.delivery.outgoing); another user's
        imported.json                   what of systemd-pstore's directory was imported (pstored.intake.systemdpstore)
        elsewhere.json                  what was seen of the store's neighbours (pstored.intake.neighbours)
        harvests.index crashes.index sizes.index
                                        caches, one line an entry; made again from the above when they disagree

A name that does not begin with ``.new-`` is whole (:mod:`pstored.durable`); but for the caches and, if the power is cut
soon after it was written, erased.json, which nothing depends on.
One process writes at a time: whoever holds the flock on the archive directory.  Readers need no lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from pstored import durable
from pstored.documents import load_json, open_own, recall
from pstored.errors import ArchiveError, DiskError, NotFoundError
from pstored.ids import is_id
from pstored.index import Index, from_word, to_word
from pstored.lean import TYPE_CHECKING, NamedTuple, contextmanager, suppress
from pstored.summary import Summary, decode

if TYPE_CHECKING:
    import tarfile  # slow to import, and only whoever reads records needs it
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

SCHEMA = 1
"""Version of harvest.json, erased.json and analyzed.json; goes up when a reader of the old one would go wrong."""

READERS = "run as root, or in the group that may read the archive; what was made before there was one: chgrp -R pstored"
STRAGGLERS = 32
"""A harvest that could not be analyzed is tried again until so many have come after it."""


class Receipt(NamedTuple):
    """One record as archived."""

    name: str
    size: int
    """Bytes archived, the ECC notice included."""
    sha256: str
    content_sha256: str
    """Without the ECC notice."""
    key: str
    """The record's identity: ``<type>-<backend>:<content_sha256>``; an archived key is not archived again."""
    mtime_ns: int
    error: str | None
    """Why the record could not be read to its end, if so; what could be read is archived."""


class Harvest(NamedTuple):
    """What harvest.json says."""

    id: str
    facts: dict[str, Any]
    """time, boot, kernel, pstore parameters; the whole file as read."""
    receipts: tuple[Receipt, ...]


class Archive:
    """The archive below one directory."""

    def __init__(self, path: str) -> None:
        path = os.path.normpath(path)
        self.path = path
        self.harvests = os.path.join(path, "harvests")
        self.crashes = os.path.join(path, "crashes")
        self.outbox = os.path.join(path, "outbox")
        self.outgoing = os.path.join(path, "outgoing")
        self._unflushed = os.path.join(path, "unflushed")
        self._harvest_index = Index(os.path.join(path, "harvests.index"))
        self._crash_index = Index(os.path.join(path, "crashes.index"))
        self._locked = False
        self._summaries: dict[str, Summary] | None = None  # as long as the lock is held: then nobody else writes
        self._looked = False  # whether each was compared with its report

    # -- one writer at a time

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Make the archive if it is not there, wait for other writers, and keep them out.

        Raises:
            ArchiveError: it cannot be made, or written.
        """
        for directory in (self.harvests, self.crashes, self.outbox):
            durable.refuse_link(directory)
        self._make()
        with durable.archive_errors("lock the archive", self.path):
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with durable.archive_errors("lock the archive", self.path):
                fcntl.flock(fd, fcntl.LOCK_EX)
            for directory in (self.path, self.harvests, self.crashes):
                if not os.access(directory, os.W_OK | os.X_OK):
                    with durable.archive_errors("write to", directory):
                        # access(2) gives no reason: let the kernel say it
                        os.close(durable.create(os.path.join(directory, durable.NEW + "probe")))
            with durable.archive_errors("clean", self.path):
                for directory in (self.path, self.harvests, self.crashes):
                    durable.remove_litter(directory)
            self._locked = True
            yield
        finally:
            self._locked, self._summaries, self._looked = False, None, False
            os.close(fd)

    def _make(self) -> None:
        """Make what is not there.  A mark stands until it is flushed, since a run may be killed in between."""
        if durable.is_there(self.harvests) and durable.is_there(self.crashes):
            return
        durable.make_directory(os.path.dirname(self.path) or ".")
        durable.make_directory(self.path, durably=False)
        with durable.archive_errors("write to", self.path), suppress(FileExistsError):
            os.close(durable.create(self._unflushed))  # or another first run was faster: as good
        durable.make_directory(self.crashes, durably=False)
        durable.make_directory(self.harvests, durably=False)

    def write(self, directory: str, files: Mapping[str, bytes], *, durably: bool = True) -> None:
        """Put files into a directory of the archive; see :func:`pstored.durable.replace_files`.

        Where that replaces a report, the crash's line in the cache counts no more: :meth:`add_crash_summary`.
        """
        if "crash.json" in files:
            self.remembered_crashes()  # reads which have lines
            if (crash_id := os.path.basename(directory)) in self._crash_index.ids:
                self._crash_index.doubt(crash_id)
        kept, self._summaries = self._summaries, None  # if it fails, which may be the flush, a report may be another
        durable.replace_files(directory, files, scratch=self.path, durably=durably)
        self._summaries = kept

    def flush_names(self, *, harvests: bool) -> None:
        """Make sure that what is listed now is there after a power cut: an earlier run may have been killed in between.

        Args:
            harvests: also the names of the harvests.
        """
        with durable.archive_errors("flush", self.path):
            if harvests:
                durable.flush_directory(self.harvests)
            if durable.is_there(self._unflushed):
                durable.flush_directory(self.path)
                durable.flush_directory(os.path.dirname(self.path) or ".")
                durable.remove_file(self._unflushed)

    # -- harvests

    def harvest_ids(self) -> list[str]:
        """All of them, oldest first."""
        return _ids(self.harvests)

    def newest_harvests(self) -> Iterator[str]:
        """All of them, newest first: who needs but the first of them does not pay for all."""
        for name in sorted(_names(self.harvests), reverse=True):
            if is_id(name) and _is_directory(os.path.join(self.harvests, name)):
                yield name

    def harvest_directory(self, harvest_id: str) -> str:
        """Where a harvest's files are; ArchiveError if that is no id, but a way out of the archive."""
        return _below(self.harvests, harvest_id)

    def load_harvest(self, harvest_id: str) -> Harvest:
        """Read harvest.json.

        Raises:
            ArchiveError: it is not there, or not what we wrote.
        """
        path = os.path.join(self.harvest_directory(harvest_id), "harvest.json")
        facts = load_json(path)
        try:
            receipts = tuple(Receipt(*(r[f] for f in Receipt._fields)) for r in facts["records"])
            if not all(all(map(isinstance, receipt, _RECEIPT)) for receipt in receipts):
                raise TypeError("no receipt")
        except (KeyError, TypeError) as e:
            raise ArchiveError(f"{path!r} is not a harvest: {e!r}") from e
        return Harvest(harvest_id, facts, receipts)

    def load_erased(self, harvest_id: str) -> dict[str, dict[str, Any]]:
        """Record name to what erased.json says of it; empty if the erase never came so far.

        Raises:
            DiskError: it cannot be read now.
        """
        facts = recall(os.path.join(self.harvest_directory(harvest_id), "erased.json"))
        try:
            return {r["name"]: r for r in facts["records"]}
        except (KeyError, TypeError):
            return {}

    def read_records(self, harvest_id: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        """The records of a harvest, one after the other.

        Raises:
            ArchiveError: records.tar cannot be read (DiskError), or is damaged.
        """
        import tarfile

        path = os.path.join(self.harvest_directory(harvest_id), "records.tar")
        try:
            with open_own(path) as f, tarfile.open(fileobj=f, mode="r:") as tar:
                for member in tar:
                    file = tar.extractfile(member)
                    yield member, b"" if file is None else file.read()
        except tarfile.TarError as e:
            raise ArchiveError(f"cannot read {path!r}: {e}") from e
        except OSError as e:
            raise DiskError(f"cannot read {path!r}: {e.strerror or e}") from e

    def known_keys(self, wanted: Iterable[str] | None = None) -> dict[str, list[str]]:
        """Record key to the harvests that have it, newest first; of all records, or of those with a *wanted* key."""
        only = None if wanted is None else set(map(to_word, wanted))

        def keep(words: list[str]) -> set[str] | None:
            try:  # of each harvest at each harvest: with suppress() it takes twice as long
                return set(map(from_word, words[1:] if only is None else only.intersection(words)))
            except ValueError:
                return None

        def make(harvest_id: str) -> tuple[set[str], list[str]] | None:
            with suppress(ArchiveError):
                words = _harvest_line(self.load_harvest(harvest_id))
                return keep(words) or set(), words
            return None

        entries = self._harvest_index.healed(self.harvest_ids(), keep, make, write=self._locked)
        found: dict[str, list[str]] = {}
        for harvest_id, keys in reversed(entries.items()):
            for key in keys:
                found.setdefault(key, []).append(harvest_id)
        return found

    def add_to_index(self, harvest: Harvest) -> None:
        """Make the harvest's records known to later passes."""
        self._harvest_index.add(_harvest_line(harvest))

    def unanalyzed(self) -> list[str]:
        """Harvests that have no analysis yet, oldest first.

        Analysis goes in that order, so where one has it, those before it have it, too; but for one that could not be
        read then: it is looked for among the newest so many.
        """
        found = []
        for at, harvest_id in enumerate(self.newest_harvests()):
            if not durable.is_there(os.path.join(self.harvest_directory(harvest_id), "analyzed.json")):
                found.append(harvest_id)
            elif at >= STRAGGLERS:
                break
        return found[::-1]

    # -- crashes

    def crash_directory(self, crash_id: str) -> str:
        """Where a crash's files are; ArchiveError if that is no id, but a way out of the archive."""
        return _below(self.crashes, crash_id)

    def crash_summaries(self) -> list[Summary]:
        """One summary a crash (the fields of ``pstored list``), in order of collection: as its report is now."""
        if self._summaries is not None and self._looked:
            return _in_order(self._summaries)
        found = self._crash_index.healed(self.crash_ids(), self._if_fresh, self._crash_entry, write=self._locked)
        decode(found.values())
        if self._locked:
            self._summaries, self._looked = found, True
        return _in_order(found)

    def remembered_crashes(self) -> list[Summary]:
        """The same without a look at each report: as it was when we wrote it.

        No line of another revision than is on the disk counts (:meth:`write`), as long as no other process writes; what
        somebody has changed by hand is only seen by :meth:`crash_summaries`.
        """
        found = self._summaries
        if found is None:
            ids, entry = self.crash_ids(), self._crash_entry
            found = self._crash_index.healed(ids, Summary.of_line, entry, write=self._locked)
            if self._locked:
                self._summaries, self._looked = found, False
        return _in_order(found)

    def look_again(self, summary: Summary) -> Summary:
        """A remembered crash as its report is now; it has no harvests if that cannot be read."""
        if summary.state == self._report_state(summary["id"]):
            return summary
        entry = self._crash_entry(summary["id"])
        return Summary.of_report(summary["id"], None, "") if entry is None else entry[0]

    def crash_ids(self) -> list[str]:
        """All directories of crashes, sorted; also one whose report is damaged, or not there yet."""
        return _ids(self.crashes)

    def add_crash_summary(self, crash_id: str) -> None:
        """Put a crash's line into the cache."""
        if (entry := self._crash_entry(crash_id)) is not None:
            summary, line = entry
            if line is not None:
                self._crash_index.add(line)
            if self._summaries is not None:
                self._summaries[crash_id] = summary

    def remove_crash(self, crash_id: str) -> None:
        """Remove a crash; the caller holds the lock.

        Raises:
            OSError: it cannot be removed, or not whole; what is left of it is litter.
        """
        if self._summaries is not None:
            self._summaries.pop(crash_id, None)
        durable.remove_tree(self.crash_directory(crash_id))

    def _report_state(self, crash_id: str) -> str:
        """What tells a crash.json from an older one without reading it; empty if it cannot be looked at."""
        try:
            found = os.stat(f"{self.crashes}/{crash_id}/crash.json")  # of each crash at each list: no more than this
        except OSError:
            return ""
        return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"

    def _is_half_made(self, crash_id: str) -> bool:
        """Whether the directory is that of a crash whose making, or whose removal, was cut short, or goes on."""
        try:
            names = os.listdir(self.crash_directory(crash_id))
        except OSError as e:
            return e.errno == errno.ENOENT  # gone since it was listed
        is_made = not {"crash.json", "delivered.json"}.isdisjoint(names)
        return not is_made and any(harvest_id.startswith(crash_id[:17]) for harvest_id in self.unanalyzed())

    def _if_fresh(self, words: list[str]) -> Summary | None:
        """What a line tells, if it is of the report that is on the disk."""
        summary = Summary.of_line(words)
        return summary if summary is not None and summary.state == self._report_state(summary["id"]) else None

    def _crash_entry(self, crash_id: str) -> tuple[Summary, list[str] | None] | None:
        state = self._report_state(crash_id)
        if not state and self._is_half_made(crash_id):
            return None
        told = None
        try:
            told = self.load_crash(crash_id)["summary"]
        except DiskError:
            state = ""
        except ArchiveError:
            pass  # it is damaged
        summary = Summary.of_report(crash_id, told, state)
        return summary, summary.to_line() if state else None

    def load_crash(self, crash_id: str) -> dict[str, Any]:
        """Read crash.json as it is.

        Raises:
            ArchiveError: it cannot be read, or is no report.
        """
        path = os.path.join(self.crash_directory(crash_id), "crash.json")
        crash = load_json(path)
        if any(not isinstance(crash.get(key), kind) for key, kind in _REPORT.items()):
            raise ArchiveError(f"{path!r} is no report", hint="`pstored analyze --all` makes it again")
        return crash

    def kernel_log(self, crash_id: str) -> bytes:
        """The crashed kernel's log: its dumps, else its console, else its machine check; empty if there is none.

        Raises:
            DiskError: it cannot be read now.
        """
        for name in ("dmesg.txt", "console.txt", "mce.txt", "cper.txt"):
            path = os.path.join(self.crash_directory(crash_id), name)
            with durable.archive_errors("read", path), suppress(FileNotFoundError), open_own(path) as f:
                return f.read()
        return b""

    def find_crash(self, wanted: str) -> str:
        """The crash that *wanted* means: an id, the beginning of one or of its digest, or ``-1`` (newest), ``-2`` ...

        Raises:
            NotFoundError: none, or several.
        """
        ids = [s["id"] for s in self.crash_summaries()]
        if wanted[:1] == "-" and wanted[1:].isascii() and wanted[1:].isdigit() and len(wanted) <= 10:
            back = int(wanted[1:])
            if not 0 < back <= len(ids):
                raise NotFoundError(f"no crash {wanted}: there are {len(ids)}", hint="see `pstored list`")
            return str(ids[-back])
        fits = [i for i in ids if i.startswith(wanted) or i.split("-")[1].startswith(wanted)] if wanted else []
        if len(fits) == 1 or wanted in fits:
            return wanted if wanted in fits else str(fits[0])
        if not fits:
            raise NotFoundError(f"no crash {wanted!r}", hint="see `pstored list`")
        raise NotFoundError(f"{wanted!r} fits {len(fits)} crashes: {', '.join(fits[:5])}", hint="give more of the id")


_RECEIPT = (str, int, str, str, str, int, str | None)
"""What the values of a :class:`Receipt` are."""
_REPORT: dict[str, type] = {
    "id": str,
    "revision": int,
    "title": str,
    "boot": dict,
    "collected": dict,
    "time": dict,
    "kernel": dict,
    "dumps": list,
    "records": list,
    "files": dict,
    "notes": list,
    "summary": dict,
}
"""What a crash.json must have, at the least, for anybody to read it."""


def _harvest_line(harvest: Harvest) -> list[str]:
    return [harvest.id, *(to_word(receipt.key) for receipt in harvest.receipts)]


def _in_order(summaries: dict[str, Summary]) -> list[Summary]:
    """In the order of collection: of one harvest's, that in which they were found."""
    return sorted(summaries.values(), key=lambda s: (s["id"][:16], s["order"], s["id"]))


def _ids(directory: str) -> list[str]:
    """The directories that have an id for a name, sorted; a link is none."""
    with _listing(directory), suppress(FileNotFoundError), os.scandir(directory) as entries:
        return sorted(e.name for e in entries if is_id(e.name) and e.is_dir(follow_symlinks=False))
    return []


def _names(directory: str) -> list[str]:
    with _listing(directory), suppress(FileNotFoundError):
        return os.listdir(directory)
    return []


def _is_directory(path: str) -> bool:
    """Whether it is one itself; a disk that does not say so now must not hide what is there."""
    with durable.archive_errors("look at", path), suppress(FileNotFoundError):
        return stat.S_ISDIR(os.lstat(path).st_mode)
    return False


@contextmanager
def _listing(directory: str) -> Iterator[None]:
    durable.refuse_link(directory)
    try:
        yield
    except OSError as e:
        denied = e.errno in (errno.EACCES, errno.EPERM)
        raise DiskError(
            f"cannot list {directory!r}: {os.strerror(e.errno or 0)}",
            hint=READERS if denied else None,
        ) from e


def _below(directory: str, name: str) -> str:
    if not is_id(str(name)):  # what a file that somebody has changed names may be anything
        raise ArchiveError(f"{name!r} is no id of anything in {directory!r}")
    return os.path.join(directory, name)
