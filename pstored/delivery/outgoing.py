# SPDX-License-Identifier: Apache-2.0
r"""What each outgoing sink has been sent, and what failed: on disk, in a place that is the delivering user's own.

::

    outgoing/                              0755, owned by who delivers (systemd: the user pstored); nobody else writes
        <sink>/                            locked (flock) by who delivers to it
            <crash-id>.<revision>.<state>          one crash
            <crash-id>.<revision>x<count>.<state>  that crash, and with it others like it, which the file names
            sink.json                      failures in a row, when the next try is due, and why
            counters.json                  what was counted for metrics (pstored.delivery.tally)

What is to be sent is written nowhere: it is what the archive has and this has not.  So who delivers need not write in
the archive, and who writes in the archive need not write here, where another user could lay traps for it.  States, the
later one counting where a kill has left two::

    new       (only where a file must say which crashes it stands for, or that it is to be tried again)
    failed    tried, and to be tried again
    dropped   taken out by a person
    refused   the sink said no for good
    sent      the sink has it

Files are 0644: that others may not read them is up to the directory above, the archive's.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from pstored import durable
from pstored.archive import Archive
from pstored.config import read_plain
from pstored.documents import dump_json
from pstored.errors import ArchiveError

SCHEMA = 1
DIRECTORY_MODE = 0o755
FILE_MODE = 0o644
MAX_FILE = 16 * 1024 * 1024
"""One that names half a million crashes."""
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}")
_NAME = re.compile(r"([0-9]{8}T[0-9]{6}Z-[0-9a-f]{12})\.([0-9]{1,9})(?:x([0-9]{1,9}))?\.([a-z]+)")


class State(StrEnum):
    """How far an item has come; later ones count more."""

    NEW = "new"
    FAILED = "failed"
    DROPPED = "dropped"
    REFUSED = "refused"
    SENT = "sent"

    def is_settled(self) -> bool:
        """Whether it is not to be tried again, unless a person says so."""
        return self in (State.DROPPED, State.REFUSED, State.SENT)


_RANK = {state: rank for rank, state in enumerate(State)}


class Item(NamedTuple):
    """What is sent in one go: a revision of a crash, which may stand for others like it, too."""

    crash_id: str
    """The newest of them."""
    revision: int
    stands_for: int = 1
    """How many crashes."""

    @property
    def name(self) -> str:
        """Of its files, without the state."""
        return f"{self.crash_id}.{self.revision}" + (f"x{self.stands_for}" if self.stands_for > 1 else "")


class Health(NamedTuple):
    """How the sink itself is."""

    failures: int = 0
    """In a row."""
    next: float | None = None
    """Not before this, Unix seconds."""
    error: str | None = None
    failed: int = 0
    """In all, ever."""


class Outgoing:
    """What one sink has been sent."""

    def __init__(self, archive: Archive, sink: str) -> None:
        self.parent = archive.outgoing
        self.directory = os.path.join(self.parent, sink)

    @contextlib.contextmanager
    def lock(self, *, wait: bool) -> Iterator[bool]:
        """Be the only one to write here, made if it is not there; gives False, without *wait*, if somebody else is.

        Raises:
            ArchiveError: it cannot be made or written.
        """
        durable.make_directory(self.parent, mode=DIRECTORY_MODE)
        durable.make_directory(self.directory, mode=DIRECTORY_MODE)
        with durable.archive_errors("lock", self.directory):
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            with durable.archive_errors("clean", self.directory):
                durable.remove_litter(self.directory)
            yield True
        finally:
            os.close(fd)

    def entries(self) -> dict[Item, State]:
        """All that there is to know but the reasons; empty before the first delivery.

        Raises:
            ArchiveError: it cannot be listed.
        """
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return {}
        except OSError as e:
            raise ArchiveError(f"cannot list {self.directory!r}: {e.strerror}") from e
        found: dict[Item, State] = {}
        for name in names:
            if (match := _NAME.fullmatch(name)) is None or match[4] not in _RANK:
                continue
            item, state = Item(match[1], int(match[2]), int(match[3] or 1)), State(match[4])
            if item not in found or _RANK[found[item]] < _RANK[state]:
                found[item] = state
        return found

    def facts(self, item: Item, state: State) -> dict[str, Any]:
        """What the item's file says; empty if it cannot be read."""
        return self.load(f"{item.name}.{state}")

    def members(self, item: Item, state: State) -> tuple[str, ...]:
        """The crashes that an item stands for, oldest first."""
        if item.stands_for == 1:
            return (item.crash_id,)
        ids = self.facts(item, state).get("crashes")
        ids = ids if isinstance(ids, list) else []
        return tuple(i for i in ids if isinstance(i, str) and _ID.fullmatch(i)) or (item.crash_id,)

    def put(self, item: Item, state: State, facts: Mapping[str, Any], *, members: tuple[str, ...] = ()) -> None:
        """Note how far an item has come, durably; the caller holds the lock."""
        document = {"schema": SCHEMA} | dict(facts) | ({"crashes": list(members)} if item.stands_for > 1 else {})
        self.write(f"{item.name}.{state}", document)
        for other in State:
            if other is not state:
                self._remove(f"{item.name}.{other}")

    def forget(self, item: Item) -> None:
        """Take out all there is about an item; the caller holds the lock."""
        for state in State:
            self._remove(f"{item.name}.{state}")

    def health(self) -> Health:
        """How the sink is; well, if that cannot be read."""
        found = self.load("sink.json")
        failures, due, error = found.get("failures"), found.get("next"), found.get("error")
        failed = found.get("failed")
        return Health(
            failures if isinstance(failures, int) and failures > 0 else 0,
            float(due) if isinstance(due, int | float) else None,
            error if isinstance(error, str) else None,
            failed if isinstance(failed, int) and failed > 0 else 0,
        )

    def set_health(self, health: Health) -> None:
        """Note how the sink is, if that is news; the caller holds the lock."""
        if health != self.health():
            self.write("sink.json", {"schema": SCHEMA} | health._asdict())

    def write(self, name: str, document: dict[str, Any]) -> None:
        """Write a file of the sink, durably; the caller holds the lock."""
        durable.replace_files(self.directory, {name: dump_json(document)}, scratch=self.directory, mode=FILE_MODE)

    def _remove(self, name: str) -> None:
        path = os.path.join(self.directory, name)
        if os.path.lexists(path):
            with durable.archive_errors("remove from", self.directory):
                durable.remove_file(path)

    def load(self, name: str) -> dict[str, Any]:
        """What a file of the sink says; empty if it cannot be read."""
        try:
            data, _ = read_plain(os.path.join(self.directory, name), MAX_FILE, flags=os.O_NOFOLLOW)
            found = json.loads(data)
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}
