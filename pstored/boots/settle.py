# SPDX-License-Identifier: Apache-2.0
"""Asks the witnesses of every boot that is over, once, while they still know; an unexplained end becomes a record.

What they say goes into the ledger.  A boot that ended without a crash record and without an orderly end is an event of
its own: a record of ours is archived for it (:mod:`pstored.parse.end`), and the analysis makes a crash of that, which
grows if a record of the kernel turns up after all.
"""

from dataclasses import replace

from pstored.boots.ends import title
from pstored.boots.history import History, PastBoot
from pstored.boots.ledger import Boot, write_ledger
from pstored.bundle import describe, read_back, write_bundle
from pstored.host import Facts
from pstored.parse.end import BootEnd, format_end
from pstored.store import MemoryStore

RECORD = "end-pstored-0"


def settle(history: History, facts: Facts) -> list[str]:
    """Settle what is over and not settled; gives the harvests made.  The caller holds the archive's lock.

    Boots before the ledger's first are none of ours: what ended them is shown by ``pstored boots``, and no event.
    """
    ledger: list[Boot] = []
    made: list[str] = []
    for boot_id, following in history.order():
        line = history.known(boot_id)
        if line is not None and line.witnesses is not None:  # settled: what came of it is in the archive
            ledger.append(line)
            continue
        if not history.has_seen(boot_id):
            continue
        boot = history.past(boot_id, following)
        if line is None:
            if not ledger or boot.last_wall is None:  # not ours, or nobody knows when it was
                continue
            line = _from_journal(boot)
        if boot.witnesses:  # the running boot has none
            line = replace(line, witnesses=boot.witnesses)
            if boot.end.unexplained and not any(crash.severity == "reset" for crash in boot.crashes):
                made.append(_archive_end(history, boot, facts))
        ledger.append(line)
    if ledger != list(history.ledger):
        write_ledger(history.archive, ledger)
    return made


def _from_journal(boot: PastBoot) -> Boot:
    """A line for a boot that ended before pstored ran in it, and that the journal knows."""
    return Boot(
        boot_id=boot.boot_id,
        kernel=None,
        version=None,
        first_wall=boot.last_wall or 0.0,
        first_uptime=boot.uptime_s,
        last_wall=boot.last_wall or 0.0,
        last_uptime=boot.uptime_s,
    )


def _archive_end(history: History, boot: PastBoot, facts: Facts) -> str:
    """Archive the record that tells of an unexplained end, as a harvest of its own."""
    end = BootEnd(
        boot_id=boot.boot_id,
        kernel=boot.kernel,
        kind=boot.end.kind,
        title=title(boot.end, boot.clues),
        evidence=boot.end.evidence,
        wall=boot.last_wall,
        uptime_s=boot.uptime_s,
        last_words=tuple(history.last_words(boot.boot_id)),
    )
    bundle = write_bundle(
        history.archive,
        MemoryStore({RECORD: format_end(end)}),
        [RECORD],
        wall_ns=facts.wall_ns,
        describe=describe(facts, store={"path": "boots.jsonl"}),
    )
    assert bundle is not None  # what is in memory can be read
    read_back(history.archive, bundle)
    history.archive.add_to_index(bundle)
    return bundle.id
