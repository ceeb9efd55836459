# SPDX-License-Identifier: Apache-2.0
"""``outbox``: what is still to be delivered to each sink, why, and when it is tried; try it again, or take it out."""

import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pstored.cli.context import Context, page, style
from pstored.cli.output import print_json
from pstored.delivery.courier import Waiting, survey
from pstored.delivery.outbox import Outbox, enabled_sinks
from pstored.delivery.outgoing import Health, Outgoing, State
from pstored.delivery.privileges import become_owner
from pstored.documents import utc
from pstored.sinks import settings
from pstored.terminal import Style, visible


class Row(NamedTuple):
    """Something that a sink does not have."""

    sink: str
    crash: str
    revision: int
    crashes: int
    """How many it stands for."""
    state: str
    """new, failed, refused; held: they wait for others like them, to be counted."""
    attempts: int
    next: str | None
    """When it is tried, UTC; None: it is not, or whenever the rest is."""
    why: str | None


def outbox(options: Namespace) -> int:
    """Show it, or change it."""
    context = Context(options)
    if options.retry is not None or options.drop is not None:
        return _change(
            context, options.retry if options.retry is not None else options.drop, drop=options.drop is not None
        )
    now = time.time()
    rows = [row for found in _rows(context, now) for row in found]
    if options.json:
        print_json({"outbox": [row._asdict() for row in rows]})
    elif not rows:
        print("nothing waits to be delivered")
    else:
        page(render(rows, style=style()), options)
    return 0


def _rows(context: Context, now: float) -> Iterator[list[Row]]:
    """What waits, sink by sink: those of the journal, then the outgoing ones."""
    box = Outbox(context.archive)
    for name in enabled_sinks(context.config):
        yield [
            Row(
                name,
                e.crash_id,
                e.revision,
                1,
                "refused" if e.refused else "failed" if e.attempts else "new",
                e.attempts,
                None,
                e.error,
            )
            for e in box.pending(name)
        ]
    for name in settings.enabled(context.config.outgoing):
        seen = survey(context.archive, context.config, name, now)
        rows = [_row(name, seen.health, one, now) for one in seen.waiting if one.state is not State.DROPPED]
        if seen.held:
            why = "repeats of what was delivered, to be counted"
            when = None if seen.due is None else utc(seen.due)
            rows.append(Row(name, "", 0, seen.held, "held", 0, when, why))
        yield rows


def _row(name: str, health: Health, one: Waiting, now: float) -> Row:
    settled = one.state.is_settled()
    due = max((t for t in (one.next, health.next) if t is not None), default=None)
    return Row(
        name,
        one.item.crash_id,
        one.item.revision,
        one.item.stands_for,
        one.state,
        one.attempts,
        None if settled or due is None or due <= now else utc(due),
        one.error or (None if settled else health.error),
    )


COLUMNS = ("SINK", "CRASH", "CRASHES", "STATE", "TRIES", "NEXT (UTC)", "WHY")


def render(rows: Iterable[Row], *, style: Style) -> str:
    """The table."""
    cells = [COLUMNS] + [
        (
            row.sink,
            row.crash.partition("-")[2][:8] or "-",
            str(row.crashes),
            row.state,
            str(row.attempts),
            "-" if row.next is None else row.next[:19].replace("T", " "),
            visible(row.why or "-"),
        )
        for row in rows
    ]
    widths = [max(len(line[at]) for line in cells) for at in range(len(COLUMNS) - 1)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1]]) for line in cells]
    return "\n".join([style.dim(lines[0]), *lines[1:]]) + "\n"


# -- changes


def _change(context: Context, wanted: str, *, drop: bool) -> int:
    """Have what waits tried again at once, or take it out of the outbox.

    Args:
        context: where.
        wanted: a sink, or a crash; empty: all.
        drop: take it out.
    """
    local, outgoing = enabled_sinks(context.config), settings.enabled(context.config.outgoing)
    names = [name for name in (*local, *outgoing) if wanted in ("", name)]
    crash_id = None
    if not names:
        names, crash_id = [*local, *outgoing], context.archive.find_crash(wanted)
    changed = 0
    if local := [name for name in local if name in names]:
        changed += _change_local(context, local, crash_id, drop=drop)
    if outgoing := [name for name in outgoing if name in names]:
        become_owner(context.archive.outgoing)  # last: it is for good
        changed += sum(_change_outgoing(context, name, crash_id, drop=drop) for name in outgoing)
    what = "taken out of the outbox" if drop else "to be tried again"
    print(f"{changed} {what}" + ("" if drop or not changed else ": pstored deliver"))
    return 0


def _change_local(context: Context, names: list[str], crash_id: str | None, *, drop: bool) -> int:
    box = Outbox(context.archive)
    changed = 0
    with context.archive.lock():
        for name in names:
            for entry in list(box.pending(name)):
                if crash_id in (None, entry.crash_id):
                    changed += 1
                    if drop:
                        box.done(entry, {"dropped": True})
                    else:
                        box.put(name, entry.crash_id, entry.revision)
    return changed


def _change_outgoing(context: Context, name: str, crash_id: str | None, *, drop: bool) -> int:
    outgoing = Outgoing(context.archive, name)
    changed = 0
    with outgoing.lock(wait=True):
        # at the end of time no repeats are held: what is taken out is all there is
        for one in survey(context.archive, context.config, name, float("inf") if drop else time.time()).waiting:
            if crash_id is not None and crash_id not in one.members:
                continue
            if drop and one.state is not State.DROPPED:
                outgoing.put(one.item, State.DROPPED, {"error": "taken out by a person"}, members=one.members)
                changed += 1
            elif not drop and one.state is not State.NEW and (one.state is not State.DROPPED or crash_id is not None):
                outgoing.put(one.item, State.NEW, {}, members=one.members)
                changed += 1
        if not drop:
            outgoing.set_health(Health(failed=outgoing.health().failed))
    return changed
