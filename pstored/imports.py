# SPDX-License-Identifier: Apache-2.0
r"""The import: what another program took from the store, into the archive.  So far: what systemd-pstore took.

systemd-pstore(8) copies every record under its own name, with its own mtime, to /var/lib/systemd/pstore; read from its
source (src/pstore/pstore.c), and seen with v252::

    dmesg-ramoops-0  console-ramoops-0  mce-erst-7  dmesg-efi-179540752201001.enc.z     flat: a later one replaces it
    179540752/dmesg-efi-179540752201001 ...  dmesg.txt                                  up to v252: without 6 digits
    1795407522/001/dmesg-efi_pstore-179540752201001 ...  dmesg.txt                      EFI, from v253 on: time, count
    7711216860565340164/dmesg-erst-7711216860565340164 ...  dmesg.txt                   ERST, from v253 on: newest id

Which directory a record is in says nothing: one dump may be in two of them, two dumps in one.  So all of them are taken
together, and the analysis puts parts together by what they hold.

dmesg.txt is made from the records beside it, and never replaced up to v252: of two ramoops crashes under one name it
has the first where the record is the second.  It then holds, each behind its name and a colon, whole records; those
that are nowhere else are taken out of it.  From v253 on it has no names, and counts only where no dmesg record is
beside it.  Its own mtime is no crash's.

Nothing is removed there: systemd-tmpfiles does that, after 14 days.  A record is known by its type, backend, content,
and (dmesg) time; what ``collect`` has seen there is noted in imported.json as long as it is there, so that a crash
which the archive's limits removed is not told once more.  A run killed anywhere leaves whole bundles; the next goes on.
"""

import os
import re
import stat
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import NamedTuple

from pstored import durable
from pstored.archive import SCHEMA, Archive, Harvest, Receipt, dump_json, load_json
from pstored.bundle import Earlier, describe, read_back, write_bundle
from pstored.config import Config
from pstored.errors import ArchiveError, StoreError
from pstored.host import Facts, Host
from pstored.parse.filename import split_record_name
from pstored.store import CHUNK, Digest, RecordReadError, Store, record_key
from pstored.terminal import some

SYSTEMD_PSTORE = "/var/lib/systemd/pstore"
KIND = "systemd-pstore"
MEMORY = "imported.json"
TEXT = "dmesg.txt"

MAX_DEPTH = 3
"""systemd-pstore makes two levels; one more for a directory with copies of several."""
MAX_ENTRIES = 50_000
"""So many files and directories are looked at; EFI space for as many records is in no machine."""
MAX_RECORD = 16 << 20
"""systemd-pstore takes no record of 4 MiB or more; a dmesg.txt may hold several."""
MAX_PASS = 32 << 20
"""Bytes archived in one pass; the rest is for the next, so that no archive is flooded at once."""
MAX_BUNDLES = 16
"""Likewise, bundles: so many records of one name."""

#   dmesg.txt up to v252 = (name ":" LF record)*; from v253 on = record*       write_dmesg(), append_dmesg()
_NAMED = re.compile(rb"(dmesg-[A-Za-z0-9_]{1,40}-[0-9]{1,20}):\n")
_HEADER = re.compile(rb"(?m)^[A-Z][a-z]{1,15}#[0-9]{1,20} Part ?[0-9]{1,20}\n")


def split_text(text: bytes) -> Iterator[tuple[str | None, bytes]]:
    """The records that a dmesg.txt was made from, and their names, where it has them; nothing of it is dropped."""
    is_named = _NAMED.match(text) is not None
    starts = {0, *(m.start() for m in (_NAMED if is_named else _HEADER).finditer(text))} if text else set()
    for start, end in pairwise([*sorted(starts), len(text)]):
        name = _NAMED.match(text, start)
        yield (None, text[start:end]) if name is None else (name[1].decode(), text[name.end() : end])


class Import(NamedTuple):
    """What one import did."""

    path: str
    harvests: tuple[str, ...]
    """The new bundles, oldest first."""
    archived: tuple[Receipt, ...]
    known: int
    """Records there that are, or were, in the archive."""
    notes: tuple[str, ...]
    """What else is to be known."""
    problems: tuple[str, ...]
    """What could not be imported, though it may be evidence: in the exit status."""


def import_systemd_pstore(host: Host, config: Config, path: str | None = None) -> Import | None:
    """Take what systemd-pstore has into the archive; None if it has nothing.

    Args:
        host: whose boot this is, and whose clock.
        config: where the archive is.
        path: a directory as systemd-pstore leaves it; None: the host's own, of which is remembered what was seen.

    Raises:
        StoreError: *path* cannot be listed.
        ArchiveError: the archive cannot be written, or does not read back.
    """
    top = host.path(SYSTEMD_PSTORE) if path is None else path
    try:
        with os.scandir(top) as entries:
            if next(entries, None) is None or host.is_crash_kernel():
                return None
    except FileNotFoundError:
        if path is None:
            return None
        raise StoreError(f"there is no {top!r}") from None
    except OSError as e:
        denied = isinstance(e, PermissionError)
        hint = "run as root" if denied else f"only a directory as {KIND} leaves it can be imported"
        raise StoreError(f"cannot list {top!r}: {e.strerror}", permission=denied, hint=hint) from e
    archive = Archive(host.path(config.archive.path))
    with archive.lock():
        return _Importer(host, archive, path).run()


class _Source(NamedTuple):
    """A record to be imported, and where its bytes are."""

    name: str
    """As in pstorefs."""
    path: str
    """Relative to the directory."""
    mtime_ns: int
    """The record's; 0 for what is taken out of a dmesg.txt."""
    data: bytes | None = None
    """If the file holds more than this record."""


class _Tree(Store):
    """What goes into one bundle, as a store: by the records' names, wherever they are."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.sources: dict[str, _Source] = {}

    def read(self, name: str) -> Iterator[bytes]:
        source = self.sources[name]
        return super().read(source.path) if source.data is None else iter((source.data,))

    def mtime_ns(self, name: str) -> int:
        source = self.sources[name]
        return super().mtime_ns(source.path) if source.data is None else source.mtime_ns


def _identity(name: str, key: str, mtime_ns: int) -> str:
    """What a record is known by: two crashes may leave equal bytes, but not at one time."""
    record = split_record_name(name)
    return key if record is None or record.type != "dmesg" else f"{key} {mtime_ns}"


def _facts(host: Host, *, is_own: bool) -> Facts:
    """Of the boot that took the records from the store nothing is known: this one's facts would mislead."""
    here = host.facts()
    return Facts(
        boot_id=None,
        machine_id=here.machine_id if is_own else None,
        kernel_release=None,
        kernel_version=None,
        cmdline=None,
        uptime_s=None,
        wall_ns=here.wall_ns,
        oops_count=None,
        tainted=None,
        backend=None,
    )


class _Importer:
    def __init__(self, host: Host, archive: Archive, path: str | None) -> None:
        self.archive = archive
        self.is_own = path is None
        self.top = host.path(SYSTEMD_PSTORE) if path is None else path
        self.path = SYSTEMD_PSTORE if path is None else os.path.abspath(path)
        self.facts = _facts(host, is_own=self.is_own)
        self.keys = archive.known_keys()
        self.earlier = Earlier(archive)
        self.remembered = self._remembered() if self.is_own else frozenset()
        self.known: set[str] = set()  # identities
        self.found: set[str] = set()  # identities, and keys
        self.trees: list[_Tree] = []  # the newest record of each name in the first, and so on
        self.size = 0
        self.notes: dict[str, list[str]] = {}  # what there is to say, of which files
        self.problems: dict[str, list[str]] = {}

    def run(self) -> Import:
        records, texts = self._scan()
        for source in records:
            self._sort_out(source)
        with_dmesg = {os.path.dirname(s.path) for s in records if s.name.startswith("dmesg-")}
        for text in texts:
            for piece in self._split(text, is_alone=os.path.dirname(text) not in with_dmesg):
                self._sort_out(piece)
        count = len(self.known)
        bundles = []
        for tree in reversed(self.trees):
            with durable.archive_errors("write to", self.archive.harvests):
                bundle = self._write_bundle(tree)
            if bundle is not None:
                read_back(self.archive, bundle)
                self.archive.add_to_index(bundle)
                bundles.append(bundle)
        receipts = [r for bundle in bundles for r in bundle.receipts]
        self.known.update(_identity(r.name, r.key, r.mtime_ns) for r in receipts)
        if self.known != self.remembered:
            self.archive.flush_names(harvests=not bundles)
            if self.is_own:
                document = {"schema": SCHEMA, "path": self.path, "records": sorted(self.known)}
                self.archive.write(self.archive.path, {MEMORY: dump_json(document)})
        return Import(
            path=self.path,
            harvests=tuple(bundle.id for bundle in bundles),
            archived=tuple(receipts),
            known=count,
            notes=(*self.earlier.warnings, *_sentences(self.notes)),
            problems=_sentences(self.problems),
        )

    # -- what is there

    def _scan(self) -> tuple[list[_Source], list[str]]:
        """The records, newest first; and the paths of dmesg.txt files."""
        records: list[_Source] = []
        texts: list[str] = []
        waiting = [""]
        left = MAX_ENTRIES
        while waiting and left >= 0:
            where = waiting.pop()
            try:
                with os.scandir(os.path.join(self.top, where)) as entries:
                    listed = list(islice(entries, left + 1))
            except OSError as e:
                if not isinstance(e, FileNotFoundError):
                    _say(self.problems, f"cannot be listed: {e.strerror}", where)
                continue
            left -= len(listed)
            for entry in listed:
                path = os.path.join(where, entry.name)
                try:
                    state = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # vanished
                is_file = stat.S_ISREG(state.st_mode)
                if stat.S_ISDIR(state.st_mode) and path.count("/") < MAX_DEPTH:
                    waiting.append(path)
                elif is_file and state.st_size > MAX_RECORD:
                    _say(self.notes, f"left out, larger than {MAX_RECORD} bytes", path)
                elif is_file and entry.name == TEXT:
                    texts.append(path)
                elif is_file and split_record_name(entry.name) is not None:
                    records.append(_Source(entry.name, path, state.st_mtime_ns))
                else:
                    _say(self.notes, "left out, no record that systemd-pstore would leave there", path)
        if left < 0:
            _say(self.problems, f"more than {MAX_ENTRIES} entries, not all looked at", self.path)
        return sorted(records, key=lambda s: (-s.mtime_ns, s.path)), sorted(texts)

    def _split(self, path: str, *, is_alone: bool) -> Iterator[_Source]:
        """The records in a dmesg.txt; those without a name only if it *is_alone*, with no dmesg record beside it."""
        try:
            text = b"".join(islice(Store(self.top).read(path), MAX_RECORD // CHUNK))
        except RecordReadError as e:
            self._unreadable(path, e)
            return
        for number, (name, data) in enumerate(split_text(text), 1):
            if name is not None or is_alone:
                yield _Source(name or f"{path.replace('/', '-')}.{number}", path, 0, data)

    # -- what is new

    def _sort_out(self, source: _Source) -> None:
        digest = Digest()
        try:
            if source.data is None:
                digest = Store(self.top).digest(source.path)
            else:
                digest.update(source.data)
        except RecordReadError as e:
            self._unreadable(source.path, e)
            return
        key = record_key(source.name, digest)
        identity = _identity(source.name, key, source.mtime_ns)
        if (key if source.data is not None else identity) in self.found:
            return  # a copy, or what dmesg.txt was made from
        self.found.update((key, identity))
        if identity in self.remembered or self._is_archived(source, key, identity):
            self.known.add(identity)
        elif not self._place(source, digest.size):
            _say(self.problems, "left for the next import, being too many for one", source.path)

    def _is_archived(self, source: _Source, key: str, identity: str) -> bool:
        return any(
            0 in (source.mtime_ns, r.mtime_ns) or _identity(r.name, r.key, r.mtime_ns) == identity
            for harvest_id in self.keys.get(key, ())
            for r in self.earlier.receipts(harvest_id, key)
        )

    def _place(self, source: _Source, size: int) -> bool:
        """Put a record into the first bundle that has none of its name; not if there is no room."""
        if self.size + size > MAX_PASS:
            return False
        tree = next((t for t in self.trees if source.name not in t.sources), None)
        if tree is None:
            if len(self.trees) == MAX_BUNDLES:
                return False
            tree = _Tree(self.top)
            self.trees.append(tree)
        tree.sources[source.name] = source
        self.size += size
        if source.data is not None:
            _say(self.notes, f"in no file of its own, taken out of {source.path}", source.name)
        return True

    def _unreadable(self, path: str, e: RecordReadError) -> None:
        if not e.vanished:
            _say(self.problems, str(e), path)

    # -- the archive

    def _write_bundle(self, tree: _Tree) -> Harvest | None:
        files = {name: source.path for name, source in tree.sources.items()}
        return write_bundle(
            self.archive,
            tree,
            sorted(tree.sources),
            wall_ns=self.facts.wall_ns,
            describe=describe(self.facts, store={"path": self.path, "kind": KIND, "files": files}),
            unreadable=lambda name, e: self._unreadable(tree.sources[name].path, e),
        )

    def _remembered(self) -> frozenset[str]:
        """What an earlier import has seen here; lost, it is found out from the archive."""
        try:
            records = load_json(os.path.join(self.archive.path, MEMORY))["records"]
            return frozenset(r for r in records if isinstance(r, str))
        except (ArchiveError, KeyError, TypeError):
            return frozenset()


def _say(what: dict[str, list[str]], sentence: str, path: str) -> None:
    what.setdefault(sentence, []).append(path)


def _sentences(what: dict[str, list[str]]) -> tuple[str, ...]:
    return tuple(f"{some(sorted(paths))}: {sentence}" for sentence, paths in what.items())
