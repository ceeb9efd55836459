# SPDX-License-Identifier: Apache-2.0
r"""What kdump has saved on this machine: the log of each crash, into the archive.

Nothing is moved or removed there; of a memory dump the report says where it lies, its size and its fingerprint.  Each
crash is a directory (kernel-formats 11.4)::

    /var/crash/202611230418/                        kdump-tools: dump.202611230418  dmesg.202611230418
    /var/crash/127.0.0.1-2026-11-23-04:18:57/       kdump-utils: vmcore  vmcore-dmesg.txt  kexec-dmesg.log
    /var/crash/2026-11-23-04:18/                    SUSE: vmcore  dmesg.txt  README.txt

The log is read from the dump, which has it whole, with levels; if that fails, or would take long, it is the text beside
it.  A file named ``incomplete`` is being written, or kdump died over it: it is left alone until it has not changed from
one look to the next, or since this boot began.

What was looked at is noted in kdump.json, so that a crash which the archive's limits removed is not told once more.
"""

import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from pstored.archive import SCHEMA, Archive, Receipt
from pstored.bundle import describe
from pstored.config import Config
from pstored.documents import dump_json, recall
from pstored.errors import StoreError
from pstored.host import Host
from pstored.intake.bundles import LEFT, Fate, Import, Intake, Offer, foreign_facts, make_offer, said_of
from pstored.intake.tree import Sayings, walk

if TYPE_CHECKING:
    from pstored.intake.sources import Opened
    from pstored.readers.model import Salvaged

KIND = "kdump"
MEMORY = "kdump.json"
TAKEN, WAITING = "taken", "waiting"
"""In kdump.json, of a crash as its files are now."""
MAX_CRASHES = 32
"""In one run; a machine that has crashed for years takes several."""
MAX_PIECES = 1 << 18
"""Of a flattened dump so many are looked at for the log: 8 GiB of it, some seconds.  Most logs lie in the first."""

_DUMP = re.compile(
    r"(?:vmcore|dump)(?P<incomplete>-incomplete)?(?:\.flat)?(?:\.\d{8,14})?(?P<packed>\.(?:gz|bz2|lz4|xz|zst))?"
)
_TEXT = re.compile(r"vmcore-dmesg(?P<incomplete>-incomplete)?\.txt|dmesg\.(?:\d{8,14}|txt)")


def collect_kdump(host: Host, config: Config) -> Import | None:
    """Take the logs of the crashes that kdump has saved into the archive; None if there is nothing new.

    Raises:
        ArchiveError: the archive cannot be written, or does not read back.
    """
    top = host.path(config.kdump.path)
    if not config.kdump.enabled or host.is_crash_kernel() or not os.path.isdir(top):
        return None
    return _Collector(host, config).run()


class _File(NamedTuple):
    """A file of a crash."""

    path: str
    """Relative to the top."""
    size: int
    mtime_ns: int
    is_dump: bool
    is_packed: bool
    is_incomplete: bool


class _Crash(NamedTuple):
    """A directory with files of one."""

    name: str
    """Relative to the top."""
    files: tuple[_File, ...]

    def signature(self) -> list[list[object]]:
        """What it is known by."""
        return [[f.path, f.size, f.mtime_ns] for f in self.files]


class _Collector:
    def __init__(self, host: Host, config: Config) -> None:
        self.archive = Archive(host.path(config.archive.path))
        self.path = config.kdump.path
        self.top = host.path(self.path)
        self.facts = foreign_facts(host, is_own=True)
        self.began_ns = self.facts.wall_ns - int((host.uptime_s() or 0.0) * 1e9)
        self.notes = Sayings()
        self.problems = Sayings()

    def run(self) -> Import | None:
        crashes = self._scan()
        remembered = self._remembered()
        new = [c for c in crashes if remembered.get(c.name) != [TAKEN, c.signature()]]
        if not new and {c.name for c in crashes} == set(remembered) and not self.problems.sentences():
            return None
        seen = {c.name: known for c in crashes if (known := remembered.get(c.name)) is not None}
        with self.archive.lock():
            self.intake = Intake(self.archive)
            for crash in new[:MAX_CRASHES]:
                state = self._look(crash, remembered.get(crash.name))
                if state is None:
                    seen.pop(crash.name, None)
                else:
                    seen[crash.name] = [state, crash.signature()]
            for crash in new[MAX_CRASHES:]:
                self.problems.say(LEFT, os.path.join(self.path, crash.name))
            bundles = self.intake.write(self.facts, self._describe, lambda _offer, _error: None)
            self.archive.flush_names(harvests=not bundles)
            document = {"schema": SCHEMA, "path": self.path, "crashes": seen}
            self.archive.write(self.archive.path, {MEMORY: dump_json(document)})
        return Import(
            path=self.path,
            kind=KIND,
            harvests=tuple(bundle.id for bundle in bundles),
            archived=tuple(r for bundle in bundles for r in bundle.receipts),
            known=sum(listed.fate is Fate.KNOWN for listed in self.intake.listed),
            notes=(*self.intake.warnings, *self.notes.sentences()),
            problems=self.problems.sentences(),
            listed=tuple(self.intake.listed),
        )

    # -- what is there

    def _scan(self) -> list[_Crash]:
        """The crashes, newest first; what other programs have put there is passed over.

        So is what other users have put there: Ubuntu's /var/crash is open to all.
        """
        found: dict[str, list[_File]] = defaultdict(list)
        for path, state in walk(self.top, self.problems):
            name = os.path.basename(path)
            named = _TEXT.fullmatch(name) or _DUMP.fullmatch(name)
            if named is not None and stat.S_ISREG(state.st_mode) and state.st_uid in (0, os.geteuid()):
                is_dump = named.re is _DUMP
                file = _File(
                    path=path,
                    size=state.st_size,
                    mtime_ns=state.st_mtime_ns,
                    is_dump=is_dump,
                    is_packed=is_dump and named["packed"] is not None,
                    is_incomplete=named["incomplete"] is not None,
                )
                found[os.path.dirname(path)].append(file)
        crashes = [_Crash(name, tuple(sorted(files))) for name, files in found.items()]
        return sorted(crashes, key=lambda c: (-max(f.mtime_ns for f in c.files), c.name))

    def _remembered(self) -> dict[str, list[object]]:
        """What an earlier look has seen; lost, it is found out from the archive."""
        try:
            document = recall(os.path.join(self.archive.path, MEMORY))
            crashes = document["crashes"] if document["path"] == self.path else {}
            return {name: known for name, known in crashes.items() if isinstance(known, list)}
        except (KeyError, TypeError, AttributeError):
            return {}

    # -- one crash

    def _look(self, crash: _Crash, known: list[object] | None) -> str | None:
        """Take it, or leave it for the next look; None: as if it had not been seen."""
        where = os.path.join(self.path, crash.name).rstrip("/")
        fresh = any(f.is_incomplete and f.mtime_ns >= self.began_ns for f in crash.files)
        if fresh and known != [WAITING, crash.signature()]:
            self.notes.say("is being written, it seems: left alone until the next look", where)
            return WAITING
        # the best first: a dump that is whole, then one that is not; then the text
        order = sorted(crash.files, key=lambda f: (not f.is_dump, f.is_incomplete, f.path))
        about = tuple(self._about(f) for f in order if f.is_dump)
        why: list[str] = []
        has_log = False
        for file in order:
            found = None if file.is_packed else self._read(file, why)
            if found is None:
                continue
            has_log = True
            notes = (*found.notes, *(f"not read from {reason}" for reason in why), *about)
            if not self._offer(found._replace(notes=notes), file):
                return None
            if not found.damage:
                break
        if not has_log:
            for reason in why or ["it is packed"]:
                self.problems.say(f"no log can be had: {reason}", where)
        return TAKEN

    def _read(self, file: _File, why: list[str]) -> "Salvaged | None":
        """The log that a file holds; or why it holds none."""
        from pstored.intake.sources import open_source

        try:
            with closing(open_source(os.path.join(self.top, file.path), unpacked=False)) as opened:
                return self._log(opened, file, why)
        except StoreError as e:
            why.append(str(e))
        return None

    def _log(self, opened: "Opened", file: _File, why: list[str]) -> "Salvaged | None":
        from pstored.intake.salvage import everything, recognizes
        from pstored.readers.kdump import dmesgtext, vmcore
        from pstored.readers.model import Options, Remark

        name = os.path.basename(file.path)
        reader = vmcore.quick(MAX_PIECES) if file.is_dump else dmesgtext.READER._replace(recognize=dmesgtext.is_log)
        if not recognizes(reader, KIND, opened):
            why.append(f"{name}: it is no {'vmcore' if file.is_dump else 'log'}")
            return None
        log = None
        for found in everything(reader, KIND, opened, Options()):
            if isinstance(found, Remark):
                why.append(f"{name}: {found.text}")
            else:
                log = found
        if opened.problem is not None:
            why.append(f"{name}: {opened.problem}")
        if log is not None and not log.data:
            why.append(f"{name}: no message in it")
            return None
        if log is not None and file.is_dump and file.is_incomplete:
            log = log._replace(damage=(*log.damage, "kdump did not write the dump to its end"))
        return log

    def _about(self, file: _File) -> str:
        """Where a dump lies, and how to know it again."""
        from pstored.intake.sources import open_source

        what = f"the memory dump is {os.path.join(self.path, file.path)}, {file.size} bytes"
        try:
            with closing(open_source(os.path.join(self.top, file.path), unpacked=False)) as opened:
                return f"{what}, fingerprint {opened.fingerprint()}"
        except StoreError as e:
            return f"{what}; {e}"

    def _offer(self, found: "Salvaged", file: _File) -> bool:
        """Whether it was taken, or is known."""
        is_taken = self.intake.offer(make_offer(found)) is not Fate.LEFT
        if not is_taken:
            self.problems.say(LEFT, file.path)
        return is_taken

    def _describe(self, offers: dict[str, Offer]) -> Callable[[str, list[Receipt]], dict[str, object]]:
        store: dict[str, object] = {"path": self.path, "kind": KIND}
        return describe(self.facts, store=store, said=said_of(offers))
