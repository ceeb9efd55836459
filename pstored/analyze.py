# SPDX-License-Identifier: Apache-2.0
"""The analysis: from the archive's harvests to crashes.  All it writes can be made again.

Harvests are taken in the order of their ids, each onto what the earlier ones gave, so that doing it again from the
beginning (``pstored analyze --all``) gives the same crashes under the same ids.  A harvest may bring more of a crash
that is already there (an oops that was archived before its boot panicked, a part that could not be read at first):
then that crash is made anew from all its records, as a new revision.
"""

import hashlib
import logging
import os
from collections.abc import Iterable
from typing import NamedTuple

from pstored import __version__, durable
from pstored.archive import SCHEMA, Archive, dump_json
from pstored.archive import Harvest as Bundle
from pstored.boots import Attribution, Boot, Question, attribute, format_ledger, parse_ledger, see_boot
from pstored.config import Config
from pstored.crash import find_crash, texts
from pstored.dumps import assemble
from pstored.errors import ArchiveError
from pstored.host import Facts
from pstored.incidents import Incident, group
from pstored.oops import Event
from pstored.outbox import Outbox, enabled_sinks
from pstored.parse.record import Record, decode_record
from pstored.report import FileReport, Report, build

logger = logging.getLogger(__name__)
LEDGER = "boots.jsonl"
RECENT = 10
"""So many of the newest crashes may still grow by a harvest whose boot is not named."""


class Found(NamedTuple):
    """What one run of the analysis found."""

    crashes: tuple[str, ...]
    """New ones, and those with a new revision; oldest first."""
    notes: tuple[str, ...]
    """What was in the store and is no crash."""


# -- the ledger


def read_ledger(archive: Archive) -> list[Boot]:
    """The boots seen, oldest first; empty if there is no ledger."""
    try:
        with open(os.path.join(archive.path, LEDGER), "rb") as f:
            return parse_ledger(f.read())
    except OSError:
        return []


def note_boot(archive: Archive, facts: Facts, *, stamped: bool) -> None:
    """Write the running boot into the ledger; the caller holds the archive's lock."""
    before = read_ledger(archive)
    ledger = see_boot(before, facts, stamped=stamped)
    if ledger != before:
        durable.replace_files(archive.path, {LEDGER: format_ledger(ledger)})


# -- harvests into crashes


def analyze(archive: Archive, config: Config, *, again: bool = False, touched: Iterable[str] = ()) -> Found:
    """Take every harvest that has no analysis yet; the caller holds the archive's lock.

    Args:
        archive: where.
        config: for the stamp's prefix and the sinks.
        again: do all harvests anew.
        touched: harvests whose erased.json has changed: the crashes with records of theirs are written anew.
    """
    analyzer = _Analyzer(archive, config)
    todo = archive.harvest_ids() if again else archive.unanalyzed()
    for harvest_id in todo:
        analyzer.take(harvest_id, again=again)
    analyzer.refresh(set(touched) - set(todo))
    if again:
        analyzer.remove_stale()
    return Found(tuple(analyzer.changed), tuple(analyzer.notes))


class _Crash(NamedTuple):
    """What is known of a crash in the archive without reading its records."""

    id: str
    revision: int
    order: int
    boot_id: str | None
    complete: bool
    harvests: tuple[str, ...]


class _Analyzer:
    def __init__(self, archive: Archive, config: Config) -> None:
        self.archive = archive
        self.config = config
        self.ledger = read_ledger(archive)
        self.outbox = Outbox(archive)
        self.changed: list[str] = []
        self.notes: list[str] = []
        self.made: dict[str, _Crash] = {}  # in this run
        self._bundles: dict[str, Bundle] = {}
        self._earlier: list[_Crash] | None = None

    def take(self, harvest_id: str, *, again: bool) -> None:
        """Analyze one harvest; whatever goes wrong is noted, and stops nothing else."""
        try:
            crashes, notes = self._analyze(harvest_id, again=again)
        except ArchiveError as e:
            crashes, notes = [], [f"not analyzed: {e}"]
            logger.error("harvest %s cannot be analyzed: %s", harvest_id, e)
        self.notes += notes
        document = {"schema": SCHEMA, "pstored": __version__, "crashes": crashes, "notes": notes}
        durable.replace_files(self.archive.harvest_directory(harvest_id), {"analyzed.json": dump_json(document)})

    def _analyze(self, harvest_id: str, *, again: bool) -> tuple[list[str], list[str]]:
        records = self._records(harvest_id)
        crashes: list[str] = []
        notes: list[str] = []
        order = 0
        for incident in group(records, stamp_prefix=self.config.boots.stamp_prefix):
            event = find_crash(incident)
            if event is None:
                notes += [_no_crash(incident)]
                continue
            boot = self._attribute(incident, harvest_id)
            older = self._find_older(incident, boot, harvest_id, again=again)
            if older is None:
                crash = self._write(incident, event, boot, crash_id=self._new_id(incident, harvest_id), order=order)
                order += 1
            else:
                crash = self._grow(older, incident, harvest_id) or older.id
            crashes.append(crash)
        return crashes, notes

    # -- records

    def _bundle(self, harvest_id: str) -> Bundle:
        if harvest_id not in self._bundles:
            self._bundles[harvest_id] = self.archive.load_harvest(harvest_id)
        return self._bundles[harvest_id]

    def _records(self, harvest_id: str) -> list[Record]:
        receipts = {r.name: r for r in self._bundle(harvest_id).receipts}
        found = []
        for member, data in self.archive.read_records(harvest_id):
            receipt = receipts.get(member.name)
            if receipt is None:
                continue
            found.append(
                decode_record(
                    member.name,
                    data,
                    mtime_ns=receipt.mtime_ns,
                    harvest_id=harvest_id,
                    sha256=receipt.sha256,
                    error=receipt.error,
                )
            )
        return found

    # -- boots

    def _attribute(self, incident: Incident, harvest_id: str) -> Attribution:
        collecting_boot = self._bundle(harvest_id).facts.get("boot_id")
        ids = [boot.boot_id for boot in self.ledger]
        # boots after the collecting one cannot be meant, and must not change the answer when all is done again
        known = self.ledger[: ids.index(collecting_boot) + 1] if collecting_boot in ids else self.ledger
        return attribute(
            Question(
                incident=incident,
                ledger=tuple(known),
                collecting_boot=collecting_boot,
                stamp_prefix=self.config.boots.stamp_prefix,
            )
        )

    # -- crashes

    def _new_id(self, incident: Incident, harvest_id: str) -> str:
        """Time of the harvest, digest of the records: the same whenever it is worked out."""
        digests = "\n".join(sorted(r.sha256 for r in incident.records()))
        return f"{harvest_id.split('-')[0]}-{hashlib.sha256(digests.encode()).hexdigest()[:12]}"

    def _known(self, *, again: bool) -> list[_Crash]:
        """The crashes so far, newest first; doing all again, only those made in this run."""
        if again:
            return list(reversed(self.made.values()))
        if self._earlier is None:
            self._earlier = [
                _Crash(s["id"], s["revision"], s["order"], s["boot"], s["complete"], tuple(s["harvests"]))
                for s in reversed(self.archive.crash_summaries())
            ]
        return list(reversed(self.made.values())) + [c for c in self._earlier if c.id not in self.made]

    def _find_older(self, incident: Incident, boot: Attribution, harvest_id: str, *, again: bool) -> _Crash | None:
        """The crash of an earlier harvest that this incident is more of."""
        for at, crash in enumerate(self._known(again=again)):
            if harvest_id in crash.harvests and len(crash.harvests) == 1:
                continue  # this very harvest's
            if boot.boot_id is not None and crash.boot_id == boot.boot_id and boot.confidence != "low":
                return crash
            unsure = boot.boot_id is None or crash.boot_id is None
            if at < RECENT and unsure and not crash.complete and self._belong_together(crash, incident):
                return crash
        return None

    def _belong_together(self, crash: _Crash, incident: Incident) -> bool:
        records = [r for h in crash.harvests for r in self._records_of(crash.id, h)]
        together = group(records + incident.records(), stamp_prefix=self.config.boots.stamp_prefix)
        return len(together) == 1

    def _records_of(self, crash_id: str, harvest_id: str) -> list[Record]:
        """The records of a harvest that are a crash's."""
        names = {r["name"] for r in self.archive.load_crash(crash_id)["records"] if r["harvest_id"] == harvest_id}
        return [r for r in self._records(harvest_id) if r.name in names]

    def _grow(self, older: _Crash, incident: Incident, harvest_id: str) -> str | None:
        """Make a crash anew with the records of another harvest; None if they are in it already, or add no dump."""
        if harvest_id in older.harvests:
            return None
        records = [r for h in older.harvests for r in self._records_of(older.id, h)]
        dumps_before = len(group_as_one(records).dumps)
        whole = group_as_one(records + incident.records())
        event = find_crash(whole)
        assert event is not None  # it had one with fewer records
        grown = len(whole.dumps) > dumps_before or not older.complete
        revision = older.revision + 1 if grown else older.revision
        boot = self._attribute(whole, harvest_id)
        return self._write(whole, event, boot, crash_id=older.id, order=older.order, revision=revision)

    def _write(
        self,
        incident: Incident,
        event: Event,
        boot: Attribution,
        *,
        crash_id: str,
        order: int,
        revision: int = 1,
        tell: bool = True,
    ) -> str:
        harvests = sorted({r.harvest_id for r in incident.records()})
        contents = texts(incident)
        report = build(
            crash_id=crash_id,
            revision=revision,
            order=order,
            incident=incident,
            event=event,
            boot=boot,
            harvests=[self._bundle(h).facts for h in harvests],
            erased={(h, name): e for h in harvests for name, e in self.archive.load_erased(h).items()},
            files={
                name: FileReport(size=len(text), sha256=hashlib.sha256(text).hexdigest())
                for name, text in contents.items()
            },
        )
        self._store(report, contents)
        self.made[crash_id] = _Crash(crash_id, revision, order, boot.boot_id, report.complete, tuple(harvests))
        if tell:
            self.changed.append(crash_id)
        return crash_id

    def _store(self, report: Report, contents: dict[str, bytes]) -> None:
        directory = self.archive.crash_directory(report.id)
        durable.make_directory(directory)
        document = report.model_dump(mode="json", by_alias=True)
        # before the crash is there: killed in between, the next run finds both to do; the other way round, only one
        for sink in enabled_sinks(self.config):
            self.outbox.put(sink, report.id, report.revision)
        durable.replace_files(directory, contents | {"crash.json": dump_json(document)})
        for name in os.listdir(directory):
            if name.endswith(".txt") and name not in contents:
                durable.remove_file(os.path.join(directory, name))
        self.archive.add_crash_summary({"id": report.id} | document["summary"])

    # -- upkeep

    def refresh(self, harvests: set[str]) -> None:
        """Write the crashes with records of *harvests* anew: what became of a record in the store has changed."""
        if not harvests:
            return
        for crash in self._known(again=False):
            if crash.id not in self.made and not harvests.isdisjoint(crash.harvests):
                whole = group_as_one([r for h in crash.harvests for r in self._records_of(crash.id, h)])
                event = find_crash(whole)
                if event is not None:
                    self._write(
                        whole,
                        event,
                        self._attribute(whole, crash.harvests[0]),
                        crash_id=crash.id,
                        order=crash.order,
                        revision=crash.revision,
                        tell=False,
                    )

    def remove_stale(self) -> None:
        """After doing all again: crashes that are no longer found."""
        for summary in self.archive.crash_summaries():
            crash_id = summary["id"]
            if crash_id not in self.made and any(h in self._bundles for h in summary["harvests"]):
                durable.remove_tree(self.archive.crash_directory(crash_id))


def group_as_one(records: list[Record]) -> Incident:
    """Records that are known to be of one boot."""
    incident = Incident()
    for dump in assemble(r for r in records if r.type == "dmesg"):
        incident.add(dump)
    incident.zones += [r for r in records if r.type != "dmesg"]
    return incident


def _no_crash(incident: Incident) -> str:
    names = ", ".join(r.name for r in incident.records()[:5])
    more = len(incident.records()) - 5
    names += f" and {more} more" if more > 0 else ""
    if any(d.is_shutdown for d in incident.dumps):
        return f"no crash: {names}: an orderly end of the boot"
    if any(r.text for r in incident.zones):
        return f"no crash: {names}: nothing in it tells of one"
    return f"no crash: {names}: not understood, archived as it is"
