# SPDX-License-Identifier: Apache-2.0
"""The boots of this machine, oldest first: when each began, how long it lived, how it ended, which crash is its.

Put together from the ledger, the journal (which knows boots that pstored has never run in), and the crashes.
"""

import heapq
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from pstored.archive import Archive
from pstored.boots.attribution import Confidence
from pstored.boots.ends import CrashOf, End, EndKind, Evidence, judge
from pstored.boots.ledger import LOOK_AGAIN_S, Boot, Witness
from pstored.boots.resetreason import Clue
from pstored.crashes.loops import read_row
from pstored.documents import load_json
from pstored.errors import ArchiveError
from pstored.ids import stamp_seconds
from pstored.journal.bootjournal import BootJournal, JournalBoot
from pstored.manager import ARCHIVE_UNIT
from pstored.parse.record import decode_record
from pstored.summary import Summary
from pstored.terminal import visible

MOST = 100
"""So many boots of the journal are looked at: each costs some seeks in its files."""
LAST_ENTRIES = 30
"""Of a boot's journal, so many are looked at for an orderly end, and kept as its last words."""

STALE_S = 3600.0
"""A journal that ends so long before the ledger's last look at the boot had ended before the boot did."""
MAX_LINE = 500
"""Characters of a line that are kept as last words."""

# systemd's catalog: systemd/sd-messages.h
_JOURNAL_START = "f77379a8490b408bbe5f6940505a777b"
_JOURNAL_STOP = "d93fb3c9c24d451a97cea615ce59c00b"
_UNIT_STARTED = "39f53479d3a045ac8e11786248231fbf"
_UNIT_STOPPING = "de5b426a63be47a7b6ac3eaac82e2f6f"
_ENDS = frozenset(f"{name}.target" for name in ("shutdown", "reboot", "poweroff", "halt", "kexec", "final", "umount"))
_FLUSH_UNIT = "systemd-journal-flush.service"
"""With /var on a file system of its own it is stopped before that is unmounted, and what comes after it goes to /run,
and is lost: journalctl(1), --smart-relinquish-var."""


KDUMP = Clue("the boot after it", "it is the kdump kernel, which a panic starts", "panic")


class PastBoot(NamedTuple):
    """A boot of this machine."""

    boot_id: str
    kernel: str | None
    start: float | None
    """Unix seconds by its own clock, right or wrong."""
    uptime_s: float | None
    """How long it lived, at the least."""
    last_wall: float | None
    """Last sign of life."""
    exact: bool
    """Whether it lived just so long."""
    end: End
    crashes: tuple[CrashOf, ...]
    witnesses: tuple[Witness, ...]
    """What the witnesses of its end say, or said while they knew."""
    clues: tuple[Clue, ...]
    """What the hardware said of its end, in the boot after it."""
    known: Boot | None
    """Its line in the ledger."""


class Console(NamedTuple):
    """A console that was harvested, and shows no crash."""

    boot_id: str
    harvest_id: str
    name: str
    orderly: bool
    sure: bool
    """Whether it is proven to be of this boot, or nearly so."""


class History:
    """Everything that tells of this machine's boots, read when it is first asked for."""

    def __init__(
        self,
        archive: Archive,
        ledger: Sequence[Boot],
        journal: BootJournal,
        running: str | None,
        crashes: Iterable[Summary],
    ) -> None:
        self.archive = archive
        self.ledger = ledger
        self.journal = journal
        self.running = running
        self._known = {boot.boot_id: boot for boot in ledger}
        self._collected_by: dict[str, str | None] = {}
        self._journal_boots = {boot.boot_id: boot for boot in journal.boots(MOST)}
        self._crashes: dict[str | None, list[Summary]] = defaultdict(list)
        for summary in crashes:
            self._crashes[summary["boot"]].append(summary)
        self._consoles = {console.boot_id: console for console in consoles(archive)}

    def boots(self) -> list[PastBoot]:
        """All of them, oldest first; the running one is the last."""
        return [self._with_death(self.past(boot_id, following)) for boot_id, following in self.order()]

    def order(self) -> list[tuple[str, str | None]]:
        """The ids of all boots, oldest first, each with that of the boot after it."""
        order = merge(list(self._known), list(self._journal_boots), self._start)
        if self.running in order:  # nothing comes after it, whatever its clock says
            order.remove(self.running)
            order.append(self.running)
        order = self._with_crashed(order)
        return list(zip_longest(order, order[1:]))

    def known(self, boot_id: str) -> Boot | None:
        """A boot's line in the ledger."""
        return self._known.get(boot_id)

    def has_seen(self, boot_id: str) -> bool:
        """Whether ledger or journal have, and not only a crash tells of it."""
        return boot_id in self._known or boot_id in self._journal_boots

    def _with_crashed(self, order: list[str]) -> list[str]:
        """With the boots that only a crash tells of: before the boot that collected it, else before all."""
        known = set(order)
        crashed: dict[str | None, list[str]] = defaultdict(list)
        for boot_id, summaries in self._crashes.items():
            if boot_id is not None and boot_id not in known and any(map(_is_sure, summaries)):
                collecting = self._collecting(summaries[0])
                crashed[collecting if collecting in known else None].append(boot_id)
        return crashed[None] + [one for boot_id in order for one in (*crashed.get(boot_id, ()), boot_id)]

    def _nameless(self, collecting: str | None) -> tuple[CrashOf, ...]:
        """The crashes that a boot collected or, by the clock, imported, and whose boot is not known."""
        known = self._known.get(collecting or "")
        if collecting is None or known is None:
            return ()
        begin = min(known.starts(), default=known.first_wall)
        end = math.inf if collecting == self.running else known.last_wall + LOOK_AGAIN_S
        found = []
        for summary in self._crashes.get(None, []):
            by = self._collecting(summary)
            if by == collecting or (by is None and begin <= stamp_seconds(summary["id"].split("-")[0]) <= end):
                found.append(_crash_of(summary))
        return tuple(found)

    def _collecting(self, summary: Summary) -> str | None:
        """The boot that collected a crash, as far as is known."""
        if summary.collected_by is not None:  # known without decoding the rest
            return summary.collected_by
        if (row := read_row(summary)) is not None:
            return row.collected_by
        crash_id = summary["id"]
        if crash_id not in self._collected_by:
            try:
                boot_id = self.archive.load_crash(crash_id)["collected"]["boot_id"]
            except (ArchiveError, LookupError, TypeError):
                boot_id = None
            self._collected_by[crash_id] = boot_id if isinstance(boot_id, str) else None
        return self._collected_by[crash_id]

    def _witnesses(self, boot_id: str, known: Boot | None) -> tuple[Witness, ...]:
        """What was settled, else what ledger and journal say now; and the console, which may turn up late."""
        settled = known.witnesses if known is not None else None
        said = settled if settled is not None else (_ledgers(known), self._journals(boot_id, known))
        return tuple(dict.fromkeys(t for t in (*said, _consoles(self._consoles.get(boot_id))) if t is not None))

    def last_words(self, boot_id: str) -> list[str]:
        """The last lines of a boot: its journal's, else its console's."""
        if boot_id in self._journal_boots:
            return [_journal_line(e) for e in self._live_entries(boot_id)]
        console = self._consoles.get(boot_id)
        return [] if console is None else _tail(self.archive, console)

    def past(self, boot_id: str, following: str | None) -> PastBoot:
        """What is known of a boot but for what its crashes tell of the moment.

        Args:
            boot_id: which.
            following: the boot after it.
        """
        known = self._known.get(boot_id)
        summaries = self._crashes.get(boot_id, [])
        crashes = tuple(map(_crash_of, summaries))
        start, uptime_s, last_wall = _span(known, self._journal_boots.get(boot_id))
        is_over = boot_id != self.running
        witnesses = self._witnesses(boot_id, known) if is_over else ()
        clues = self._known[following].clues if following in self._known else ()
        evidence = Evidence(crashes, witnesses, clues, self._nameless(following))
        end = judge(evidence) if is_over else End(EndKind.RUNNING, ())
        if end.unexplained and following in self._journal_boots and self.journal.is_crash_kernel(following):
            clues = (KDUMP, *clues)
            end = judge(evidence._replace(clues=clues))
        return PastBoot(
            boot_id=boot_id,
            kernel=known.kernel if known is not None else next((s["kernel"] for s in summaries), None),
            start=start,
            uptime_s=uptime_s,
            last_wall=last_wall,
            exact=not is_over or (end.kind is EndKind.CLEAN and self._saw_last(boot_id)),
            end=end,
            crashes=crashes,
            witnesses=witnesses,
            clues=clues,
            known=known,
        )

    def _saw_last(self, boot_id: str) -> bool:
        """Whether ledger or journal have seen an orderly end's last moment: a console does not tell, nor a memory."""
        known = self._known.get(boot_id)
        return boot_id in self._journal_boots or (known is not None and known.closed)

    def _with_death(self, boot: PastBoot) -> PastBoot:
        died_at = self._died_at(boot.crashes)
        if died_at is None:
            return boot
        return boot._replace(uptime_s=max(died_at, boot.uptime_s or 0.0), exact=True)

    def _died_at(self, crashes: Sequence[CrashOf]) -> float | None:
        """Seconds into its boot at which the last of its crashes was logged."""
        for crash in reversed(crashes):
            if crash.severity == "panic" and crash.sure:
                try:
                    uptime = self.archive.load_crash(crash.id)["time"].get("uptime_s")
                except ArchiveError:
                    continue
                return uptime if isinstance(uptime, int | float) else None
        return None

    def _start(self, boot_id: str) -> float | None:
        return _span(self._known.get(boot_id), self._journal_boots.get(boot_id))[0]

    def _journals(self, boot_id: str, known: Boot | None) -> Witness | None:
        entries = self._live_entries(boot_id) if boot_id in self._journal_boots else []
        if not entries:
            return None
        stop = _orderly(entries)
        if stop is not None:
            return Witness(True, f"journal: it ends in order: {_journal_line(stop)}")
        if known is not None and _ended_before(self._journal_boots[boot_id], known):
            return None  # its disk was full, or it was switched off: of the end it has seen nothing
        if self.journal.is_crash_kernel(boot_id):
            return Witness(True, "journal: it is the kdump kernel, which reboots at once when it has done its work")
        return Witness(False, f"journal: it breaks off: {_journal_line(entries[-1])}")

    def _live_entries(self, boot_id: str) -> list[dict[str, Any]]:
        """Its last entries, without those that we have restored."""
        entries = self.journal.last_entries(boot_id, LAST_ENTRIES)
        return [e for e in entries if "PSTORE_RESTORED" not in e]


def merge(ledger: list[str], journal: list[str], start: Callable[[str], float | None]) -> list[str]:
    """Two orders of boots as one: each keeps its own; between two boots that both know, the earlier comes first."""
    theirs_too = set(journal)
    shared = [boot_id for boot_id in ledger if boot_id in theirs_too]
    ours, theirs = _before(ledger, shared), _before(journal, shared)
    order: list[str] = []
    for mark in shared:
        order += [*_zip(ours[mark], theirs[mark], start), mark]
    return order + _zip(ours[None], theirs[None], start)


def _before(ids: list[str], marks: list[str]) -> dict[str | None, list[str]]:
    """What comes before each mark, back to the mark before it; None: behind the last."""
    found: dict[str | None, list[str]] = {}
    piece: list[str] = []
    for boot_id in ids:
        if boot_id in marks:
            found[boot_id], piece = piece, []
        else:
            piece.append(boot_id)
    return found | {None: piece}


def _zip(ours: list[str], theirs: list[str], start: Callable[[str], float | None]) -> list[str]:
    return list(heapq.merge(ours, theirs, key=lambda boot_id: start(boot_id) or 0.0))


def _span(known: Boot | None, logged: JournalBoot | None) -> tuple[float | None, float | None, float | None]:
    """When a boot began, how long it lived at the least, and its last sign of life, by its own clock."""
    looks = []
    if known is not None:
        looks.append((known.last_uptime, known.last_wall))
    if logged is not None:
        looks.append((logged.last_monotonic_us / 1e6, logged.last_wall_us / 1e6))
    last = max(looks, key=lambda look: look[0] or 0.0, default=None)
    if last is None or last[0] is None:
        return None, None, None if last is None else last[1]
    return last[1] - last[0], last[0], last[1]


def _is_sure(summary: Summary) -> bool:
    return summary["confidence"] in (Confidence.CERTAIN, Confidence.HIGH)


def _crash_of(summary: Summary) -> CrashOf:
    """A crash, by its line in the list."""
    return CrashOf(summary["id"], summary["kind"], summary["severity"], summary["title"], _is_sure(summary))


# -- witnesses


def _ledgers(known: Boot | None) -> Witness | None:
    if known is None:
        return None
    if known.closed:
        return Witness(True, "ledger: the service manager was stopping the system when pstored last ran in it")
    if known.closes:
        return Witness(False, f"ledger: {ARCHIVE_UNIT} was there to note an orderly end, and has noted none")
    return None


def _consoles(console: Console | None) -> Witness | None:
    if console is None:
        return None
    how = "ends with an orderly shutdown" if console.orderly else "breaks off without an orderly shutdown"
    doubt = "" if console.sure else " (that it is of this boot is a guess)"
    return Witness(console.orderly, f"console: {console.name} of harvest {console.harvest_id} {how}{doubt}")


def consoles(archive: Archive) -> list[Console]:
    """The consoles that the newest harvests brought and that show no crash, oldest first."""
    found = []
    for harvest_id in reversed(list(islice(archive.newest_harvests(), MOST))):
        try:
            analyzed = load_json(os.path.join(archive.harvest_directory(harvest_id), "analyzed.json"))
            found += [
                Console(c["boot_id"], harvest_id, c["name"], c["orderly"], c.get("sure", False))
                for c in analyzed["consoles"]
            ]
        except (ArchiveError, KeyError, TypeError):
            continue  # not analyzed yet, or damaged: then nothing is known of its console
    return found


def _tail(archive: Archive, console: Console) -> list[str]:
    try:
        records = {member.name: data for member, data in archive.read_records(console.harvest_id)}
    except ArchiveError:
        return []
    record = decode_record(console.name, records.get(console.name, b""), mtime_ns=0)
    return [visible(line) for line in (record.text or b"").splitlines()[-LAST_ENTRIES:]]


def _ended_before(logged: JournalBoot, known: Boot) -> bool:
    """Whether a boot's journal ends long before the ledger's last look: by both clocks, of which one may be set, and
    the other counts time asleep in the ledger alone."""
    walls = known.last_wall - logged.last_wall_us / 1e6
    uptimes = (known.last_uptime or 0.0) - logged.last_monotonic_us / 1e6
    return min(walls, uptimes) > STALE_S


def _orderly(entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The entry that says that the boot ended in order, unless journald has started once more behind it."""
    found = None
    for entry in entries:
        if _is_journald(entry, _JOURNAL_START):
            found = None
        elif _is_journald(entry, _JOURNAL_STOP) or _is_shutdown(entry):
            found = entry
    return found


def _is_journald(entry: dict[str, Any], message_id: str) -> bool:
    """journald's own words: the field that it sets itself tells them from what anybody may send it."""
    return entry.get("MESSAGE_ID") == message_id and entry.get("_TRANSPORT") == "driver"


def _is_shutdown(entry: dict[str, Any]) -> bool:
    """The service manager's words: a target of the shutdown is reached, or the journal is about to lose its disk."""
    if entry.get("_PID") != "1":
        return False
    unit, message_id = entry.get("UNIT"), entry.get("MESSAGE_ID")
    return (message_id == _UNIT_STARTED and unit in _ENDS) or (message_id == _UNIT_STOPPING and unit == _FLUSH_UNIT)


def _journal_line(entry: dict[str, Any]) -> str:
    """As ``journalctl -o short-monotonic`` shows it, without the host."""
    seconds = entry["__MONOTONIC_TIMESTAMP"] / 1e6
    who = _text(entry.get("SYSLOG_IDENTIFIER") or entry.get("_COMM") or "?")
    return f"[{seconds:12.6f}] {who}: {_text(entry.get('MESSAGE', ''))}"


def _text(value: object) -> str:
    """A field's value, made safe to show; the first of several."""
    value = value[0] if isinstance(value, list) and value else value
    return visible(value)[:MAX_LINE] if isinstance(value, str | bytes) else "?"
