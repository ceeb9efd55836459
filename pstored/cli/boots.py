# SPDX-License-Identifier: Apache-2.0
"""``boots``: the history of this machine's boots."""

import json
from argparse import Namespace
from typing import Any

from pstored.boots.history import History, PastBoot
from pstored.boots.ledger import read_ledger
from pstored.cli.context import Context, page, style, warn, width
from pstored.documents import utc
from pstored.host import Host
from pstored.journal.bootjournal import BootJournal
from pstored.logs import EARLIEST_S
from pstored.page.timeline import render_boots, render_days


def boots(options: Namespace) -> int:
    """One line for each boot."""
    context = Context(options)
    archive, journal = context.archive, BootJournal(context.host)
    running = context.host.boot_id() or Host().boot_id()
    history = History(archive, read_ledger(archive), journal, running, archive.crash_summaries())
    found = [_facts(boot) for boot in history.boots()]
    if options.lines:
        found = found[-options.lines :]
    if options.json:
        print(json.dumps({"schema": 1, "boots": found, "journal": journal.problem}, indent=2))
        return 0
    if journal.problem is not None:
        warn(journal.problem)
    if not found:
        print("no boot is known: neither the ledger nor the journal has one")
        return 0
    columns = width()
    text = render_boots(found, style=style(), width=columns)
    if columns is not None:
        text += "\n" + render_days(found, style=style(), width=columns)
    page(text, options)
    return 0


def _facts(boot: PastBoot) -> dict[str, Any]:
    return {
        "boot_id": boot.boot_id,
        "kernel": boot.kernel,
        "start": None if boot.start is None else utc(boot.start),
        "start_s": boot.start,
        "doubtful": boot.start is None or boot.start < EARLIEST_S,
        "uptime_s": boot.uptime_s,
        "exact": boot.exact,
        "end": {
            "kind": boot.end.kind,
            "unexplained": boot.end.unexplained,
            "evidence": list(boot.end.evidence),
        },
        "crashes": [crash.id for crash in boot.crashes],
    }
