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
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from pstored import __version__, durable
from pstored.archive import SCHEMA, Archive
from pstored.boots.attribution import (
    PROOFS,
    Attribution,
    Confidence,
    KernelLines,
    Method,
    Question,
    attribute,
    without_twins,
)
from pstored.boots.ledger import known_boots
from pstored.bundle import is_foreign, is_received, live_boot, started_ns
from pstored.config import Config
from pstored.crashes.crash import find_crash, holds_more, no_crash, texts
from pstored.crashes.incidents import Incident, are_one_boot, group, group_as_one
from pstored.crashes.loops import End, Row, Rows
from pstored.crashes.report import FileReport, Report, build
from pstored.delivery.outbox import Outbox, enabled_sinks
from pstored.documents import dump_json, seal
from pstored.errors import ArchiveError, DiskError
from pstored.ids import join_id
from pstored.logs import ends_orderly
from pstored.oops import Event
from pstored.parse.record import Record
from pstored.records import Records
from pstored.summary import Summary, decode

logger = logging.getLogger(__name__)
ALIKE = 64
"""Of an import, which may be older than these: so many more, if they have its signature."""
RECENT = 10
"""So many of the newest crashes may still grow by a harvest whose boot is not named."""
FORGOTTEN = "found earlier, and no longer in the journal: "
"""Stands before evidence that was kept of an earlier analysis."""


class Found(NamedTuple):
    """What one run of the analysis found."""

    crashes: tuple[str, ...]
    """New ones, and those with a new revision; oldest first."""
    notes: tuple[str, ...]
    """What was in the store and is no crash."""
    failures: tuple[str, ...]
    """Harvests that could not be analyzed, and why; their records are archived all the same."""
    trouble: DiskError | None = None
    """Why the next run may do more, if it may."""

    def and_then(self, later: "Found") -> "Found":
        """What two runs found, one after the other."""
        crashes = tuple(dict.fromkeys(self.crashes + later.crashes))
        return Found(crashes, self.notes + later.notes, self.failures + later.failures, self.trouble or later.trouble)


# -- harvests into crashes


def analyze(
    archive: Archive,
    config: Config,
    *,
    journal: KernelLines | None = None,
    again: bool = False,
    touched: Iterable[str] = (),
) -> Found:
    """Take every harvest that has no analysis yet; the caller holds the archive's lock.

    Args:
        archive: where.
        config: for the stamp's prefix and the sinks.
        journal: knows the kernel lines of earlier boots; None if it is not to be asked.
        again: do all harvests anew.
        touched: harvests whose erased.json has changed: the crashes with records of theirs are written anew.
    """
    analyzer = _Analyzer(archive, config, journal, again=again)
    if again:
        analyzer.remember(s["id"] for s in archive.remembered_crashes() if s["method"] == Method.JOURNAL)
    todo = archive.harvest_ids() if again else archive.unanalyzed()
    for harvest_id in todo:
        analyzer.take(harvest_id, again=again)
    analyzer.refresh(set(touched) - set(todo))
    if again:
        analyzer.remove_stale()
    changed = tuple(dict.fromkeys(analyzer.changed))
    return Found(changed, tuple(analyzer.notes), tuple(analyzer.failures), analyzer.trouble)


def _is_sure(boot_id: str | None, confidence: str) -> bool:
    """Whether a boot is named, and not by a guess."""
    return boot_id is not None and confidence in (Confidence.CERTAIN, Confidence.HIGH)


class _Analyzer:
    def __init__(self, archive: Archive, config: Config, journal: KernelLines | None, *, again: bool) -> None:
        self.archive = archive
        self.config = config
        self.journal = journal
        self._again = again
        self.ledger = known_boots(archive)
        self.outbox = Outbox(archive)
        self.changed: list[str] = []
        self.notes: list[str] = []
        self.failures: list[str] = []
        self.trouble: DiskError | None = None
        self.made: dict[str, Summary] = {}  # in this run
        self.records = Records(archive)
        self._said: dict[tuple[str, str], Attribution] = {}  # by the journal, of a harvest's record, by name
        self._earlier: list[Summary] | None = None
        self._ended: Rows | None = None

    def take(self, harvest_id: str, *, again: bool) -> None:
        """Analyze one harvest; whatever goes wrong is noted, and stops nothing else.

        Where the disk fails, or there is no memory, the harvest does not count as analyzed: the next run tries again.
        """
        try:
            failed = self._take(harvest_id, again=again)
        except DiskError as e:
            self.trouble = self.trouble or e
            failed = f"{e}; the next run tries again"
        except MemoryError:
            self.trouble = self.trouble or DiskError("there is not enough memory for the analysis")
            failed = "there is not enough memory; the next run tries again"
        if failed is not None:
            self.records.whole.discard(harvest_id)  # a crash that is not found in it may be there all the same
            self.failures.append(f"harvest {harvest_id} cannot be analyzed, its records are archived: {failed}")

    def _take(self, harvest_id: str, *, again: bool) -> str | None:
        """None, or why it cannot be analyzed, and never can be."""
        failed = None
        crashes: list[str] = []
        notes: list[str] = []
        consoles: list[dict[str, Any]] = []
        try:
            with durable.archive_errors("analyze", self.archive.harvest_directory(harvest_id)):
                crashes, notes, consoles = self._analyze(harvest_id, again=again)
        except (DiskError, MemoryError):
            raise
        except ArchiveError as e:
            failed = str(e)
        except Exception as e:
            logger.debug("harvest %s", harvest_id, exc_info=True)
            failed = f"{type(e).__name__}: {e} (a bug in pstored: please report it)"
        self.notes += notes
        if crashes:  # theirs are new names: durable before the harvest counts as analyzed
            with durable.archive_errors("flush", self.archive.crashes):
                durable.flush_directory(self.archive.crashes)
        document = {
            "schema": SCHEMA,
            "pstored": __version__,
            "failed": failed,
            "crashes": crashes,
            "notes": notes,
            "consoles": consoles,
        }
        self.archive.write(self.archive.harvest_directory(harvest_id), {"analyzed.json": dump_json(document)})
        return failed

    def _analyze(self, harvest_id: str, *, again: bool) -> tuple[list[str], list[str], list[dict[str, Any]]]:
        """Crashes, notes, and the consoles that show none, with their boot and whether it ended in order."""
        records = self.records.of(harvest_id)
        began_ns = started_ns(self.records.facts(harvest_id))
        incidents = group(records, stamp_prefix=self.config.boots.stamp_prefix, started_ns=began_ns)
        boots = without_twins([self._attribute(incident, harvest_id) for incident in incidents])
        crashes: list[str] = []
        notes: list[str] = []
        consoles: list[dict[str, Any]] = []
        order = 0
        for incident, boot in zip(incidents, boots, strict=True):
            event = find_crash(incident)
            if event is None:
                notes.append(no_crash(incident))
                consoles += _consoles(incident, boot)
                continue
            older = self._find_older(incident, event, boot, harvest_id, again=again)
            if older is None:
                crash = self._write(incident, event, boot, crash_id=self._new_id(incident, harvest_id), order=order)
                order += 1
            else:
                crash = self._grow(older, incident, harvest_id) or older["id"]
            crashes.append(crash)
        return crashes, notes, consoles

    # -- boots

    def _attribute(self, incident: Incident, harvest_id: str) -> Attribution:
        facts = self.records.facts(harvest_id)
        collecting_boot = facts.get("boot_id")
        ids = [boot.boot_id for boot in self.ledger]
        # boots after the collecting one cannot be meant, and must not change the answer when all is done again
        known = self.ledger[: ids.index(collecting_boot) + 1] if collecting_boot in ids else self.ledger
        answer = attribute(
            Question(
                incident=incident,
                ledger=tuple(known),
                collecting_boot=collecting_boot,
                started_ns=started_ns(facts),
                stamp_prefix=self.config.boots.stamp_prefix,
                journal=self.journal,
                received=is_received(facts),
                from_here=not is_foreign(facts),
                live=tuple(
                    (r.name, boot_id)
                    for r in incident.records()
                    if (boot_id := live_boot(self.records.facts(r.harvest_id))) is not None
                ),
            )
        )
        said = {a for r in incident.records() if (a := self._said.get((r.harvest_id, r.name))) is not None}
        if answer.method in PROOFS or len(said) != 1:
            return answer
        kept = said.pop()
        return replace(kept, evidence=kept.evidence + tuple(incident.evidence))

    def remember(self, crash_ids: Iterable[str]) -> None:
        """Note what the journal said of these crashes before they are made anew: journals are rotated, and forget."""
        for crash_id in crash_ids:
            try:
                crash = self.archive.load_crash(crash_id)
                boot = crash["boot"]
                if boot["method"] != Method.JOURNAL:
                    continue
                answer = Attribution(
                    boot_id=boot["id"],
                    method=Method.JOURNAL,
                    confidence=Confidence(boot["confidence"]),
                    evidence=(FORGOTTEN + boot["evidence"][0].removeprefix(FORGOTTEN),),
                )
                self._said.update({(r["harvest_id"], r["name"]): answer for r in crash["records"]})
            except (ArchiveError, LookupError, TypeError, ValueError, AttributeError) as e:
                logger.warning("what the journal said of crash %s is lost: %s", crash_id, e)

    # -- crashes

    def _new_id(self, incident: Incident, harvest_id: str) -> str:
        """Time of the harvest, digest of the records: the same whenever it is worked out."""
        digests = sorted(f"{r.name} {r.sha256}" for r in incident.records())
        return join_id(harvest_id.split("-")[0], digests)

    def _archived(self) -> list[Summary]:
        """The crashes that were there before this run, newest first."""
        if self._earlier is None:
            self._earlier = self.archive.remembered_crashes()[::-1]
        return self._earlier

    def _known(self, *, again: bool) -> Iterator[Summary]:
        """The crashes so far, newest first; doing all again, only those made in this run."""
        yield from reversed(self.made.values())
        if not again:
            yield from (s for s in self._archived() if s["id"] not in self.made)

    def _find_older(
        self, incident: Incident, event: Event, boot: Attribution, harvest_id: str, *, again: bool
    ) -> Summary | None:
        """The crash of an earlier harvest that this incident is more of."""
        is_sure = _is_sure(boot.boot_id, boot.confidence)
        alike = ALIKE if is_foreign(self.records.facts(harvest_id)) and event.strict else 0
        if alike:
            decode(self._archived())
        seen = 0
        for known in self._known(again=again):
            is_near = seen < RECENT
            if not (is_near or alike or (boot.boot_id is not None and known["boot"] == boot.boot_id)):
                continue  # nothing that it has in front makes it worth a look at the rest
            crash = known if known["id"] in self.made else self.archive.look_again(known)
            if not crash["harvests"]:
                continue  # it cannot be read
            seen += 1
            if crash["harvests"] == [harvest_id]:
                continue  # it is this very harvest's
            same_id = boot.boot_id is not None and crash["boot"] == boot.boot_id
            if is_sure and _is_sure(crash["boot"], crash["confidence"]):
                if same_id:
                    return crash
                continue
            if not is_near and alike and crash["signature"] == event.strict:
                is_near, alike = True, alike - 1
            if (same_id and incident.is_of_firmware()) or (is_near and self._belong_together(crash, incident)):
                return crash
        return None

    def _belong_together(self, crash: Summary, incident: Incident) -> bool:
        """Whether it is proven by the records; a crash that cannot be read is no match, and must not hide this one."""
        try:
            records = self._records_of(crash)
        except ArchiveError as e:
            logger.warning("crash %s cannot be compared with: %s", crash["id"], e)
            return False
        return are_one_boot(records, incident.records(), stamp_prefix=self.config.boots.stamp_prefix)

    def _records_of(self, crash: Summary) -> list[Record]:
        """A crash's records, from all its harvests."""
        try:
            theirs = {(r["harvest_id"], r["name"]) for r in self.archive.load_crash(crash["id"])["records"]}
        except (KeyError, TypeError) as e:
            raise ArchiveError(f"crash.json of {crash['id']} is damaged: {e!r}") from e
        return [r for h in crash["harvests"] for r in self.records.of(h) if (h, r.name) in theirs]

    def _as_one(self, records: list[Record]) -> Incident:
        """Records that are of one boot: with the proofs and the guesses, if they tell it by themselves."""
        told = group(records, stamp_prefix=self.config.boots.stamp_prefix)
        is_told = len(told) == 1 and not any(d.is_live for d in told[0].dumps)
        return told[0] if is_told else group_as_one(records)

    def _grow(self, older: Summary, incident: Incident, harvest_id: str) -> str | None:
        """Make a crash anew with the records of another harvest; None if they are in it already."""
        if harvest_id in older["harvests"]:
            return None
        records = self._records_of(older)
        before = self._as_one(records)
        # the same record, archived anew because its first bundle is damaged, counts once
        newest = {(r.name, r.time_ns): r for r in records + incident.records()}
        whole = self._as_one(list(newest.values()))
        event = find_crash(whole)
        if event is None:  # it had one with fewer records
            raise ArchiveError(f"crash {older['id']} is no crash any more with the records of harvest {harvest_id}")
        grown = holds_more(whole, before)
        revision = older["revision"] + 1 if grown else older["revision"]
        self.remember([older["id"]])
        boot = self._attribute(whole, harvest_id)
        crash_id, order = older["id"], older["order"]
        return self._write(whole, event, boot, crash_id=crash_id, order=order, revision=revision, tell=grown)

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
        facts = [self.records.facts(h) for h in harvests]
        contents = texts(incident)
        report = build(
            crash_id=crash_id,
            revision=revision,
            order=order,
            incident=incident,
            event=event,
            boot=boot,
            harvests=facts,
            erased={(h, name): e for h in harvests for name, e in self.archive.load_erased(h).items()},
            files={
                name: FileReport(size=len(text), sha256=hashlib.sha256(text).hexdigest())
                for name, text in contents.items()
            },
            row=lambda end: self._row(crash_id, order, facts[0], end),
        )
        self._store(report, contents)
        self.made[crash_id] = Summary.of_report(crash_id, report.summary, "")
        self._rows().put(self.made[crash_id])
        if tell:
            self.changed.append(crash_id)
        return crash_id

    def _row(self, crash_id: str, order: int, facts: dict[str, Any], end: End) -> Row | None:
        """The boots in a row up to this crash's."""
        if is_foreign(facts) or is_received(facts):
            return None
        return self._rows().row(crash_id, order, end, [boot.boot_id for boot in self.ledger])

    def _rows(self) -> Rows:
        """The crashes so far, with how long a row of boots each of them ends."""
        if self._ended is None:
            self._ended = Rows(self._archived(), again=self._again)
        return self._ended

    def _store(self, report: Report, contents: dict[str, bytes]) -> None:
        directory = self.archive.crash_directory(report.id)
        durable.make_directory(directory, durably=False)  # see take()
        document = seal(report.model_dump(mode="json", by_alias=True, exclude={"digest"}))
        # before the crash is there: killed in between, the next run finds both to do; the other way round, only one
        for sink in enabled_sinks(self.config):
            self.outbox.put(sink, report.id, report.revision)
        self.archive.write(directory, contents | {"crash.json": dump_json(document)})
        self.archive.add_crash_summary(report.id)
        for name in os.listdir(directory):
            if name.endswith(".txt") and name not in contents:
                durable.remove_file(os.path.join(directory, name))

    # -- upkeep

    def refresh(self, harvests: set[str]) -> None:
        """Write the crashes with records of *harvests* anew: what became of a record in the store has changed."""
        if not harvests:
            return
        decode(self._archived())
        for crash in self._archived():
            if crash["id"] not in self.made and not harvests.isdisjoint(crash["harvests"]):
                try:
                    self._rewrite(crash)
                except ArchiveError as e:
                    self.failures.append(f"crash {crash['id']} cannot be brought up to date: {e}")

    def _rewrite(self, crash: Summary) -> None:
        whole = self._as_one(self._records_of(crash))
        event = find_crash(whole)
        if event is not None:
            crash_id, order, revision = crash["id"], crash["order"], crash["revision"]
            self.remember([crash_id])
            boot = self._attribute(whole, crash["harvests"][-1])
            self._write(whole, event, boot, crash_id=crash_id, order=order, revision=revision, tell=False)

    def remove_stale(self) -> None:
        """After doing all again: crashes that are no longer found, though all their records could be read."""
        for summary in self.archive.remembered_crashes():
            crash_id, harvests = summary["id"], summary["harvests"]
            if crash_id not in self.made and harvests and self.records.whole.issuperset(harvests):
                with durable.archive_errors("remove from", self.archive.crashes):
                    self.archive.remove_crash(crash_id)
                self.outbox.forget(crash_id)


def _consoles(incident: Incident, boot: Attribution) -> list[dict[str, Any]]:
    return [
        {
            "boot_id": boot.boot_id,
            "sure": _is_sure(boot.boot_id, boot.confidence),
            "name": name,
            "orderly": ends_orderly(log),
        }
        for name, log in incident.logs()
        if name.startswith("console") and boot.boot_id is not None
    ]
