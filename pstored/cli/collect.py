# SPDX-License-Identifier: Apache-2.0
"""``collect`` and its stages: ``harvest``, ``analyze``, ``deliver``, ``stamp``."""

import json
from argparse import Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pstored.cli.context import Context, warn
from pstored.erase import Outcome
from pstored.errors import ArchiveError, StoreError
from pstored.harvest import NOTHING, Pass
from pstored.harvest import harvest as do_harvest
from pstored.terminal import some

if TYPE_CHECKING:
    from pstored.analyze import Found
    from pstored.deliver import Delivery


def _open(options: Namespace) -> Context:
    context = Context(options)
    for problem in context.problems:
        warn(problem)
    return context


def collect(options: Namespace) -> int:
    """All stages once.  A store that cannot be listed does not keep what is archived from being analyzed."""
    context = _open(options)
    store_error: StoreError | None = None
    try:
        done = _harvest(context)
    except StoreError as e:
        store_error, done = e, NOTHING
    try:
        found, crashes, delivery = _rest(context, done)
    except ArchiveError:
        _print_pass(context, done)  # it has been done, whatever comes after
        raise
    status = 1 if found.failures else _status(done, crashes, delivery)
    if options.json:
        _print_json(
            {
                "schema": 1,
                "harvest": _pass_facts(done),
                "crashes": crashes,
                "notes": list(found.notes),
                "delivery": _delivery_facts(delivery),
            }
        )
    else:
        _print_pass(context, done)
        _print_found(found, crashes)
        _print_delivery(delivery)
        if crashes:
            root = "" if options.root == "/" else f"--root {options.root} "
            print(f"see: pstored {root}show {crashes[-1]['id'].split('-')[1][:6]}")
    if store_error is not None:
        raise store_error
    return status


def _harvest(context: Context) -> Pass:
    """Harvest; if the archive has no room, make it keep its limits, and try once more."""
    try:
        return do_harvest(context.host, context.config)
    except ArchiveError:
        if not _make_room(context):
            raise
        return do_harvest(context.host, context.config)


def _make_room(context: Context) -> bool:
    from pstored.quota import prune

    try:
        with context.archive.lock():
            return bool(prune(context.archive, context.config))
    except ArchiveError:
        return False


def _rest(context: Context, done: Pass) -> "tuple[Found, list[dict[str, Any]], Delivery]":
    from pstored.deliver import deliver as do_deliver
    from pstored.quota import prune
    from pstored.stamp import stamp as do_stamp

    stamped = bool(do_stamp(context.host, context.config.boots.stamp_prefix))
    with context.archive.lock():
        found, crashes = _find(context, stamped=stamped, touched=done.touched)
        delivery = do_deliver(context.host, context.archive, context.config)
        for harvest_id in prune(context.archive, context.config):
            warn(f"harvest {harvest_id} was removed: the archive is over its limits")
    return found, crashes, delivery


def _find(
    context: Context, *, stamped: bool = False, again: bool = False, touched: Iterable[str] = ()
) -> "tuple[Found, list[dict[str, Any]]]":
    """Note the running boot, analyze, and give the crashes with what was found; the caller holds the archive's lock."""
    from pstored.analyze import analyze as do_analyze
    from pstored.analyze import note_boot
    from pstored.bootjournal import BootJournal

    note_boot(context.archive, context.host.facts(), stamped=stamped)
    journal = BootJournal(context.host) if context.config.boots.journal else None
    found = do_analyze(context.archive, context.config, journal=journal, again=again, touched=touched)
    for failure in found.failures:
        warn(failure)
    return found, [context.archive.load_crash(i) for i in found.crashes]


def _status(done: Pass, crashes: list[dict[str, Any]], delivery: "Delivery") -> int:
    if done.exit_status() or not all(crash["complete"] for crash in crashes):
        return 1
    return delivery.exit_status()


def harvest(options: Namespace) -> int:
    """The first stage alone: what runs early at boot."""
    context = _open(options)
    done = do_harvest(context.host, context.config)
    if options.json:
        _print_json({"schema": 1, "harvest": _pass_facts(done)})
    else:
        _print_pass(context, done)
    return done.exit_status()


def analyze(options: Namespace) -> int:
    """The second stage alone."""
    context = _open(options)
    with context.archive.lock():
        found, crashes = _find(context, again=options.all)
    if options.json:
        _print_json({"schema": 1, "crashes": crashes, "notes": list(found.notes), "failures": list(found.failures)})
    else:
        _print_found(found, crashes)
    return int(bool(found.failures))


def deliver(options: Namespace) -> int:
    """The third stage alone."""
    from pstored.deliver import deliver as do_deliver

    context = _open(options)
    with context.archive.lock():
        delivery = do_deliver(context.host, context.archive, context.config)
    if options.json:
        _print_json({"schema": 1, "delivery": _delivery_facts(delivery)})
    else:
        _print_delivery(delivery)
    return delivery.exit_status()


def stamp(options: Namespace) -> int:
    """Mark the running boot, in its log and in the ledger."""
    from pstored.analyze import note_boot
    from pstored.stamp import stamp as do_stamp

    context = _open(options)
    devices = do_stamp(context.host, context.config.boots.stamp_prefix)
    facts = context.host.facts()
    try:
        with context.archive.lock():
            note_boot(context.archive, facts, stamped=bool(devices))
    except ArchiveError as e:  # early at boot the archive may not be there yet: the line in the log is what counts
        warn(f"the boot is not in the ledger yet: {e}")
    if options.json:
        _print_json({"schema": 1, "boot_id": facts.boot_id, "devices": devices})
    elif devices:
        print(f"boot {facts.boot_id} is stamped in {' and '.join(devices)}")
    else:
        warn("the boot is not stamped: neither /dev/kmsg nor /dev/pmsg0 takes the line")
    return 0 if devices else 1


# -- output


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2))


def _pass_facts(done: Pass) -> dict[str, Any]:
    return {
        "id": done.harvest_id,
        "archived": [r.name for r in done.archived],
        "known": done.known,
        "records": [{"name": e.name, "outcome": e.outcome, "why": e.why} for e in done.erasures],
        "warnings": list(done.warnings),
    }


def _delivery_facts(delivery: "Delivery") -> dict[str, Any]:
    return {
        "delivered": [{"sink": e.sink, "crash": e.crash_id, "receipt": r} for e, r in delivery.delivered],
        "pending": [
            {"sink": e.sink, "crash": e.crash_id, "error": e.error, "refused": e.refused} for e in delivery.pending
        ],
    }


def _print_pass(context: Context, done: Pass) -> None:
    for warning in done.warnings:
        warn(warning)
    store = context.config.harvest.store
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


def _print_found(found: "Found", crashes: list[dict[str, Any]]) -> None:
    from pstored.listing import short_line

    for crash in crashes:
        print(short_line(crash))
    for note in found.notes:
        print(note)


def _print_delivery(delivery: "Delivery") -> None:
    for entry, receipt in delivery.delivered:
        print(f"{entry.sink}: {receipt.get('said', f'has crash {entry.crash_id}')}")
    reasons = {(e.sink, e.error or "waits for those before it") for e in delivery.pending}
    for sink, error in sorted(reasons):
        warn(f"{sink}: not delivered yet, kept: {error}")
