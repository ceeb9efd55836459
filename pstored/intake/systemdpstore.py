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
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice, pairwise

from pstored.archive import SCHEMA, Archive, Harvest, Receipt
from pstored.bundle import describe
from pstored.config import Config
from pstored.documents import dump_json, recall
from pstored.errors import StoreError
from pstored.host import Host
from pstored.intake.bundles import LEFT, Fate, Import, Intake, Offer, foreign_facts
from pstored.intake.tree import Sayings, walk
from pstored.parse.filename import split_record_name
from pstored.store import CHUNK, MemoryStore, RecordReadError, Store

SYSTEMD_PSTORE = "/var/lib/systemd/pstore"
KIND = "systemd-pstore"
MEMORY = "imported.json"
TEXT = "dmesg.txt"

MAX_RECORD = 16 << 20
"""systemd-pstore takes no record of 4 MiB or more; a dmesg.txt may hold several."""
#   dmesg.txt up to v252 = (name ":" LF record)*; from v253 on = record*       write_dmesg(), append_dmesg()
_NAMED = re.compile(rb"(dmesg-[A-Za-z0-9_]{1,40}-[0-9]{1,20}):\n")
_LINE = re.compile(rb"\[ {0,4}[0-9]{1,10}\.[0-9]{6}\] ")
_HEADER = re.compile(rb"(?m)^[A-Z][a-z]{1,15}#[0-9]{1,20} Part ?[0-9]{1,20}\n")


def split_text(text: bytes) -> Iterator[tuple[str | None, bytes]]:
    """The records that a dmesg.txt was made from, and their names, where it has them; nothing of it is dropped."""
    is_named = _NAMED.match(text) is not None
    starts = {0, *(m.start() for m in (_NAMED if is_named else _HEADER).finditer(text))} if text else set()
    for start, end in pairwise([*sorted(starts), len(text)]):
        name = _NAMED.match(text, start)
        yield (None, text[start:end]) if name is None else (name[1].decode(), text[name.end() : end])


def import_systemd_pstore(
    host: Host, config: Config, path: str | None = None, *, others: list[str] | None = None, only_list: bool = False
) -> Import | None:
    """Take what systemd-pstore has into the archive; None if it has nothing.

    Args:
        host: whose boot this is, and whose clock.
        config: where the archive is.
        path: a directory as systemd-pstore leaves it; None: the host's own, of which is remembered what was seen.
        others: gets the plain files there that are none of its; without, they are in the notes.
        only_list: write nothing.

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
    with nullcontext() if only_list else archive.lock():
        return _Importer(host, archive, path, others).run(only_list=only_list)


class _Importer:
    def __init__(self, host: Host, archive: Archive, path: str | None, others: list[str] | None) -> None:
        self.archive = archive
        self.others = others
        self.is_own = path is None
        self.top = host.path(SYSTEMD_PSTORE) if path is None else path
        self.path = SYSTEMD_PSTORE if path is None else os.path.abspath(path)
        self.store = Store(self.top)
        self.facts = foreign_facts(host, is_own=self.is_own)
        self.remembered = self._remembered() if self.is_own else frozenset()
        self.intake = Intake(archive, self.remembered)
        self.notes = Sayings()
        self.problems = Sayings()

    def run(self, *, only_list: bool) -> Import:
        records, texts = self._scan()
        for offer in records:
            self._offer(offer, offer.path)
        with_dmesg = {os.path.dirname(o.path) for o in records if o.name.startswith("dmesg-")}
        for text in texts:
            for piece in self._split(text, is_alone=os.path.dirname(text) not in with_dmesg):
                if self._offer(piece, text) is Fate.NEW:
                    self.notes.say(f"in no file of its own, taken out of {text}", piece.name)
        count = len(self.intake.known)
        bundles = [] if only_list else self._write()
        return Import(
            path=self.path,
            kind=KIND,
            harvests=tuple(bundle.id for bundle in bundles),
            archived=tuple(r for bundle in bundles for r in bundle.receipts),
            known=count,
            notes=(*self.intake.warnings, *self.notes.sentences()),
            problems=self.problems.sentences(),
            listed=tuple(self.intake.listed),
        )

    def _write(self) -> list[Harvest]:
        bundles = self.intake.write(self.facts, self._describe, lambda o, e: self._unreadable(o.path, e))
        if self.intake.known != self.remembered:
            self.archive.flush_names(harvests=not bundles)
            if self.is_own:
                document = {"schema": SCHEMA, "path": self.path, "records": sorted(self.intake.known)}
                self.archive.write(self.archive.path, {MEMORY: dump_json(document)})
        return bundles

    # -- what is there

    def _scan(self) -> tuple[list[Offer], list[str]]:
        """The records, newest first; and the paths of dmesg.txt files."""
        records: list[Offer] = []
        texts: list[str] = []
        for path, state in walk(self.top, self.problems):
            is_file = stat.S_ISREG(state.st_mode)
            name = os.path.basename(path)
            is_known = is_file and (name == TEXT or split_record_name(name) is not None)
            if is_file and not is_known and self.others is not None:
                self.others.append(path)
            elif is_file and state.st_size > MAX_RECORD:
                self.notes.say(f"left out, larger than {MAX_RECORD} bytes", path)
            elif not is_known:
                self.notes.say("left out, no record that systemd-pstore would leave there", path)
            elif name == TEXT:
                (texts if self.others is None or self._is_of_records(path) else self.others).append(path)
            else:
                records.append(Offer(name, self.store, path, state.st_mtime_ns))
        return sorted(records, key=lambda o: (-o.mtime_ns, o.path)), sorted(texts)

    def _is_of_records(self, path: str) -> bool:
        """Whether a dmesg.txt can be systemd-pstore's: kdump's on SUSE begins with a line of the log."""
        try:
            return _LINE.match(next(self.store.read(path), b"")) is None
        except RecordReadError:
            return True

    def _split(self, path: str, *, is_alone: bool) -> Iterator[Offer]:
        """The records in a dmesg.txt; those without a name only if it *is_alone*, with no dmesg record beside it."""
        try:
            text = b"".join(islice(self.store.read(path), MAX_RECORD // CHUNK))
        except RecordReadError as e:
            self._unreadable(path, e)
            return
        for number, (name, data) in enumerate(split_text(text), 1):
            if name is None and not is_alone:
                continue
            name = name or f"{path.replace('/', '-')}.{number}"
            yield Offer(name, MemoryStore({name: data}), name, 0)

    def _offer(self, offer: Offer, path: str) -> Fate | None:
        try:
            fate = self.intake.offer(offer)
        except RecordReadError as e:
            self._unreadable(path, e)
            return None
        if fate is Fate.LEFT:
            self.problems.say(LEFT, path)
        return fate

    def _unreadable(self, path: str, e: RecordReadError) -> None:
        if not e.vanished:
            self.problems.say(str(e), path)

    # -- the archive

    def _describe(self, offers: dict[str, Offer]) -> Callable[[str, list[Receipt]], dict[str, object]]:
        files = {name: offer.path for name, offer in offers.items()}
        return describe(self.facts, store={"path": self.path, "kind": KIND, "files": files})

    def _remembered(self) -> frozenset[str]:
        """What an earlier import has seen here; lost, it is found out from the archive."""
        records = recall(os.path.join(self.archive.path, MEMORY)).get("records")
        return frozenset(r for r in records if isinstance(r, str)) if isinstance(records, list) else frozenset()
