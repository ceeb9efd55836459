# SPDX-License-Identifier: Apache-2.0
"""The archive's limits: bytes, count and age.  Harvests go oldest first; what matters most goes last.

Kept as long as anything else is left to remove: what a sink is still to get, and the first and the latest crash of each
signature (pstored.oops.signature, the loose one).  The newest harvest always stays; and so does one with a record that
is still in the store, which would be taken for a new one, and told again.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from pstored import durable
from pstored.archive import Archive
from pstored.config import Archive as Limits
from pstored.config import Config
from pstored.delivery.outbox import Outbox, enabled_sinks
from pstored.documents import load_json
from pstored.errors import ArchiveError, StoreError
from pstored.ids import id_stamp, stamp_seconds
from pstored.index import Index
from pstored.store import RecordReadError, Store, record_key
from pstored.summary import Summary

_HARVEST, _CRASH = "harvests/{}", "crashes/{}"  # directories, below the archive's
NEARLY = 0.9
"""Of the limit for bytes: the sizes that are remembered lack the little that came into a directory later (a sink's line
in delivered.json); the nearer to the limit, the more that matters, and from here on each is looked at."""


class _Unit(NamedTuple):
    """What goes together: harvests that share crashes."""

    harvests: tuple[str, ...]
    crashes: tuple[str, ...]
    value: int
    """0: nobody waits for it, and it is like others."""
    received: bool = False
    """It came over the net: whoever floods the archive with crashes drives out no more than other machines'."""
    size: int = 0
    """Bytes of all files, where they count."""


def prune(archive: Archive, config: Config, *, store: Store, wall_ns: int | None = None) -> list[str]:
    """Remove what is over the limits; gives the harvests removed.  The caller holds the archive's lock."""
    limits = config.archive
    oldest = _oldest(archive, limits.max_age_days, time.time_ns() if wall_ns is None else wall_ns)
    harvests = archive.harvest_ids()
    if not _may_be_over(archive, harvests, limits, oldest):
        return []
    units = _units(archive, config)
    if limits.max_bytes:
        sizes = _sizes(archive, harvests, looked_at=True)
        units = [u._replace(size=sum(sizes.get(name, 0) for name in _names(u))) for u in units]
    count = sum(len(u.harvests) for u in units)
    size = sum(u.size for u in units)
    removed: list[str] = []
    present: set[str] | None = None
    for unit in sorted(units[:-1], key=lambda u: (not u.received, u.value, u.harvests)):
        too_many = bool(limits.max_harvests) and count > limits.max_harvests
        too_large = bool(limits.max_bytes) and size > limits.max_bytes
        too_old = bool(limits.max_age_days) and unit.harvests[-1] < oldest and not unit.value
        if too_many or too_large or too_old:
            present = _keys_in(store) if present is None else present
            if not present.isdisjoint(_keys_of(archive, unit)):
                continue
            _remove(archive, unit)
            removed += unit.harvests
            count -= len(unit.harvests)
            size -= unit.size
    return removed


def _keys_in(store: Store) -> set[str]:
    """The identities of what is in the store."""
    found = set()
    try:
        for name in store.names():
            with contextlib.suppress(RecordReadError):
                found.add(record_key(name, store.digest(name)))
    except StoreError:
        pass  # said by the harvest
    return found


def _keys_of(archive: Archive, unit: _Unit) -> Iterator[str]:
    for harvest_id in unit.harvests:
        with contextlib.suppress(ArchiveError):
            yield from (receipt.key for receipt in archive.load_harvest(harvest_id).receipts)


def _oldest(archive: Archive, max_age_days: int, wall_ns: int) -> str:
    """Ids that sort before this are too old; a clock that is ahead of the newest harvest is not believed."""
    if not max_age_days:
        return ""
    now = id_stamp(wall_ns // 1_000_000_000)
    newest = min(now, next(archive.newest_harvests(), now).split("-")[0])
    return id_stamp(stamp_seconds(newest) - max_age_days * 86400)


def _units(archive: Archive, config: Config) -> list[_Unit]:
    """All harvests, oldest first, with their crashes."""
    crashes = archive.crash_summaries()
    outbox = Outbox(archive)
    due = {e.crash_id for sink in enabled_sinks(config) for e in outbox.pending(sink)} | _due_outgoing(archive, config)
    matters = _ends(crashes)
    received = {c["id"] for c in crashes if c["sender"]}
    owner: dict[str, int] = {}
    groups: list[tuple[set[str], list[str]]] = []
    for crash in crashes:
        harvests = set(crash["harvests"])
        joined = {owner[h] for h in harvests if h in owner}
        members = [crash["id"]]
        for at in joined:  # a crash that two groups share makes them one
            harvests |= groups[at][0]
            members = groups[at][1] + members
            groups[at] = (set(), [])
        owner.update(dict.fromkeys(harvests, len(groups)))
        groups.append((harvests, members))
    units = []
    for harvests, members in groups:
        if harvests:
            # of many that are like one another and all still to be delivered, in a crash loop, first and latest go last
            value = (not due.isdisjoint(members)) + (not matters.isdisjoint(members))
            units.append(_Unit(tuple(sorted(harvests)), tuple(members), value, received.issuperset(members)))
    unanalyzed = set(archive.unanalyzed())
    damaged = {c["id"] for c in crashes if not c["harvests"]}
    for harvest_id in archive.harvest_ids():
        if harvest_id not in owner:
            theirs = sorted(damaged.intersection(_crashes_of(archive, harvest_id)))
            # a report that cannot be read can only be made again from its harvest, and one still to be made, too
            units.append(_Unit((harvest_id,), tuple(theirs), 2 * bool(theirs or harvest_id in unanalyzed)))
    return sorted(units, key=lambda u: u.harvests[-1])


def _due_outgoing(archive: Archive, config: Config) -> set[str]:
    """What the outgoing sinks are still to get."""
    if not config.outgoing:
        return set()
    from pstored.delivery.courier import missing
    from pstored.sinks import settings

    return {crash_id for sink in settings.enabled(config.outgoing) for crash_id in missing(archive, sink)}


def _crashes_of(archive: Archive, harvest_id: str) -> list[str]:
    try:
        found = load_json(os.path.join(archive.harvest_directory(harvest_id), "analyzed.json"))["crashes"]
    except (ArchiveError, KeyError):
        return []
    return [c for c in found if isinstance(c, str)] if isinstance(found, list) else []


def _ends(crashes: Iterable[Summary]) -> set[str]:
    """The first and the latest crash of each bug."""
    first: dict[tuple[str, ...], str] = {}
    latest: dict[tuple[str, ...], str] = {}
    for crash in crashes:
        if crash["harvests"]:
            first.setdefault(_signature(crash), crash["id"])
            latest[_signature(crash)] = crash["id"]
    return {*first.values(), *latest.values()}


def _signature(crash: Summary) -> tuple[str, ...]:
    """What crashes of one bug share; of a report without a signature (an older one's, a reset's), kind and function."""
    loose = crash["signature_loose"]
    return (loose,) if isinstance(loose, str) else (crash["kind"], str(crash["function"]))


def _may_be_over(archive: Archive, harvests: list[str], limits: Limits, oldest: str) -> bool:
    """Whether a closer look at each harvest and crash is worth its time."""
    if limits.max_harvests and len(harvests) > limits.max_harvests:
        return True
    if harvests and harvests[0] < oldest:
        return True
    return bool(limits.max_bytes) and sum(_sizes(archive, harvests).values()) > NEARLY * limits.max_bytes


def _sizes(archive: Archive, harvests: list[str], *, looked_at: bool = False) -> dict[str, int]:
    """Bytes of all files of each harvest and crash, by directory.

    Remembered ones are of when a harvest, or this revision of a crash, was measured.  If each is *looked_at*, they are
    of now: a file of the archive comes and goes with its name, so a directory's mtime tells of a change.
    """
    states = dict.fromkeys(map(_HARVEST.format, harvests), "")
    states |= {_CRASH.format(crash["id"]): crash.state for crash in archive.remembered_crashes()}

    def changed(name: str) -> int:
        return os.stat(f"{archive.path}/{name}").st_mtime_ns

    def measure(name: str) -> tuple[int, list[str]] | None:
        try:
            mtime_ns = changed(name)
            size = sum(e.stat(follow_symlinks=False).st_size for e in os.scandir(f"{archive.path}/{name}"))
        except OSError:
            return None
        return size, [name, str(size), str(mtime_ns), states[name]]

    def keep(words: list[str]) -> int | None:
        try:
            name, size, mtime_ns, state = words
            is_so = int(mtime_ns) == changed(name) if looked_at else state == states.get(name)
            return int(size) if is_so else None
        except (ValueError, OSError):
            return None

    return Index(f"{archive.path}/sizes.index").healed(states, keep, measure, write=True)


def _names(unit: _Unit) -> Iterator[str]:
    """The directories of a unit, below the archive's."""
    return chain(map(_HARVEST.format, unit.harvests), map(_CRASH.format, unit.crashes))


def _remove(archive: Archive, unit: _Unit) -> None:
    """Crashes first: one without its records could not be made again; then the harvests."""
    with durable.archive_errors("remove from", archive.path):
        for crash_id in unit.crashes:
            Outbox(archive).forget(crash_id)
            archive.remove_crash(crash_id)
        for harvest_id in unit.harvests:
            durable.remove_tree(archive.harvest_directory(harvest_id))
