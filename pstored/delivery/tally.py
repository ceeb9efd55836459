# SPDX-License-Identifier: Apache-2.0
"""Counting the archive for metrics: what is counted is kept with what a sink was sent, so that counters only grow.

A crash that comes and goes between two rounds is not counted: nobody was there to see it.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from pstored import __version__
from pstored.archive import Archive
from pstored.boots.ends import EndKind
from pstored.boots.history import History
from pstored.boots.ledger import Boot, read_ledger
from pstored.config import Config
from pstored.delivery.courier import missing
from pstored.delivery.exposition import sample
from pstored.delivery.metrics import (
    ENDS,
    REASONS,
    Counted,
    Family,
    NewCrash,
    Standing,
    count,
    count_boots,
    families,
)
from pstored.delivery.outgoing import Outgoing
from pstored.errors import ArchiveError
from pstored.host import Host
from pstored.ids import stamp_seconds
from pstored.journal.bootjournal import BootJournal
from pstored.sinks import settings
from pstored.summary import Summary

FILE = "counters.json"
NOTHING: Mapping[str, int] = MappingProxyType({})


def measure(
    host: Host, archive: Archive, config: Config, sink: str, *, shown: Mapping[str, int] = NOTHING
) -> tuple[Family, ...]:
    """Bring the counters of a sink up to now, durably, and give all there is to measure; the caller holds its lock.

    Args:
        host: whose boots they are.
        archive: what is counted.
        config: which sinks there are, and the archive's limits.
        sink: whose counters.
        shown: what the sink shows of them, by sample (pstored.delivery.exposition): no less, where the notes are gone.
    """
    outgoing = Outgoing(archive, sink)
    before = _read(outgoing.load(FILE))
    summaries = archive.crash_summaries()
    counted = Counted(time.time_ns(), {}, 0, frozenset()) if before is None else before
    counted = count(counted, [s["id"] for s in summaries], _new(archive, summaries, counted))
    ledger = read_ledger(archive)
    counted = count_boots(counted, [b.boot_id for b in ledger], _ended(host, archive, ledger, counted.known_boots))
    if before is None:
        counted = _no_less(counted, shown)
    if counted != before:
        known = {"known": sorted(counted.known), "known_boots": sorted(counted.known_boots)}
        outgoing.write(FILE, counted._asdict() | known)
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


def is_behind(archive: Archive, sink: str) -> bool:
    """Whether there are crashes that the counters of a sink do not have."""
    counted = _read(Outgoing(archive, sink).load(FILE))
    return counted is None or any(s["revision"] and s["id"] not in counted.known for s in archive.crash_summaries())


def _no_less(counted: Counted, shown: Mapping[str, int]) -> Counted:
    def raised(name: str, label: str, words: tuple[str, ...], numbers: Mapping[str, int]) -> dict[str, int]:
        return {w: max(numbers.get(w, 0), shown.get(sample(name, {label: w}), 0)) for w in words}

    return counted._replace(
        crashes=raised("pstored_crashes_total", "reason", REASONS, counted.crashes),
        boots=raised("pstored_boots_total", "end", ENDS, counted.boots),
        ecc_corrected_bytes=max(counted.ecc_corrected_bytes, shown.get("pstored_ecc_corrected_bytes_total", 0)),
    )


def _ended(host: Host, archive: Archive, ledger: list[Boot], known: frozenset[str]) -> dict[str, str]:
    """The boots that are over, and not counted yet, and how they ended.

    As ``pstored boots`` has it, but for the journal, which who delivers may not read: what it said of them is in the
    ledger.  Of the boot before this one, nothing but proof counts until its witnesses have been asked.
    """
    running = host.boot_id() or Host().boot_id()
    if all(boot.boot_id in known or boot.boot_id == running for boot in ledger):
        return {}
    history = History(archive, ledger, BootJournal(None), running, archive.crash_summaries())
    found = {}
    for boot, following in pairwise(history.boots()):
        if boot.known is None or boot.boot_id in known or boot.end.kind is EndKind.RUNNING:
            continue
        settled = boot.known.witnesses is not None or boot.end.kind in (EndKind.PANIC, EndKind.OOPS, EndKind.CLEAN)
        if settled or following.end.kind is not EndKind.RUNNING:
            found[boot.boot_id] = boot.end.kind.value
    return found


def _read(found: Mapping[str, Any]) -> Counted | None:
    """What was counted; None, if that cannot be read."""
    start, crashes = found.get("start_ns"), found.get("crashes")
    corrected, known = found.get("ecc_corrected_bytes"), found.get("known")
    if (
        not isinstance(start, int)
        or not isinstance(crashes, dict)
        or not all(isinstance(number, int) for number in crashes.values())
        or not isinstance(corrected, int)
        or not isinstance(known, list)
    ):
        return None
    counted = Counted(start, crashes, corrected, frozenset(i for i in known if isinstance(i, str)))
    boots, known_boots = found.get("boots"), found.get("known_boots")
    if not isinstance(boots, dict) or not isinstance(known_boots, list):
        return counted  # of a version that did not count boots
    ends = {end: number for end, number in boots.items() if isinstance(number, int)}
    return counted._replace(boots=ends, known_boots=frozenset(i for i in known_boots if isinstance(i, str)))


def _new(archive: Archive, summaries: Sequence[Summary], counted: Counted) -> Iterator[NewCrash]:
    for summary in summaries:
        if summary["id"] in counted.known or not summary["revision"]:
            continue
        corrected = 0
        with contextlib.suppress(ArchiveError, KeyError, TypeError):
            records = archive.load_crash(summary["id"])["records"]
            corrected = sum(record["ecc"]["corrected_bytes"] for record in records if record["ecc"])
        yield NewCrash(summary["id"], summary["severity"], corrected)


def _last(summaries: Sequence[Summary]) -> float | None:
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
