# SPDX-License-Identifier: Apache-2.0
"""``collect`` and its later stages: ``analyze``, ``deliver``; and ``stamp``."""

import os
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from pstored.cli import output
from pstored.cli.context import Context, open_context, warn
from pstored.errors import ArchiveError, PstoredError, SinkError
from pstored.stamp import stamp as do_stamp

if TYPE_CHECKING:
    from pstored.analyze import Found


def collect(options: Namespace) -> int:
    """All stages once; whoever asked for it gets a line on how things stand then."""
    from pstored.stages import collect as do_collect

    context = open_context(options)
    try:
        done = do_collect(context.host, context.config, context.archive, kernel_log=options.kernel_log)
    except PstoredError as e:
        _tell(context, options.status_fd, [str(e)], retry=True)
        raise
    # the daemon, which asks for its status, has what goes out done by itself: it may take long
    outgoing = _deliver_outgoing(context) if options.status_fd is None else None
    _tell(context, options.status_fd, done.due(), retry=done.is_worth_a_retry())
    if done.found is None:
        output.print_pass(done.harvest, context.config.harvest.store)  # it has been done, whatever comes after
    elif options.json:
        output.print_json(
            {
                "harvest": output.pass_facts(done.harvest),
                "import": output.import_facts(done.imported),
                "kdump": output.import_facts(done.kdump),
                "elsewhere": [output.import_facts(one) for one in done.elsewhere],
                "kernel_log": output.look_facts(done.log),
                "crashes": list(done.crashes),
                "notes": list(done.found.notes),
                "delivery": output.delivery_facts(done.delivery),
                "outgoing": outgoing,
            }
        )
    else:
        output.print_pass(done.harvest, context.config.harvest.store)
        for imported in done.imports():
            if imported.archived or imported.problems:
                output.print_import(imported)
        if done.log is not None:
            output.print_look(done.log)
        output.print_found(done.found, done.crashes)
        output.print_delivery(done.delivery)
        _print_outgoing(outgoing)
        if done.crashes:
            root = "" if options.root == "/" else f"--root {options.root} "
            print(f"see: pstored {root}show {done.crashes[-1]['id'].split('-')[1][:6]}")
    for failure in done.found.failures if done.found is not None else ():
        warn(failure)
    for harvest_id in done.pruned:
        warn(f"harvest {harvest_id} was removed: the archive is over its limits")
    if done.trouble is not None:
        raise done.trouble
    return done.exit_status() or _outgoing_status(outgoing)


def _deliver_outgoing(context: Context) -> dict[str, Any] | None:
    """A round to the outgoing sinks; None, at no cost, if there are none."""
    if not context.config.outgoing:
        return None
    from pstored.cli import outgoing

    return outgoing.deliver(context)


def _print_outgoing(document: dict[str, Any] | None) -> None:
    if document is not None:
        from pstored.cli.outgoing import print_facts

        print_facts(document)


def _outgoing_status(document: dict[str, Any] | None) -> int:
    return 0 if document is None else int(document.get("status", SinkError.exit_status))


def _tell(context: Context, status_fd: int | None, due: list[str], *, retry: bool) -> None:
    """Write how things stand to the descriptor, for the daemon; and whether it is to try again by itself."""
    if status_fd is None:
        return
    from pstored.page.listing import status_line

    try:
        line = status_line(context.archive.remembered_crashes(), due)
    except ArchiveError as e:
        line = str(e)
    lines = [line, *(["retry"] if retry else [])]
    if context.config.outgoing:
        from pstored.cli.outgoing import standing

        lines += _next(standing(context))
    _write_status(status_fd, lines)


def _standing(outgoing: dict[str, Any] | None) -> list[str]:
    if outgoing is None:
        return [""]
    from pstored.cli.outgoing import line

    return [line(outgoing), *_next(outgoing)]


def _next(document: dict[str, Any]) -> list[str]:
    """When the next round to the outgoing sinks is due: a line, none if there is nothing to do."""
    return [] if document.get("next_s") is None else [f"deliver {document['next_s']}"]


def _write_status(status_fd: int, lines: list[str]) -> None:
    try:
        os.write(status_fd, ("\n".join(lines) + "\n").encode(errors="backslashreplace"))
    except OSError as e:
        warn(f"cannot write the status to descriptor {status_fd}: {e.strerror}")


def analyze(options: Namespace) -> int:
    """The second stage alone."""
    found, crashes = find_crashes(open_context(options), again=options.all)
    if options.json:
        output.print_json({"crashes": crashes, "notes": list(found.notes), "failures": list(found.failures)})
    else:
        output.print_found(found, crashes)
    if found.trouble is not None:
        raise found.trouble
    return int(bool(found.failures))


def find_crashes(context: Context, *, again: bool = False) -> "tuple[Found, list[dict[str, Any]]]":
    """The second stage; gives what it found, and crash.json of what is new."""
    from pstored.stages import find

    with context.archive.lock():
        found = find(context.host, context.config, context.archive, again=again)
        crashes = [context.archive.load_crash(i) for i in found.crashes]
    for failure in found.failures:
        warn(failure)
    return found, crashes


def deliver(options: Namespace) -> int:
    """The third stage alone."""
    from pstored.deliver import Delivery
    from pstored.deliver import deliver as do_deliver

    context = open_context(options)
    delivery = Delivery((), ())
    if not options.outgoing:
        with context.archive.lock():
            delivery = do_deliver(context.host, context.archive, context.config)
    outgoing = _deliver_outgoing(context)
    if options.status_fd is not None:
        _write_status(options.status_fd, _standing(outgoing))
    if options.json:
        output.print_json({"delivery": output.delivery_facts(delivery), "outgoing": outgoing})
    else:
        output.print_delivery(delivery)
        _print_outgoing(outgoing)
    return delivery.exit_status() or _outgoing_status(outgoing)


def stamp(options: Namespace) -> int:
    """Mark the running boot, in its log and in the ledger."""
    from pstored.boots.ledger import look, note_boot

    context = open_context(options)
    if options.end:
        return _close(context)
    stamped = do_stamp(context.host, context.config.boots.stamp_prefix)
    seen = look(context.host, stamped=stamped)
    try:
        with context.archive.lock():
            note_boot(context.archive, seen)
    except ArchiveError as e:  # early at boot the archive may not be there yet: the line in the log is what counts
        warn(f"the boot is not in the ledger yet: {e}")
    if options.json:
        output.print_json({"boot_id": seen.facts.boot_id, "devices": list(stamped.devices)})
    elif stamped.devices:
        print(f"boot {seen.facts.boot_id} is stamped in {' and '.join(stamped.devices)}")
    else:
        warn("the boot is not stamped: neither /dev/kmsg nor /dev/pmsg0 takes the line")
    return 0 if stamped.devices else 1


def _close(context: Context) -> int:
    """Note that the running boot ends in order; or that it does not, and nobody will be there to note its end."""
    from pstored.boots.ledger import look, note_boot
    from pstored.manager import is_stopping

    stopping = is_stopping()
    seen = look(context.host, closed=stopping)
    with context.archive.lock():
        note_boot(context.archive, seen)
    print(f"boot {seen.facts.boot_id} ends in order" if stopping else "the system is not being stopped: no end to note")
    return 0
