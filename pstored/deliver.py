# SPDX-License-Identifier: Apache-2.0
"""The delivery: drains each sink's outbox; a sink that is down delays only itself."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from pstored.archive import Archive
from pstored.config import Config
from pstored.delivery.outbox import Entry, Outbox, enabled_sinks
from pstored.errors import ArchiveError, DiskError, SinkError
from pstored.host import Host


class Sink(Protocol):
    """Where crashes go."""

    def deliver(self, crash: dict[str, Any], *, text: bytes, report_path: str) -> dict[str, Any] | None:
        """Deliver one crash, once: a sink that has it already only says so; raises SinkError.

        Gives a receipt; None if its time has not come: then it stays in the outbox, and nothing is wrong.
        """


class Delivery(NamedTuple):
    """What one run delivered."""

    delivered: tuple[tuple[Entry, dict[str, Any]], ...]
    """With their receipts."""
    pending: tuple[Entry, ...]
    """Still to be delivered, or refused."""

    def exit_status(self) -> int:
        """0, or 75 if something is still to be delivered."""
        return SinkError.exit_status if any(not e.refused for e in self.pending) else 0


def _journal(_host: Host, config: Config, _archive: Archive) -> Sink:
    from pstored.sinks.journal import JournalSink

    return JournalSink(config.journal)


def _restore(host: Host, _config: Config, archive: Archive) -> Sink:
    from pstored.sinks.restore import RestoreSink

    return RestoreSink(host, archive.path)


SINKS: dict[str, Callable[[Host, Config, Archive], Sink]] = {"journal": _journal, "restore": _restore}
"""Name to maker; a sink's module is imported only when it has something to deliver."""


def deliver(host: Host, archive: Archive, config: Config) -> Delivery:
    """Deliver what is pending; the caller holds the archive's lock."""
    outbox = Outbox(archive)
    delivered: list[tuple[Entry, dict[str, Any]]] = []
    pending: list[Entry] = []
    for name in enabled_sinks(config):
        # a crash that fails again and again, and it alone, must not hold up the others for ever
        entries = sorted(outbox.pending(name), key=lambda entry: entry.attempts)
        if not entries:
            continue
        sink = SINKS[name](host, config, archive)
        for at, entry in enumerate(entries):
            if entry.refused:
                pending.append(entry)
                continue
            outcome = _deliver_one(archive, sink, entry)
            if outcome is None:
                continue
            if not isinstance(outcome, SinkError):
                outbox.done(entry, outcome)
                delivered.append((entry, outcome))
                continue
            error = f"{outcome} ({outcome.hint})" if outcome.hint else str(outcome)
            outbox.failed(entry, error, refused=not outcome.retry)
            pending.append(entry._replace(error=error, refused=not outcome.retry))
            if outcome.retry:  # the sink is down: the rest waits, too
                pending += entries[at + 1 :]
                break
    return Delivery(tuple(delivered), tuple(pending))


def _deliver_one(archive: Archive, sink: Sink, entry: Entry) -> dict[str, Any] | SinkError | None:
    """The receipt, or why there is none; None if it is too early."""
    report_path = os.path.join(archive.crash_directory(entry.crash_id), "crash.json")
    try:
        crash = archive.load_crash(entry.crash_id)
        return sink.deliver(crash, text=archive.kernel_log(entry.crash_id), report_path=report_path)
    except DiskError as e:
        return SinkError(str(e))
    except (ArchiveError, KeyError, TypeError) as e:
        # set aside: analyzing the crash again puts it back
        return SinkError(f"the report cannot be read ({e}); `pstored analyze --all` makes it again", retry=False)
    except SinkError as e:
        return e
