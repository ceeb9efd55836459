# SPDX-License-Identifier: Apache-2.0
"""The delivery: drains each sink's outbox; a sink that is down delays only itself."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from pstored.archive import Archive
from pstored.config import Config
from pstored.errors import ArchiveError, SinkError
from pstored.outbox import Entry, Outbox, enabled_sinks


class Sink(Protocol):
    """Where crashes go."""

    def deliver(self, crash: dict[str, Any], *, text: bytes, report_path: str) -> dict[str, Any]:
        """Deliver one crash, once: a sink that has it already only says so.  Gives a receipt; raises SinkError."""


class Delivery(NamedTuple):
    """What one run delivered."""

    delivered: tuple[Entry, ...]
    pending: tuple[Entry, ...]
    """Still to be delivered, or refused."""

    def exit_status(self) -> int:
        """0, or 75 if something is still to be delivered."""
        return SinkError.exit_status if any(not e.refused for e in self.pending) else 0


def _journal(config: Config) -> Sink:
    from pstored.sinks.journal import JournalSink

    return JournalSink(config.journal)


SINKS: dict[str, Callable[[Config], Sink]] = {"journal": _journal}
"""Name to maker; a sink's module is imported only when it has something to deliver."""


def deliver(archive: Archive, config: Config) -> Delivery:
    """Deliver what is pending; the caller holds the archive's lock."""
    outbox = Outbox(archive)
    delivered: list[Entry] = []
    pending: list[Entry] = []
    for name in enabled_sinks(config):
        entries = list(outbox.pending(name))
        if not entries:
            continue
        sink = SINKS[name](config)
        for at, entry in enumerate(entries):
            if entry.refused:
                pending.append(entry)
                continue
            failure = _deliver_one(archive, outbox, sink, entry)
            if failure is None:
                delivered.append(entry)
                continue
            error = f"{failure} ({failure.hint})" if failure.hint else str(failure)
            outbox.failed(entry, error, refused=not failure.retry)
            pending.append(entry._replace(error=error, refused=not failure.retry))
            if failure.retry:  # the sink is down: the rest waits, too
                pending += entries[at + 1 :]
                break
    return Delivery(tuple(delivered), tuple(pending))


def _deliver_one(archive: Archive, outbox: Outbox, sink: Sink, entry: Entry) -> SinkError | None:
    directory = archive.crash_directory(entry.crash_id)
    try:
        crash = archive.load_crash(entry.crash_id)
        receipt = sink.deliver(crash, text=_text(directory), report_path=os.path.join(directory, "crash.json"))
    except (ArchiveError, KeyError, TypeError) as e:
        # set aside: analyzing the crash again puts it back
        return SinkError(f"the report cannot be read ({e}); `pstored analyze --all` makes it again", retry=False)
    except SinkError as e:
        return e
    outbox.done(entry, receipt)
    return None


def _text(directory: str) -> bytes:
    """The crashed kernel's log: its dumps, else its console."""
    for name in ("dmesg.txt", "console.txt", "mce.txt"):
        try:
            with open(os.path.join(directory, name), "rb") as f:
                return f.read()
        except OSError:
            continue
    return b""
