# SPDX-License-Identifier: Apache-2.0
"""The archive's limits: bytes, count and age.  Harvests go oldest first; what matters most goes last.

Kept as long as anything else is left to remove: what a sink is still to get, and the first and the latest crash of each
signature (pstored.oops.signature, the loose one).  The newest harvest always stays; and so does one with a record that
is still in the store, which would be taken for a new one, and told again.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

from pstored import durable
from pstored.archive import Archive
from pstored.config import Config
from pstored.delivery.outbox import Outbox, enabled_sinks
from pstored.documents import load_json
from pstored.errors import ArchiveError, StoreError
from pstored.ids import id_stamp, stamp_seconds
from pstored.index import Index
from pstored.store import RecordReadError, Store, record_key


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
    units = _units(archive, config)
    if limits.max_bytes:
        units = _sized(archive, units)
    count = sum(len(u.harvests) for u in units)
    size = sum(u.size for u in units)
    oldest = _oldest(archive, limits.max_age_days, time.time_ns() if wall_ns is None else wall_ns)
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


def _ends(crashes: list[dict[str, Any]]) -> set[str]:
    """The first and the latest crash of each bug."""
    first: dict[tuple[str, ...], str] = {}
    latest: dict[tuple[str, ...], str] = {}
    for crash in crashes:
        if crash["harvests"]:
            first.setdefault(_signature(crash), crash["id"])
            latest[_signature(crash)] = crash["id"]
    return {*first.values(), *latest.values()}


def _signature(crash: dict[str, Any]) -> tuple[str, ...]:
    """What crashes of one bug share; of a report without a signature (an older one's, a reset's), kind and function."""
    loose = crash["signature_loose"]
    return (loose,) if isinstance(loose, str) else (crash["kind"], str(crash["function"]))


def _sized(archive: Archive, units: list[_Unit]) -> list[_Unit]:
    """The same with the bytes of all their files.

    A file of the archive comes and goes with its name, so a directory's mtime tells whether it is as large as it was.
    """

    def state(name: str) -> int:
        return os.stat(f"{archive.path}/{name}").st_mtime_ns

    def measure(name: str) -> dict[str, Any] | None:
        try:
            mtime_ns = state(name)
            size = sum(e.stat(follow_symlinks=False).st_size for e in os.scandir(f"{archive.path}/{name}"))
        except OSError:
            return None
        return {"id": name, "mtime_ns": mtime_ns, "size": size}

    def is_current(entry: dict[str, Any]) -> bool:
        try:
            return isinstance(entry.get("size"), int) and entry.get("mtime_ns") == state(entry["id"])
        except OSError:
            return False

    names = [[*(f"harvests/{h}" for h in u.harvests), *(f"crashes/{c}" for c in u.crashes)] for u in units]
    sizes = Index(f"{archive.path}/sizes.index").healed(chain.from_iterable(names), measure, is_current)
    return [
        u._replace(size=sum(sizes[n]["size"] for n in of if n in sizes)) for u, of in zip(units, names, strict=True)
    ]


def _remove(archive: Archive, unit: _Unit) -> None:
    """Crashes first: one without its records could not be made again; then the harvests."""
    with durable.archive_errors("remove from", archive.path):
        for crash_id in unit.crashes:
            Outbox(archive).forget(crash_id)
            archive.remove_crash(crash_id)
        for harvest_id in unit.harvests:
            durable.remove_tree(archive.harvest_directory(harvest_id))
