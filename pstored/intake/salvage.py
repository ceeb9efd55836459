# SPDX-License-Identifier: Apache-2.0
"""The import of files, devices and directories: what the readers find in them, into the archive.

The kind of a file is told by its bytes.  A directory is looked through: what systemd-pstore leaves there by name, all
else by content.  Each file is a bundle of its own, so that nothing is taken to be of one machine which is not; but for
formats whose files belong together.

Nothing of where it came from is changed.  The records may be another machine's: no boot is named by elimination.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from typing import NamedTuple

from pstored.archive import Archive, Receipt
from pstored.bundle import describe
from pstored.config import Config
from pstored.errors import StoreError
from pstored.host import Host
from pstored.intake import systemdpstore
from pstored.intake.bundles import LEFT, Fate, Import, Intake, Offer, foreign_facts, make_offer, said_of
from pstored.intake.sources import STANDARD_INPUT, Opened, open_source
from pstored.intake.tree import Sayings
from pstored.readers import KINDS, load
from pstored.readers.memory import Window
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source
from pstored.store import RecordReadError

logger = logging.getLogger(__name__)
UNKNOWN = "nothing in it that pstored knows how to read"


class Wanted(NamedTuple):
    """How to import."""

    kind: str | None = None
    """Of what format it all is; None: told by the bytes."""
    options: Options = Options()
    offset: int = 0
    """Where in each file to begin."""
    size: int | None = None
    """How many bytes from there on count; None: all."""
    only_list: bool = False
    """Write nothing."""


def import_path(host: Host, config: Config, path: str, wanted: Wanted) -> Iterator[Import]:
    """Take what is in a file, a device, a directory, or standard input (``-``) into the archive, bundle by bundle.

    Raises:
        StoreError: *path* cannot be opened, or listed.
        ArchiveError: the archive cannot be written, or does not read back.
    """
    if host.is_crash_kernel():
        return
    salvager = _Salvager(host, config, wanted)
    if wanted.kind == systemdpstore.KIND or (path != STANDARD_INPUT and os.path.isdir(path)):
        yield from salvager.directory(path)
    else:
        yield salvager.file(path)


class _Salvager:
    def __init__(self, host: Host, config: Config, wanted: Wanted) -> None:
        self.host = host
        self.config = config
        self.wanted = wanted
        self.archive = Archive(host.path(config.archive.path))

    # -- what is there

    def file(self, path: str) -> Import:
        """One that was named, so that it must be something."""
        with closing(self._open(path)) as opened:
            kind = self._kind_of(opened)
            if kind is not None:
                return self._take([opened], _shown(path), kind)
        problems = Sayings()
        problems.say(f"{UNKNOWN}: if it is of a kind, say which (--as)", _shown(path))
        return Import(_shown(path), None, (), (), 0, (), problems.sentences())

    def directory(self, top: str) -> Iterator[Import]:
        """What systemd-pstore left, and then the rest, file by file."""
        others: list[str] = []
        by_name = self.wanted.kind in (None, systemdpstore.KIND)
        done = systemdpstore.import_systemd_pstore(
            self.host,
            self.config,
            top,
            others=None if self.wanted.kind == systemdpstore.KIND else others,
            only_list=self.wanted.only_list or not by_name,
        )
        if done is not None and by_name and (done.listed or done.problems or not others):
            yield done
        notes, problems = Sayings(), Sayings()
        together: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in sorted(others):
            path = os.path.join(top, name)
            try:
                with closing(self._open(path)) as opened:
                    kind = self._kind_of(opened)
                    if kind is None:
                        notes.say(f"left out, {UNKNOWN}", name)
                    elif load(kind).together:
                        together[os.path.dirname(path), kind].append(path)
                    else:
                        yield self._take([opened], _shown(path), kind)
            except StoreError as e:
                problems.say(str(e), name)
        for (directory, kind), paths in together.items():
            yield self._take(self._each(paths, problems), _shown(directory), kind)
        if notes.sentences() or problems.sentences():
            yield Import(_shown(top), None, (), (), 0, notes.sentences(), problems.sentences())

    def _open(self, path: str) -> Opened:
        end = None if self.wanted.size is None else self.wanted.offset + self.wanted.size
        return open_source(path, end)

    def part(self, opened: Opened) -> Source:
        """What of it counts."""
        wanted = self.wanted
        return opened if not wanted.offset and wanted.size is None else Window(opened, wanted.offset, wanted.size)

    def _kind_of(self, opened: Opened) -> str | None:
        if self.wanted.kind is not None:
            return self.wanted.kind
        part = self.part(opened)
        return next((k for k, kind in KINDS.items() if kind.module and recognizes(load(k), k, part)), None)

    def _each(self, paths: Iterable[str], problems: Sayings) -> Iterator[Opened]:
        """One after the other, each open only until the next."""
        for path in paths:
            try:
                with closing(self._open(path)) as opened:
                    yield opened
            except StoreError as e:
                problems.say(str(e), path)

    # -- into the archive

    def _take(self, sources: Iterable[Opened], shown: str, kind: str) -> Import:
        with nullcontext() if self.wanted.only_list else self.archive.lock():
            return _Taking(self, shown, kind).run(sources)


class _Taking:
    """What goes into one import: one file, or several that belong together."""

    def __init__(self, salvager: _Salvager, shown: str, kind: str) -> None:
        self.salvager = salvager
        self.shown = shown
        self.kind = kind
        self.facts = foreign_facts(salvager.host, is_own=False)
        self.intake = Intake(salvager.archive)
        self.sources: list[dict[str, object]] = []
        self.files: dict[str, str] = {}  # record to file
        self.notes = Sayings()
        self.problems = Sayings()

    def run(self, sources: Iterable[Opened]) -> Import:
        only_list = self.salvager.wanted.only_list
        for opened in sources:
            self._read(opened)
            if not only_list:
                self.sources.append(opened.facts())
        count = len(self.intake.known)
        bundles = [] if only_list else self.intake.write(self.facts, self._describe, self._unreadable)
        if not only_list:
            self.salvager.archive.flush_names(harvests=not bundles)
        return Import(
            path=self.shown,
            kind=self.kind,
            harvests=tuple(bundle.id for bundle in bundles),
            archived=tuple(r for bundle in bundles for r in bundle.receipts),
            known=count,
            notes=(*self.intake.warnings, *self.notes.sentences()),
            problems=self.problems.sentences(),
            listed=tuple(self.intake.listed),
        )

    def _read(self, opened: Opened) -> None:
        name = os.path.basename(opened.name) or "standard input"
        for remark in opened.remarks:
            self._say(remark, name)
        for found in everything(load(self.kind), self.kind, self.salvager.part(opened), self.salvager.wanted.options):
            if isinstance(found, Remark):
                self._say(found, name)
            else:
                self._offer(found, name)
        if opened.problem is not None:
            self.problems.say(opened.problem, name)

    def _say(self, remark: Remark, name: str) -> None:
        (self.problems if remark.is_damage else self.notes).say(remark.text, name)

    def _offer(self, found: Salvaged, file: str) -> None:
        if self.intake.offer(make_offer(found)) is Fate.LEFT:
            self.problems.say(LEFT, found.name)
        self.files.setdefault(found.name, file)

    def _unreadable(self, offer: Offer, e: RecordReadError) -> None:
        raise AssertionError(f"{offer.name} is in memory: {e}")

    def _describe(self, offers: dict[str, Offer]) -> Callable[[str, list[Receipt]], dict[str, object]]:
        wanted = self.salvager.wanted
        store: dict[str, object] = {"path": self.shown, "kind": self.kind, "sources": self.sources}
        if len(self.sources) > 1:
            store["files"] = {name: self.files[name] for name in offers}
        if wanted.options.parameters:
            store["parameters"] = dict(wanted.options.parameters)
        if wanted.offset or wanted.size is not None:
            store |= {"offset": wanted.offset, "size": wanted.size}
        store["remarks"] = [*self.notes.sentences(), *self.problems.sentences()]
        return describe(self.facts, store=store, said=said_of(offers))


def _shown(path: str) -> str:
    return "standard input" if path == STANDARD_INPUT else os.path.abspath(path)


def recognizes(reader: Reader, kind: str, source: Source) -> bool:
    try:
        return reader.recognize(source)
    except Exception:  # whatever is in it, the other readers may know it
        logger.exception("whether it is of kind %s cannot be told (a bug in pstored: please report it)", kind)
        return False


def everything(reader: Reader, kind: str, source: Source, options: Options) -> Iterator[Salvaged | Remark]:
    """What a reader gives; what it gave before it failed counts."""
    try:
        yield from reader.read(source, options)
    except Exception as e:  # whatever is in it, what was found so far is archived
        logger.debug("reading %s", kind, exc_info=True)
        what = f"reading it as {kind} ended early: {type(e).__name__}: {e} (a bug in pstored: please report it)"
        yield Remark(what, is_damage=True)
