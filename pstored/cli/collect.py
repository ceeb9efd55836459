# SPDX-License-Identifier: Apache-2.0
"""``collect`` and its stages: ``harvest``, ``analyze``, ``deliver``, ``stamp``."""

import json
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from pstored.archive import Archive
from pstored.config import Config, load
from pstored.erase import Outcome
from pstored.errors import ArchiveError, StoreError
from pstored.harvest import NOTHING, Pass
from pstored.harvest import harvest as do_harvest
from pstored.host import Host
from pstored.terminal import visible

if TYPE_CHECKING:
    from pstored.deliver import Delivery


class _Context:
    """What every stage needs."""

    def __init__(self, options: Namespace) -> None:
        self.host = Host(options.root)
        loaded = load(options.root)
        for problem in loaded.problems:
            warn(problem)
        self.config = settle(loaded.config, options.root)
        self.archive = Archive(self.host.path(self.config.archive.path))
        self.json: bool = options.json


def settle(config: Config, root: str) -> Config:
    """Decide what the configuration leaves to the circumstances."""
    if config.journal.enabled is None:
        config = config._replace(journal=config.journal._replace(enabled=root == "/"))
    return config


def warn(message: str) -> None:
    """Say something on standard error."""
    print(f"warning: {message}", file=sys.stderr)


def collect(options: Namespace) -> int:
    """All stages once.  A store that cannot be listed does not keep what is archived from being analyzed."""
    context = _Context(options)
    store_error: StoreError | None = None
    try:
        done = _harvest(context)
    except StoreError as e:
        store_error, done = e, NOTHING
    try:
        notes, crashes, delivery, failed = _rest(context, done)
    except ArchiveError:
        _print_pass(context, done)  # it has been done, whatever comes after
        raise
    status = 1 if failed else _status(done, crashes, delivery)
    if context.json:
        _print_json(
            {
                "schema": 1,
                "harvest": _pass_facts(done),
                "crashes": crashes,
                "notes": notes,
                "delivery": _delivery_facts(delivery),
            }
        )
    else:
        _print_collected(context, done, crashes, notes, delivery)
    if store_error is not None:
        raise store_error
    return status


def _harvest(context: _Context) -> Pass:
    """Harvest; if the archive has no room, make it keep its limits, and try once more."""
    from pstored.quota import prune

    try:
        return do_harvest(context.host, context.config)
    except ArchiveError:
        try:
            with context.archive.lock():
                removed = prune(context.archive, context.config)
        except ArchiveError:
            removed = []
        if not removed:
            raise
        return do_harvest(context.host, context.config)


def _rest(context: _Context, done: Pass) -> "tuple[list[str], list[dict[str, Any]], Delivery, bool]":
    from pstored.analyze import analyze as do_analyze
    from pstored.analyze import note_boot
    from pstored.deliver import deliver as do_deliver
    from pstored.quota import prune
    from pstored.stamp import stamp as do_stamp

    stamped = bool(do_stamp(context.host, context.config.boots.stamp_prefix))
    with context.archive.lock():
        note_boot(context.archive, context.host.facts(), stamped=stamped)
        found = do_analyze(context.archive, context.config, touched=done.touched)
        for failure in found.failures:
            warn(failure)
        crashes = [context.archive.load_crash(i) for i in found.crashes]
        delivery = do_deliver(context.archive, context.config)
        for harvest_id in prune(context.archive, context.config):
            warn(f"harvest {harvest_id} was removed: the archive is over its limits")
    return list(found.notes), crashes, delivery, bool(found.failures)


def _status(done: Pass, crashes: list[dict[str, Any]], delivery: "Delivery") -> int:
    if done.exit_status() or not all(crash["complete"] for crash in crashes):
        return 1
    return delivery.exit_status()


def harvest(options: Namespace) -> int:
    """The first stage alone: what runs early at boot."""
    context = _Context(options)
    done = do_harvest(context.host, context.config)
    if context.json:
        _print_json({"schema": 1, "harvest": _pass_facts(done)})
    else:
        _print_pass(context, done)
    return done.exit_status()


def analyze(options: Namespace) -> int:
    """The second stage alone."""
    from pstored.analyze import analyze as do_analyze
    from pstored.analyze import note_boot
    from pstored.listing import short_line

    context = _Context(options)
    with context.archive.lock():
        note_boot(context.archive, context.host.facts(), stamped=False)
        found = do_analyze(context.archive, context.config, again=options.all)
    crashes = [context.archive.load_crash(i) for i in found.crashes]
    for failure in found.failures:
        warn(failure)
    if context.json:
        _print_json({"schema": 1, "crashes": crashes, "notes": list(found.notes), "failures": list(found.failures)})
        return int(bool(found.failures))
    for crash in crashes:
        print(short_line(crash))
    for note in found.notes:
        print(note)
    return int(bool(found.failures))


def deliver(options: Namespace) -> int:
    """The third stage alone."""
    from pstored.deliver import deliver as do_deliver

    context = _Context(options)
    with context.archive.lock():
        delivery = do_deliver(context.archive, context.config)
    if context.json:
        _print_json({"schema": 1, "delivery": _delivery_facts(delivery)})
    else:
        _print_delivery(delivery)
    return delivery.exit_status()


def stamp(options: Namespace) -> int:
    """Mark the running boot, in its log and in the ledger."""
    from pstored.analyze import note_boot
    from pstored.stamp import stamp as do_stamp

    context = _Context(options)
    devices = do_stamp(context.host, context.config.boots.stamp_prefix)
    facts = context.host.facts()
    try:
        with context.archive.lock():
            note_boot(context.archive, facts, stamped=bool(devices))
    except ArchiveError as e:  # early at boot the archive may not be there yet: the line in the log is what counts
        warn(f"the boot is not in the ledger yet: {e}")
    if context.json:
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
        "delivered": [{"sink": e.sink, "crash": e.crash_id} for e in delivery.delivered],
        "pending": [
            {"sink": e.sink, "crash": e.crash_id, "error": e.error, "refused": e.refused} for e in delivery.pending
        ],
    }


def _print_pass(context: _Context, done: Pass) -> None:
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
        shown = ", ".join(visible(n) for n in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        warn(f"{outcome}: {shown}: {why}")


def _print_collected(
    context: _Context, done: Pass, crashes: list[dict[str, Any]], notes: list[str], delivery: "Delivery"
) -> None:
    from pstored.listing import short_line

    _print_pass(context, done)
    for crash in crashes:
        print(short_line(crash))
    for note in notes:
        print(note)
    _print_delivery(delivery)
    if crashes:
        root = "" if context.host.root == "/" else f"--root {context.host.root} "
        print(f"see: pstored {root}show {crashes[-1]['id'].split('-')[1][:6]}")


def _print_delivery(delivery: "Delivery") -> None:
    for entry in delivery.delivered:
        print(f"{entry.sink}: has crash {entry.crash_id}")
    reasons = {(e.sink, e.error or "waits for those before it") for e in delivery.pending}
    for sink, error in sorted(reasons):
        warn(f"{sink}: not delivered yet, kept: {error}")
