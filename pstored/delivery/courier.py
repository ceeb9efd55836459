# SPDX-License-Identifier: Apache-2.0
"""One outgoing sink: what it is still to get, and the round that brings it there, oldest first.

The first failure ends the round: the sink is down, and what comes after waits, in order.  A crash that fails again and
again, and it alone, must not hold up the others for ever: after a few failures of the same one the next is tried as
well, and if that arrives, the sink is not down.  Whatever is killed in between, what is not noted as sent is sent
again, under the same id.
"""

import random
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from pstored.archive import Archive
from pstored.config import Config
from pstored.delivery.outgoing import Health, Item, Outgoing, State
from pstored.delivery.payload import Parcel
from pstored.delivery.repeats import Crash, plan
from pstored.documents import utc
from pstored.errors import ArchiveError, PstoredError, SinkError
from pstored.ids import stamp_seconds
from pstored.sinks import settings
from pstored.sinks.base import OutgoingSink
from pstored.terminal import visible

T = TypeVar("T")

PAUSE = "pause_s"
"""Key of a receipt: the sink has it, and wants to be left alone for so many seconds."""
MINUTE_S = 60.0
PATIENCE = 5
"""So often a crash may fail before the next one is tried as well."""
MOST_WAIT_S = 86400.0
"""No sink is left alone for longer, whatever it asks for; a later time on the disk is a wrong clock's."""
MAX_DOUBLINGS = 30
MAX_ERROR = 1000
"""Characters of a reason that are kept: a server may answer with a page."""


class Waiting(NamedTuple):
    """Something that a sink does not have."""

    item: Item
    members: tuple[str, ...]
    """The crashes that it stands for, oldest first."""
    state: State
    attempts: int = 0
    next: float | None = None
    """Not before this, Unix seconds."""
    error: str | None = None


class Survey(NamedTuple):
    """What one sink does not have."""

    sink: str
    health: Health
    waiting: tuple[Waiting, ...]
    """Also what is set aside: refused, or dropped; in order."""
    held: int
    """Crashes that wait for others like them, to be counted."""
    due: float | None
    """When the next round is due, Unix seconds; None if there is nothing to do."""

    def open(self) -> list[Waiting]:
        """What is still to be sent."""
        return [w for w in self.waiting if not w.state.is_settled()]


def survey(archive: Archive, config: Config, sink: str, now: float) -> Survey:
    """Look at what one sink does not have; writes nothing.

    Raises:
        ArchiveError: the archive, or what was sent, cannot be listed.
    """
    delivery = settings.delivery(config.outgoing)
    outgoing = Outgoing(archive, sink)
    summaries = [s for s in archive.crash_summaries() if s["revision"]]
    settled, waiting = _read(outgoing, {s["id"]: s["revision"] for s in summaries})
    crashes = [Crash(s["id"], s["revision"], s["signature_loose"], stamp_seconds(s["id"][:16])) for s in summaries]
    planned = plan(sorted(crashes), settled, first=delivery.repeat_first, window_s=delivery.repeat_window_s, now_s=now)
    for job in planned.jobs:
        item = Item(job.members[-1], job.revision, len(job.members))
        waiting.append(Waiting(item, job.members, State.NEW))
    waiting.sort(key=lambda w: w.item)
    health = outgoing.health()
    times = [believed(w.next, now) for w in waiting if not w.state.is_settled()]
    due = None
    if times:
        due = max(min(times), believed(health.next, now))
    if planned.next_s is not None:
        due = min(due or float("inf"), max(float(planned.next_s), believed(health.next, now)))
    return Survey(sink, health, tuple(waiting), planned.held, due)


def missing(archive: Archive, sink: str) -> set[str]:
    """The crashes that a sink is still to get, alone or counted; all there are, if that is not known."""
    found = {s["id"]: s["revision"] for s in archive.crash_summaries()}
    try:
        book = _read(Outgoing(archive, sink), found)
    except ArchiveError:
        return set(found)
    open_ids = {i for w in book.waiting if not w.state.is_settled() for i in w.members}
    return {i for i, revision in found.items() if i in open_ids or book.settled.get(i, 0) < revision}


class _Book(NamedTuple):
    """What is noted of a sink."""

    settled: dict[str, int]
    """Crash to the newest revision that needs no new item."""
    waiting: list[Waiting]


def _read(outgoing: Outgoing, newest: Mapping[str, int]) -> _Book:
    """Read what is noted; *newest* is crash to revision, as the archive has them."""
    book = _Book({}, [])
    for item, state in outgoing.entries().items():
        members = outgoing.members(item, state)
        there = newest.keys() & set(members)
        stale = not there or (item.stands_for == 1 and newest[item.crash_id] != item.revision)
        if not stale or state is State.SENT:
            for crash_id in members:
                book.settled[crash_id] = max(book.settled.get(crash_id, 0), item.revision)
        if not stale and state is not State.SENT:
            book.waiting.append(_waiting(outgoing, item, state, members))
    return book


def _waiting(outgoing: Outgoing, item: Item, state: State, members: tuple[str, ...]) -> Waiting:
    facts = outgoing.facts(item, state)
    attempts, due, error = facts.get("attempts"), facts.get("next"), facts.get("error")
    return Waiting(
        item,
        members,
        state,
        attempts if isinstance(attempts, int) else 0,
        float(due) if isinstance(due, int | float) else None,
        error if isinstance(error, str) else None,
    )


def believed(due: float | None, now: float) -> float:
    """When something is due: now, if no time is set, or one that no clock of ours can have meant."""
    return now if due is None or not now < due <= now + MOST_WAIT_S else due


class Round:
    """One round to a sink; the caller holds its lock."""

    def __init__(
        self,
        archive: Archive,
        config: Config,
        sink: str,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._archive = archive
        self._config = config
        self._delivery = settings.delivery(config.outgoing)
        self._outgoing = Outgoing(archive, sink)
        self._sink = sink
        self._clock = clock
        self._chance = chance

    def run(
        self, make: Callable[[], OutgoingSink], pack: Callable[[Waiting], Parcel]
    ) -> Iterator[tuple[Waiting, dict[str, Any]]]:
        """Send what is due, and note it; gives what arrived, with the receipts, as it arrives.

        Args:
            make: gives the sink, if it is to be given something; raises SinkError if that cannot be.
            pack: makes a parcel; raises ArchiveError if the crash cannot be read.
        """
        start = self._clock()
        seen = survey(self._archive, self._config, self._sink, start)
        due = [one for one in seen.open() if believed(one.next, start) <= start]
        if not due or believed(seen.health.next, start) > start:
            return
        sink = _guarded(make)
        if not isinstance(sink, OutgoingSink):
            self.note_trouble(sink if isinstance(sink, SinkError) else SinkError(str(sink)))
            return
        yield from self._send(sink, pack, due, start)
        self._tidy()

    def _send(
        self, sink: OutgoingSink, pack: Callable[[Waiting], Parcel], due: list[Waiting], start: float
    ) -> Iterator[tuple[Waiting, dict[str, Any]]]:
        suspects: list[Waiting] = []
        trouble: SinkError | None = None
        sent = tried = 0
        go_on_at: float | None = None
        for one in due:
            if self._delivery.per_minute and tried >= self._delivery.per_minute:
                go_on_at = start + MINUTE_S
                break
            if self._clock() - start > self._delivery.sink_timeout_s / 2:  # it is slow: the next round goes on
                break
            outcome = self._attempt(sink, pack, one)
            if isinstance(outcome, ArchiveError):
                self._note_failure(one, outcome, alone=True)
                continue
            tried += 1
            if not isinstance(outcome, SinkError):
                self._outgoing.put(one.item, State.SENT, {"time": utc(), "receipt": outcome}, members=one.members)
                for suspect in suspects:
                    self._note_failure(suspect, trouble, alone=True)
                suspects, trouble = [], None
                sent += 1
                yield one, outcome
                if (pause_s := outcome.get(PAUSE)) is not None:
                    go_on_at = self._clock() + min(pause_s, MOST_WAIT_S)
                    break
            elif outcome.retry:
                self._note_failure(one, outcome, alone=False)
                suspects.append(one)
                trouble = outcome
                if one.attempts < PATIENCE or len(suspects) > 1:
                    break
            else:
                self._outgoing.put(one.item, State.REFUSED, _reason(one, outcome), members=one.members)
                if outcome.pause:
                    trouble = outcome
                    break
        if trouble is not None:
            self.note_trouble(trouble, anew=sent > 0)
        elif tried:
            self._outgoing.set_health(Health(next=go_on_at, failed=self._outgoing.health().failed))

    def may_send(self) -> bool:
        """Whether the sink is not to be left alone now."""
        now = self._clock()
        return believed(self._outgoing.health().next, now) <= now

    def note_trouble(self, error: SinkError, *, anew: bool = False) -> None:
        """Note that the sink itself fails, and when it is to be tried again; *anew* after something has arrived."""
        before = self._outgoing.health()
        failures = (0 if anew else before.failures) + 1
        due = self._clock() + self._wait_s(failures, error.after_s)
        self._outgoing.set_health(Health(failures, due, words(error), before.failed + 1))

    def _attempt(
        self, sink: OutgoingSink, pack: Callable[[Waiting], Parcel], one: Waiting
    ) -> dict[str, Any] | SinkError | ArchiveError:
        """The receipt, or why there is none."""
        if (
            one.state is State.NEW and one.item.stands_for > 1
        ):  # which crashes it stands for must be the same at a second try
            self._outgoing.put(one.item, State.NEW, {}, members=one.members)
        return _guarded(lambda: sink.deliver(pack(one)))

    def _note_failure(self, one: Waiting, error: PstoredError | None, *, alone: bool) -> None:
        """Note that an item failed: *alone*, while the sink is well, so that it waits by itself."""
        attempts = one.attempts + 1
        due = self._clock() + self._wait_s(attempts, None) if alone else None
        reason = {"attempts": attempts, "next": due, "error": None if error is None else words(error)}
        self._outgoing.put(one.item, State.FAILED, reason, members=one.members)

    def _wait_s(self, failures: int, after_s: float | None) -> float:
        """How long to wait after so many failures in a row; a fleet that was cut off must not come back as one."""
        doubled = self._delivery.retry_s * 2 ** min(failures - 1, MAX_DOUBLINGS)
        wait_s = min(doubled, self._delivery.retry_max_s) * (0.5 + self._chance() / 2)
        return float(min(max(wait_s, after_s or 0.0), MOST_WAIT_S))

    def _tidy(self) -> None:
        """Take out what is about crashes that are no more, or about older revisions than the one that arrived."""
        entries = self._outgoing.entries()
        there = set(self._archive.crash_ids())
        arrived = {
            item.crash_id: item.revision
            for item, state in sorted(entries.items())
            if state is State.SENT and item.stands_for == 1
        }
        for item, state in entries.items():
            old = item.stands_for == 1 and item.revision < arrived.get(item.crash_id, 0)
            if there and (old or there.isdisjoint(self._outgoing.members(item, state))):
                self._outgoing.forget(item)


def _guarded(do: Callable[[], T]) -> T | SinkError | ArchiveError:
    """What *do* gives, or why it does not: a sink that is broken costs only itself, and its trace is in the log."""
    try:
        return do()
    except (SinkError, ArchiveError) as e:
        return e
    except Exception as e:  # whatever a sink, or what it stands on, may raise  # noqa: BLE001
        traceback.print_exc()
        return SinkError(f"the sink failed: {type(e).__name__}: {e}", hint="this is a bug: please report it")


def words(error: PstoredError) -> str:
    """An error and its hint on one line, no longer than is read."""
    text = f"{error} ({error.hint})" if error.hint else str(error)
    return visible(text)[:MAX_ERROR]


def _reason(one: Waiting, error: SinkError) -> dict[str, Any]:
    return {"attempts": one.attempts + 1, "error": words(error)}
