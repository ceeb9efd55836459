# SPDX-License-Identifier: Apache-2.0
"""``collect`` and its stages: ``harvest``, ``import``, ``analyze``, ``deliver``; and ``stamp``."""

import json
import os
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from pstored.cli.context import Context, warn
from pstored.erase import Outcome
from pstored.errors import ArchiveError, PstoredError, StoreError
from pstored.harvest import NOTHING, Pass
from pstored.harvest import harvest as do_harvest
from pstored.host import Facts
from pstored.stamp import UNSTAMPED, Stamp
from pstored.stamp import stamp as do_stamp
from pstored.terminal import some, visible

if TYPE_CHECKING:
    from pstored.analyze import Found
    from pstored.deliver import Delivery
    from pstored.imports import Import
    from pstored.kernellog import Look as LogLook
    from pstored.ledger import Look

T = TypeVar("T")


def _open(options: Namespace) -> Context:
    context = Context(options)
    for problem in context.problems:
        warn(problem)
    return context


def collect(options: Namespace) -> int:
    """All stages once; whoever asked for it gets a line on how things stand then."""
    context = _open(options)
    due: list[str] = []
    try:
        status = _collect(context, options, due)
    except PstoredError as e:
        _tell(context, options.status_fd, [*due, str(e)])
        raise
    _tell(context, options.status_fd, due)
    return status


def _collect(context: Context, options: Namespace, due: list[str]) -> int:
    """Do it; what is still to be done is put into *due*.

    A store that cannot be listed does not keep what is archived from being analyzed.
    """
    stamped = _stamp(context)
    done, imported = NOTHING, None
    trouble: PstoredError | None = None
    try:
        done = _with_room(context, lambda: do_harvest(context.host, context.config))
    except StoreError as e:
        trouble = e
    try:
        imported = _with_room(context, lambda: _import(context))
    except PstoredError as e:  # what was harvested is to be told all the same
        trouble = trouble or e
    look = _look_into_log(context) if options.kernel_log else None
    try:
        found, crashes, delivery = _rest(context, done, stamped=stamped)
    except ArchiveError:
        _print_pass(context, done)  # it has been done, whatever comes after
        due += _due(done)
        raise
    due += _due(done, found, delivery)
    unlooked = look is not None and look.failed
    due += ["the log of the running kernel"] if unlooked else []
    status = 1 if found.failures or unlooked or (imported and imported.problems) else _status(done, crashes, delivery)
    if options.json:
        _print_json(
            {
                "schema": 1,
                "harvest": _pass_facts(done),
                "import": _import_facts(imported),
                "kernel_log": None if look is None else _look_facts(look),
                "crashes": crashes,
                "notes": list(found.notes),
                "delivery": _delivery_facts(delivery),
            }
        )
    else:
        _print_pass(context, done)
        if imported is not None and (imported.archived or imported.problems):
            _print_import(imported)
        if look is not None:
            _print_look(look)
        _print_found(found, crashes)
        _print_delivery(delivery)
        if crashes:
            root = "" if options.root == "/" else f"--root {options.root} "
            print(f"see: pstored {root}show {crashes[-1]['id'].split('-')[1][:6]}")
    if trouble is not None:
        raise trouble
    return status


def _due(done: Pass, found: "Found | None" = None, delivery: "Delivery | None" = None) -> list[str]:
    """What is left to be done after a run, in words."""
    left = Counter(str(e.outcome) for e in done.erasures if e.is_trouble())
    waiting = Counter(e.sink for e in delivery.pending if not e.refused) if delivery is not None else Counter()
    due = [f"{n} record{'s' * (n != 1)} in the store: {outcome}" for outcome, n in sorted(left.items())]
    due += [f"{n} to be delivered: {sink}" for sink, n in sorted(waiting.items())]
    return due + ([f"{n} not analyzed"] if found is not None and (n := len(found.failures)) else [])


def _tell(context: Context, status_fd: int | None, due: list[str]) -> None:
    """Write how things stand to the descriptor, for the daemon."""
    if status_fd is None:
        return
    from pstored.listing import status_line

    try:
        line = status_line(context.archive.crash_summaries(), due)
    except ArchiveError as e:
        line = str(e)
    try:
        os.write(status_fd, line.encode(errors="backslashreplace") + b"\n")
    except OSError as e:
        warn(f"cannot write the status to descriptor {status_fd}: {e.strerror}")


def _stamp(context: Context) -> Stamp:
    """Mark the running boot before anything that may fail, or take long."""
    return do_stamp(context.host, context.config.boots.stamp_prefix)


def _with_room(context: Context, stage: Callable[[], T]) -> T:
    """Do a stage; if the archive has no room, make it keep its limits, and try once more."""
    try:
        return stage()
    except ArchiveError:
        if not _make_room(context):
            raise
        return stage()


def _import(context: Context, path: str | None = None) -> "Import | None":
    from pstored.imports import import_systemd_pstore

    return import_systemd_pstore(context.host, context.config, path)


def _look_into_log(context: Context) -> "LogLook":
    from pstored.kernellog import Look as LogLook
    from pstored.kernellog import look

    try:
        return _with_room(context, lambda: look(context.host, context.config))
    except ArchiveError as e:  # what is archived shall be analyzed and delivered all the same
        return LogLook(None, 0, (f"the log of the running kernel is not archived: {e}",), failed=True)


def _make_room(context: Context) -> bool:
    from pstored.quota import prune

    try:
        with context.archive.lock():
            return bool(prune(context.archive, context.config))
    except ArchiveError:
        return False


def _rest(context: Context, done: Pass, *, stamped: Stamp) -> "tuple[Found, list[dict[str, Any]], Delivery]":
    from pstored.deliver import deliver as do_deliver
    from pstored.quota import prune

    with context.archive.lock():
        found, crashes = _find(context, stamped=stamped, touched=done.touched)
        delivery = do_deliver(context.host, context.archive, context.config)
        for harvest_id in prune(context.archive, context.config):
            warn(f"harvest {harvest_id} was removed: the archive is over its limits")
    return found, crashes, delivery


def _find(
    context: Context, *, stamped: Stamp = UNSTAMPED, again: bool = False, touched: Iterable[str] = ()
) -> "tuple[Found, list[dict[str, Any]]]":
    """Note the running boot, analyze, and give the crashes with what was found; the caller holds the archive's lock."""
    from pstored.analyze import analyze as do_analyze
    from pstored.bootjournal import BootJournal
    from pstored.history import History
    from pstored.ledger import note_boot, read_ledger
    from pstored.settle import settle

    archive, facts = context.archive, context.host.facts()
    note_boot(archive, _look(context, facts, stamp=stamped))
    journal = BootJournal(context.host)
    witness = journal if context.config.boots.journal else None
    found = do_analyze(archive, context.config, journal=witness, again=again, touched=touched)
    if settle(History(archive, read_ledger(archive), journal, facts.boot_id), facts):
        found = found.and_then(do_analyze(archive, context.config, journal=witness))
    for failure in found.failures:
        warn(failure)
    return found, [context.archive.load_crash(i) for i in found.crashes]


def _look(context: Context, facts: Facts, *, stamp: Stamp = UNSTAMPED, closed: bool = False) -> "Look":
    """The running boot as the ledger is to have it."""
    from pstored.ledger import Look
    from pstored.manager import closes_boots
    from pstored.resetreason import reset_clues

    closes = context.host.root == "/" and closes_boots()
    return Look(facts, stamp=stamp, closes=closes, closed=closed, clues=lambda: reset_clues(context.host))


def _status(done: Pass, crashes: list[dict[str, Any]], delivery: "Delivery") -> int:
    if done.exit_status() or not all(crash["complete"] for crash in crashes):
        return 1
    return delivery.exit_status()


def harvest(options: Namespace) -> int:
    """The first stage alone: what runs early at boot."""
    context = _open(options)
    _stamp(context)
    done = do_harvest(context.host, context.config)
    if options.json:
        _print_json({"schema": 1, "harvest": _pass_facts(done)})
    else:
        _print_pass(context, done)
    return done.exit_status()


def import_(options: Namespace) -> int:
    """What another program took from the store, into the archive; then the second stage."""
    context = _open(options)
    imported = _with_room(context, lambda: _import(context, options.path))
    with context.archive.lock():
        found, crashes = _find(context)
    if options.json:
        document = {"schema": 1, "import": _import_facts(imported), "crashes": crashes, "notes": list(found.notes)}
        _print_json(document)
    else:
        if imported is None:
            print("nothing to import")
        else:
            _print_import(imported)
        _print_found(found, crashes)
    return int(bool(found.failures or (imported and imported.problems)))


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
    from pstored.ledger import note_boot

    context = _open(options)
    if options.end:
        return _close(context)
    stamped = _stamp(context)
    devices = stamped.devices
    facts = context.host.facts()
    try:
        with context.archive.lock():
            note_boot(context.archive, _look(context, facts, stamp=stamped))
    except ArchiveError as e:  # early at boot the archive may not be there yet: the line in the log is what counts
        warn(f"the boot is not in the ledger yet: {e}")
    if options.json:
        _print_json({"schema": 1, "boot_id": facts.boot_id, "devices": list(devices)})
    elif devices:
        print(f"boot {facts.boot_id} is stamped in {' and '.join(devices)}")
    else:
        warn("the boot is not stamped: neither /dev/kmsg nor /dev/pmsg0 takes the line")
    return 0 if devices else 1


def _close(context: Context) -> int:
    """Note that the running boot ends in order, if it does: what ``stamp --end`` is for."""
    from pstored.ledger import note_boot
    from pstored.manager import is_stopping

    if not is_stopping():
        print("the system is not being stopped: nothing to note")
        return 0
    facts = context.host.facts()
    with context.archive.lock():
        note_boot(context.archive, _look(context, facts, closed=True))
    print(f"boot {facts.boot_id} ends in order")
    return 0


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


def _import_facts(imported: "Import | None") -> dict[str, Any] | None:
    if imported is None:
        return None
    return imported._asdict() | {"archived": [r.name for r in imported.archived]}


def _delivery_facts(delivery: "Delivery") -> dict[str, Any]:
    return {
        "delivered": [{"sink": e.sink, "crash": e.crash_id, "receipt": r} for e, r in delivery.delivered],
        "pending": [
            {"sink": e.sink, "crash": e.crash_id, "error": e.error, "refused": e.refused} for e in delivery.pending
        ],
    }


def _look_facts(look: "LogLook") -> dict[str, Any]:
    return {"id": look.harvest_id, "reports": look.reports, "warnings": list(look.warnings)}


def _print_look(look: "LogLook") -> None:
    from pstored.kernellog import DEVICE

    for warning in look.warnings:
        warn(warning)
    if look.harvest_id is not None:
        print(f"{DEVICE}: the log of the running kernel tells of an oops, and is archived")


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


def _print_import(imported: "Import") -> None:
    new = len(imported.archived)
    what = f"{new} new record{'s' * (new != 1)} imported" if new else "nothing new"
    print(f"{visible(imported.path)}: {what}" + (f", {imported.known} archived before" if imported.known else ""))
    for note in imported.notes:
        print(note)
    for problem in imported.problems:
        warn(problem)


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
