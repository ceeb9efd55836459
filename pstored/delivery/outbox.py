# SPDX-License-Identifier: Apache-2.0
"""What is still to be delivered, per sink, on disk; and what has been.

``outbox/<sink>/<crash-id>.json`` is there until the sink has the crash; then ``crashes/<crash-id>/delivered.json``
says so, and that file is the one thing in a crash's directory that cannot be made again.  Killed between the sink's
word and ours, a delivery is done again: each sink first looks whether it has the crash already.
"""

import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pstored import durable
from pstored.archive import Archive
from pstored.config import Config
from pstored.documents import dump_json, recall, utc

SCHEMA = 1
_ENTRY = re.compile(r"([0-9]{8}T[0-9]{6}Z-[0-9a-f]{12})\.json")


class Entry(NamedTuple):
    """One crash that one sink is still to get."""

    sink: str
    crash_id: str
    revision: int
    attempts: int
    error: str | None
    """Why the last attempt failed."""
    refused: bool
    """The sink said no for good; kept, and not tried again."""


def enabled_sinks(config: Config) -> list[str]:
    """The sinks that are to get each crash; what is unset in ``[journal]`` is settled by the caller."""
    wanted = {"journal": config.journal.enabled, "restore": config.journal.restore}
    return [name for name, enabled in wanted.items() if enabled]


class Outbox:
    """The outbox of an archive; the caller holds the archive's lock for everything that writes."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    def put(self, sink: str, crash_id: str, revision: int) -> None:
        """Have a crash delivered, unless the sink has this revision."""
        if self.delivered_revision(sink, crash_id) < revision:
            self._write(Entry(sink, crash_id, revision, 0, None, False))

    def pending(self, sink: str) -> Iterator[Entry]:
        """What the sink is still to get, oldest first; entries that are damaged are begun anew.

        Raises:
            DiskError: it cannot be listed or read now.
        """
        directory = os.path.join(self.archive.outbox, sink)
        for name in _listed(directory):
            if found := _ENTRY.fullmatch(name):
                yield self._read(sink, found[1])

    def failed(self, entry: Entry, error: str, *, refused: bool) -> None:
        """Note that an attempt failed."""
        self._write(entry._replace(attempts=entry.attempts + 1, error=error, refused=refused))

    def done(self, entry: Entry, receipt: dict[str, Any]) -> None:
        """Note that the sink has it: first the receipt, durably, then the entry goes."""
        delivered = self.delivered(entry.crash_id)
        delivered[entry.sink] = {"revision": entry.revision, "time": utc(), "receipt": receipt}
        directory = self.archive.crash_directory(entry.crash_id)
        self.archive.write(directory, {"delivered.json": dump_json({"schema": SCHEMA, "sinks": delivered})})
        self._drop(entry.sink, entry.crash_id)

    def forget(self, crash_id: str) -> None:
        """Take a crash that is no more out of the outbox of every sink."""
        for sink in _listed(self.archive.outbox):
            self._drop(sink, crash_id)

    def delivered_revision(self, sink: str, crash_id: str) -> int:
        """The newest revision that the sink has; 0 if none."""
        entry = self.delivered(crash_id).get(sink)
        revision = entry.get("revision") if isinstance(entry, dict) else None
        return revision if isinstance(revision, int) else 0

    def delivered(self, crash_id: str) -> dict[str, dict[str, Any]]:
        """Sink to what delivered.json says of it.

        Raises:
            DiskError: it cannot be read now.
        """
        found = recall(os.path.join(self.archive.crash_directory(crash_id), "delivered.json")).get("sinks")
        return found if isinstance(found, dict) else {}

    def _drop(self, sink: str, crash_id: str) -> None:
        with durable.archive_errors("remove from", self.archive.outbox):
            durable.remove_file(self._path(sink, crash_id))

    def _path(self, sink: str, crash_id: str) -> str:
        return os.path.join(self.archive.outbox, sink, f"{crash_id}.json")

    def _read(self, sink: str, crash_id: str) -> Entry:
        fields = recall(self._path(sink, crash_id))
        try:
            return Entry(
                sink,
                crash_id,
                int(fields["revision"]),
                int(fields["attempts"]),
                fields.get("error"),
                bool(fields.get("refused")),
            )
        except (KeyError, TypeError, ValueError):
            return Entry(sink, crash_id, 1, 0, None, False)

    def _write(self, entry: Entry) -> None:
        directory, name = os.path.split(self._path(entry.sink, entry.crash_id))
        durable.make_directory(directory)
        self.archive.write(directory, {name: dump_json({"schema": SCHEMA} | entry._asdict())})


def _listed(directory: str) -> list[str]:
    """The names in a directory, sorted; none if it is not there."""
    durable.refuse_link(directory)
    with durable.archive_errors("list", directory):
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []
