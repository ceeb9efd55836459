# SPDX-License-Identifier: Apache-2.0
"""What the stages did, for a person and as JSON."""

from __future__ import annotations

from pstored.cli.context import warn
from pstored.documents import utc
from pstored.erase import Outcome
from pstored.harvest import Pass
from pstored.lean import TYPE_CHECKING
from pstored.terminal import some, visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pstored.analyze import Found
    from pstored.deliver import Delivery
    from pstored.intake.bundles import Import
    from pstored.intake.kernellog import Look


def print_json(document: dict[str, Any]) -> None:
    """One object, with its schema."""
    import json

    print(json.dumps({"schema": 1} | document, indent=2))


def pass_facts(done: Pass) -> dict[str, Any]:
    """A harvest."""
    return {
        "id": done.harvest_id,
        "archived": [r.name for r in done.archived],
        "known": done.known,
        "records": [{"name": e.name, "outcome": e.outcome, "why": e.why} for e in done.erasures],
        "warnings": list(done.warnings),
    }


def import_facts(imported: Import | None, *, listed: bool = False) -> dict[str, Any] | None:
    """An import; null if there was nothing.  With what *listed* it, if nothing else was to be done."""
    if imported is None:
        return None
    facts = imported._asdict() | {"archived": [r.name for r in imported.archived]}
    del facts["listed"]
    if listed:
        facts["records"] = [r._asdict() | {"fate": r.fate.value} for r in imported.listed]
    return facts


def delivery_facts(delivery: Delivery) -> dict[str, Any]:
    """A delivery."""
    return {
        "delivered": [{"sink": e.sink, "crash": e.crash_id, "receipt": r} for e, r in delivery.delivered],
        "pending": [
            {"sink": e.sink, "crash": e.crash_id, "error": e.error, "refused": e.refused} for e in delivery.pending
        ],
    }


def look_facts(look: Look | None) -> dict[str, Any] | None:
    """A look into the kernel's log; null if none was to be taken."""
    if look is None:
        return None
    return {"id": look.harvest_id, "reports": look.reports, "warnings": list(look.warnings)}


def print_look(look: Look) -> None:
    """A look into the kernel's log."""
    from pstored.intake.kernellog import DEVICE

    for warning in look.warnings:
        warn(warning)
    if look.harvest_id is not None:
        print(f"{DEVICE}: the log of the running kernel tells of an oops, and is archived")


def print_pass(done: Pass, store: str) -> None:
    """A harvest of *store*."""
    for warning in done.warnings:
        warn(warning)
    if not done.erasures:
        print(f"nothing taken from {store}")
        return
    new = len(done.archived)
    erased = sum(e.outcome is Outcome.ERASED for e in done.erasures)
    what = f"{new} new record{'s' * (new != 1)} archived" if new else "nothing new"
    if done.known:
        what += f", {done.known} archived before"
    print(f"{store}: {what}, {erased} erased from the store")
    reasons: dict[tuple[str, str], list[str]] = {}
    for e in done.erasures:
        if e.is_trouble():
            reasons.setdefault((e.outcome, e.why), []).append(e.name)
    for (outcome, why), names in reasons.items():
        warn(f"{outcome}: {some(names)}: {why}")


def print_import(imported: Import) -> None:
    """An import."""
    new = len(imported.archived)
    what = f"{new} new record{'s' * (new != 1)} imported" if new else "nothing new"
    print(f"{_source(imported)}: {what}" + (f", {imported.known} archived before" if imported.known else ""))
    for note in imported.notes:
        print(note)
    for problem in imported.problems:
        warn(problem)


def print_listed(imported: Import) -> None:
    """What an import would bring."""
    count = len(imported.listed)
    print(f"{_source(imported)}: {count} record{'s' * (count != 1)}")
    for record in imported.listed:
        seconds = record.mtime_ns // 1_000_000_000
        when = utc(seconds) if 0 < seconds < _TIME_MAX else ""
        print(f"  {visible(record.name).ljust(30)} {record.size:9} bytes  {when.ljust(20)}  {record.fate.value}")
        for text in (*record.damage, *record.notes):
            print(f"    {visible(text)}")
    for note in imported.notes:
        print(note)
    for problem in imported.problems:
        warn(problem)


_TIME_MAX = 253_402_300_800
"""10000-01-01: what comes later is damage."""


def _source(imported: Import) -> str:
    """Where from, and of what kind: that of systemd-pstore's own directory goes without saying."""
    kind = f" ({imported.kind})" if imported.kind not in (None, "systemd-pstore") else ""
    return visible(imported.path) + kind


def print_found(found: Found, crashes: Sequence[dict[str, Any]]) -> None:
    """What the analysis found; a line each."""
    from pstored.page.listing import short_line

    for crash in crashes:
        print(short_line(crash))
    for note in found.notes:
        print(note)


def print_delivery(delivery: Delivery) -> None:
    """A delivery."""
    for entry, receipt in delivery.delivered:
        print(f"{entry.sink}: {receipt.get('said', f'has crash {entry.crash_id}')}")
    reasons = {(e.sink, e.error or "waits for those before it") for e in delivery.pending}
    for sink, error in sorted(reasons):
        warn(f"{sink}: not delivered yet, kept: {error}")
