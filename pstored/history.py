# SPDX-License-Identifier: Apache-2.0
"""The boots of this machine, oldest first: when each began, how long it lived, how it ended, which crash is its.

Put together from the ledger, the journal (which knows boots that pstored has never run in), and the crashes.
"""

import heapq
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pstored.archive import Archive, load_json
from pstored.bootjournal import BootJournal, JournalBoot
from pstored.ends import CrashOf, End, EndKind, Evidence, judge
from pstored.errors import ArchiveError
from pstored.ledger import Boot, Witness
from pstored.manager import HARVEST_UNIT
from pstored.parse.record import decode_record
from pstored.resetreason import Clue
from pstored.terminal import visible

MOST = 100
"""So many boots of the journal are looked at: each costs some seeks in its files."""
LAST_ENTRIES = 30
"""Of a boot's journal, so many are looked at for an orderly end, and kept as its last words."""

MAX_LINE = 500
"""Characters of a line that are kept as last words."""

# systemd's catalog: systemd/sd-messages.h
_JOURNAL_START = "f77379a8490b408bbe5f6940505a777b"
_JOURNAL_STOP = "d93fb3c9c24d451a97cea615ce59c00b"
_UNIT_STARTED = "39f53479d3a045ac8e11786248231fbf"
_ENDS = frozenset(f"{name}.target" for name in ("shutdown", "reboot", "poweroff", "halt", "kexec", "final", "umount"))


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
    crashes: tuple[str, ...]
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


class History:
    """Everything that tells of this machine's boots, read when it is first asked for."""

    def __init__(self, archive: Archive, ledger: Sequence[Boot], journal: BootJournal, running: str | None) -> None:
        self.archive = archive
        self.ledger = ledger
        self.journal = journal
        self.running = running
        self._journal_boots = {boot.boot_id: boot for boot in journal.boots(MOST)}
        self._crashes = _by_boot(archive.crash_summaries())
        self._consoles = {console.boot_id: console for console in consoles(archive)}

    def boots(self) -> list[PastBoot]:
        """All of them, oldest first; the running one is the last."""
        by_id = {boot.boot_id: boot for boot in self.ledger}
        order = merge([boot.boot_id for boot in self.ledger], list(self._journal_boots), self._start)
        found = []
        for at, boot_id in enumerate(order):
            following = by_id.get(order[at + 1]) if at + 1 < len(order) else None
            found.append(self._past(boot_id, by_id.get(boot_id), following.clues if following is not None else ()))
        return found

    def witnesses(self, boot_id: str, known: Boot | None) -> tuple[Witness, ...]:
        """What the witnesses of a boot's end say now."""
        said = (_ledgers(known), self._journals(boot_id), _consoles(self._consoles.get(boot_id)))
        return tuple(t for t in said if t is not None)

    def last_words(self, boot_id: str) -> list[str]:
        """The last lines of a boot: its journal's, else its console's."""
        if boot_id in self._journal_boots:
            return [_journal_line(e) for e in self._live_entries(boot_id)]
        console = self._consoles.get(boot_id)
        return [] if console is None else _tail(self.archive, console)

    def _past(self, boot_id: str, known: Boot | None, clues: tuple[Clue, ...]) -> PastBoot:
        crashes = self._crashes.get(boot_id, [])
        in_journal = self._journal_boots.get(boot_id)
        start, uptime_s, last_wall = _span(known, in_journal)
        if boot_id == self.running:
            end = End(EndKind.RUNNING, ())
        else:
            told = tuple(CrashOf(c["id"], c["kind"], c["severity"], c["title"]) for c in crashes)
            settled = known.witnesses if known is not None else None
            said = self.witnesses(boot_id, known) if settled is None else settled
            end = judge(Evidence(told, said, clues))
        died_at = self._died_at(crashes)
        if died_at is not None and (uptime_s is None or died_at > uptime_s):
            uptime_s = died_at
        exact = died_at is not None or end.kind in (EndKind.CLEAN, EndKind.RUNNING)
        kernel = known.kernel if known is not None else next((c["kernel"] for c in crashes), None)
        return PastBoot(
            boot_id, kernel, start, uptime_s, last_wall, exact, end, tuple(c["id"] for c in crashes), clues, known
        )

    def _died_at(self, crashes: list[dict[str, Any]]) -> float | None:
        """Seconds into its boot at which the last of its crashes was logged."""
        for summary in reversed(crashes):
            if summary["severity"] == "panic":
                try:
                    uptime = self.archive.load_crash(summary["id"])["time"].get("uptime_s")
                except ArchiveError:
                    continue
                return uptime if isinstance(uptime, int | float) else None
        return None

    def _start(self, boot_id: str) -> float | None:
        known = next((boot for boot in self.ledger if boot.boot_id == boot_id), None)
        return _span(known, self._journal_boots.get(boot_id))[0]

    def _journals(self, boot_id: str) -> Witness | None:
        entries = self._live_entries(boot_id) if boot_id in self._journal_boots else []
        if not entries:
            return None
        stop = _orderly(entries)
        if stop is not None:
            return Witness(True, f"journal: it ends in order: {_journal_line(stop)}")
        return Witness(False, f"journal: it breaks off: {_journal_line(entries[-1])}")

    def _live_entries(self, boot_id: str) -> list[dict[str, Any]]:
        """Its last entries, without those that we have restored."""
        entries = self.journal.last_entries(boot_id, LAST_ENTRIES)
        return [e for e in entries if "PSTORE_RESTORED" not in e]


def merge(ledger: list[str], journal: list[str], start: Callable[[str], float | None]) -> list[str]:
    """Two orders of boots as one: each keeps its own; between two boots that both know, the earlier comes first."""
    shared = [boot_id for boot_id in ledger if boot_id in set(journal)]
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


def _by_boot(summaries: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for summary in summaries:
        if summary["boot"]:
            found.setdefault(summary["boot"], []).append(summary)
    return found


# -- witnesses


def _ledgers(known: Boot | None) -> Witness | None:
    if known is None:
        return None
    if known.closed:
        return Witness(True, "ledger: the service manager was stopping the system when pstored last ran in it")
    if known.closes:
        return Witness(False, f"ledger: {HARVEST_UNIT} was there to note an orderly end, and has noted none")
    return None


def _consoles(console: Console | None) -> Witness | None:
    if console is None:
        return None
    how = "ends with an orderly shutdown" if console.orderly else "breaks off without an orderly shutdown"
    return Witness(console.orderly, f"console: {console.name} of harvest {console.harvest_id} {how}")


def consoles(archive: Archive) -> list[Console]:
    """The consoles that the newest harvests brought and that show no crash, oldest first."""
    found = []
    for harvest_id in archive.harvest_ids()[-MOST:]:
        try:
            analyzed = load_json(os.path.join(archive.harvest_directory(harvest_id), "analyzed.json"))
            found += [Console(c["boot_id"], harvest_id, c["name"], c["orderly"]) for c in analyzed["consoles"]]
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


def _orderly(entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The entry that says that the boot ended in order, unless journald has started once more behind it."""
    found = None
    for entry in entries:
        message_id = str(entry.get("MESSAGE_ID", "")).replace("-", "")
        if message_id == _JOURNAL_START:
            found = None
        elif message_id == _JOURNAL_STOP or (message_id == _UNIT_STARTED and entry.get("UNIT") in _ENDS):
            found = entry
    return found


def _journal_line(entry: dict[str, Any]) -> str:
    """As ``journalctl -o short-monotonic`` shows it, without the host."""
    seconds = entry["__MONOTONIC_TIMESTAMP"] / 1e6
    who = _text(entry.get("SYSLOG_IDENTIFIER") or entry.get("_COMM") or "?")
    return f"[{seconds:12.6f}] {who}: {_text(entry.get('MESSAGE', ''))}"


def _text(value: object) -> str:
    """A field's value, made safe to show; the first of several."""
    value = value[0] if isinstance(value, list) and value else value
    return visible(value)[:MAX_LINE] if isinstance(value, str | bytes) else "?"
