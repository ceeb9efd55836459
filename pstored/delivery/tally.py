# SPDX-License-Identifier: Apache-2.0
"""Counting the archive for metrics: what is counted is kept with what a sink was sent, so that counters only grow.

A crash that comes and goes between two rounds is not counted: nobody was there to see it.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pstored import __version__
from pstored.archive import Archive, stamp_seconds
from pstored.config import Config
from pstored.delivery.courier import missing
from pstored.delivery.metrics import Counted, Family, NewCrash, Standing, count, families
from pstored.delivery.outgoing import Outgoing
from pstored.errors import ArchiveError
from pstored.host import Host
from pstored.sinks import settings

FILE = "counters.json"


def measure(host: Host, archive: Archive, config: Config, sink: str) -> tuple[Family, ...]:
    """Bring the counters of a sink up to now, durably, and give all there is to measure; the caller holds its lock."""
    outgoing = Outgoing(archive, sink)
    before = _read(outgoing.load(FILE))
    summaries = archive.crash_summaries()
    ids = [s["id"] for s in summaries]
    counted = count(before, ids, _new(archive, summaries, before))
    if counted != before:
        outgoing.write(FILE, counted._asdict() | {"known": sorted(counted.known)})
    sinks = settings.enabled(config.outgoing)
    standing = Standing(
        version=__version__,
        backend=host.facts().backend,
        last_crash_s=_last(summaries),
        records=len(archive.known_keys()),
        archive_bytes=_size(archive),
        archive_limit_bytes=config.archive.max_bytes,
        pending={name: len(missing(archive, name)) for name in sinks},
        failures={name: Outgoing(archive, name).health().failed for name in sinks},
    )
    return families(counted, standing)


def _read(found: Mapping[str, Any]) -> Counted:
    """What was counted; from now on, if that cannot be read."""
    start, crashes = found.get("start_ns"), found.get("crashes")
    corrected, known = found.get("ecc_corrected_bytes"), found.get("known")
    if (
        not isinstance(start, int)
        or not isinstance(crashes, dict)
        or not all(isinstance(number, int) for number in crashes.values())
        or not isinstance(corrected, int)
        or not isinstance(known, list)
    ):
        return Counted(time.time_ns(), {}, 0, frozenset())
    return Counted(start, crashes, corrected, frozenset(i for i in known if isinstance(i, str)))


def _new(archive: Archive, summaries: list[dict[str, Any]], counted: Counted) -> Iterator[NewCrash]:
    for summary in summaries:
        if summary["id"] in counted.known or not summary["revision"]:
            continue
        corrected = 0
        with contextlib.suppress(ArchiveError, KeyError, TypeError):
            records = archive.load_crash(summary["id"])["records"]
            corrected = sum(record["ecc"]["corrected_bytes"] for record in records if record["ecc"])
        yield NewCrash(summary["id"], summary["severity"], corrected)


def _last(summaries: list[dict[str, Any]]) -> float | None:
    if not summaries:
        return None
    newest = summaries[-1]
    if newest["time"] is None or newest["doubtful"]:
        return float(stamp_seconds(newest["id"][:16]))
    from datetime import datetime

    return datetime.fromisoformat(newest["time"]).timestamp()


def _size(archive: Archive) -> int:
    """Bytes of the harvests and crashes, which is what the limit is for."""
    total = 0
    for top in (archive.harvests, archive.crashes):
        for directory, _, names in os.walk(top):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.stat(os.path.join(directory, name), follow_symlinks=False).st_size
    return total
