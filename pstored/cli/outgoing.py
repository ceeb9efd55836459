# SPDX-License-Identifier: Apache-2.0
"""Delivery to the outgoing sinks, through the service where there is one; as facts, for a person and for the daemon.

Only where a sink is configured is any of this imported.
"""

import time
from typing import Any

from pstored.cli.context import Context, warn
from pstored.delivery.courier import Survey
from pstored.delivery.dispatch import Dispatch, dispatch, is_behind, look
from pstored.delivery.outgoing import State
from pstored.delivery.relay import answer, ask, listener
from pstored.errors import SinkError
from pstored.sinks import settings
from pstored.terminal import visible

SLACK_S = 30
"""The service has this much longer to answer than a sink to deliver."""


def deliver(context: Context) -> dict[str, Any]:
    """One round to all outgoing sinks; gives what it did, and how things stand."""
    listening = listener()
    if listening is None:
        limit_s = settings.delivery(context.config.outgoing).sink_timeout_s + SLACK_S
        try:
            done = ask(context.host, timeout_s=limit_s)
        except SinkError as e:
            return facts(context, Dispatch((), *look(context.archive, context.config, [str(e)])))
        return done or facts(context, dispatch(context.host, context.archive, context.config))
    document: dict[str, Any] = {"troubles": ["the service failed"]}
    try:
        document = facts(context, dispatch(context.host, context.archive, context.config))
    finally:
        answer(listening, document)  # whatever happened: a connection that nobody takes would start us again
    return document


def standing(context: Context) -> dict[str, Any]:
    """How things stand, without a delivery."""
    return facts(context, Dispatch((), *look(context.archive, context.config, [])))


def facts(context: Context, done: Dispatch) -> dict[str, Any]:
    """A round, as JSON."""
    due = done.next()
    if is_behind(context.archive, context.config):
        due = time.time()
    if done.troubles:  # not of a sink, which has its own time: somebody has to mend something here
        due = max(due or 0.0, time.time() + settings.delivery(context.config.outgoing).retry_s)
    return {
        "delivered": [a._asdict() for a in done.arrived],
        "sinks": [_sink(s) for s in done.surveys],
        "troubles": list(done.troubles),
        "notes": list(done.notes),
        "next_s": None if due is None else max(0.0, round(due - time.time(), 3)),
        "status": done.exit_status(),
    }


def _sink(s: Survey) -> dict[str, Any]:
    waiting = s.open()
    error = s.health.error or next((w.error for w in waiting if w.error is not None), None)
    return {
        "sink": s.sink,
        "waiting": len(waiting) + s.held,
        "refused": sum(w.state is State.REFUSED for w in s.waiting),
        "failures": s.health.failures,
        "next": s.due,
        "error": error,
    }


def print_facts(document: dict[str, Any]) -> None:
    """A round, for a person."""
    for one in document.get("delivered", []):
        more = f" and {one['stands_for'] - 1} more like it" if one["stands_for"] > 1 else ""
        print(f"{one['sink']}: has crash {one['crash']}{more}")
    for trouble in [*document.get("troubles", []), *document.get("notes", [])]:
        warn(trouble)
    for sink in document.get("sinks", []):
        for line in _warnings(sink):
            warn(line)


def _warnings(sink: dict[str, Any]) -> list[str]:
    found = []
    if sink["waiting"]:
        when = "" if sink["next"] is None else f", next try {clock(sink['next'])}"
        why = f": {visible(sink['error'])}" if sink["error"] else ""
        found.append(f"{sink['sink']}: {sink['waiting']} not delivered yet, kept{when}{why}")
    if sink["refused"]:
        found.append(f"{sink['sink']}: {sink['refused']} refused, and set aside: see pstored outbox")
    return found


def line(document: dict[str, Any]) -> str:
    """The same in a few words, for ``systemctl status``; empty if nothing waits."""
    troubles = list(document.get("troubles", []))
    waiting = [
        f"{sink['waiting']} to be delivered: {sink['sink']}" + (f" ({sink['error']})" if sink["error"] else "")
        for sink in document.get("sinks", [])
        if sink["waiting"]
    ]
    return "; ".join(visible(text) for text in troubles + waiting)


def clock(at: float) -> str:
    """A time that is soon: hours and minutes, local; "now" if it is over."""
    if at <= time.time():
        return "now"
    try:
        return time.strftime("%H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "never"
