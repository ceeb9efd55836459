# SPDX-License-Identifier: Apache-2.0
"""What this machine itself has beside the store, and ``collect`` looks into each time.

What ``pstored netconsole`` has received is taken out of its directory once it is in the archive.  Each file there is
one sender's, and becomes a bundle of its own that says whose: no boot of this machine.  Whoever writes there is not
trusted: names, sizes and numbers are looked at, and no link is followed.

/proc/last_kmsg, on Android's kernels, is the console of the boot before, as pstore would have it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from pstored import durable
from pstored.archive import Archive, Receipt
from pstored.bundle import describe
from pstored.config import Config
from pstored.daemon import SPOOL
from pstored.errors import StoreError
from pstored.host import Facts, Host
from pstored.intake.bundles import LEFT, MAX_RECORD, Fate, Import, Intake, Offer, foreign_facts, make_offer, said_of
from pstored.intake.tree import Sayings
from pstored.readers import load
from pstored.readers.memory import Held
from pstored.readers.model import Options, Remark, Salvaged
from pstored.store import RecordReadError, read_whole

RECEIVED = "netconsole"
LAST_KMSG = "last-kmsg"
LAST_KMSG_NAMES = ("last_kmsg", "last_klog")
SUFFIX = ".jsonl"
MAX_FILE = 16 << 20
"""Bytes: the listener keeps 1 MiB of a crash, and each byte may be escaped to six."""
MAX_FILES = 100
"""Taken in one run; the rest is for the next."""


def _take(
    archive: Archive,
    facts: Facts,
    store: Mapping[str, object],
    found: Iterable[Salvaged | Remark],
    *,
    only_list: bool,
) -> Import:
    """Archive what a reader finds in one place; the caller holds the lock, unless it is only to be listed."""
    intake, notes, problems = Intake(archive), Sayings(), Sayings()
    path = str(store["path"])
    for thing in found:
        if isinstance(thing, Remark):
            (problems if thing.is_damage else notes).say(thing.text, path)
        elif intake.offer(make_offer(thing)) is Fate.LEFT:
            problems.say(LEFT, thing.name)

    def description(offers: dict[str, Offer]) -> Callable[[str, list[Receipt]], dict[str, object]]:
        return describe(facts, store=store, said=said_of(offers))

    bundles = [] if only_list else intake.write(facts, description, _unreadable)
    if not only_list:
        archive.flush_names(harvests=not bundles)
    return Import(
        path=path,
        kind=str(store["kind"]),
        harvests=tuple(bundle.id for bundle in bundles),
        archived=tuple(r for bundle in bundles for r in bundle.receipts),
        known=sum(listed.fate is Fate.KNOWN for listed in intake.listed),
        notes=(*intake.warnings, *notes.sentences()),
        problems=problems.sentences(),
        listed=tuple(intake.listed),
    )


def _unreadable(offer: Offer, e: RecordReadError) -> None:
    raise AssertionError(f"{offer.name} is in memory: {e}")


# -- what netconsole has received


def import_received(host: Host, config: Config, *, only_list: bool = False) -> Import | None:
    """Take what ``pstored netconsole`` has received into the archive; None if it has received nothing.

    Raises:
        StoreError: what is there may not be read.
        ArchiveError: the archive cannot be written, or does not read back.
    """
    if host.is_crash_kernel():
        return None
    archive = Archive(host.path(config.archive.path))
    directory = host.path(SPOOL)
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIX) and not name.startswith("."))
    except FileNotFoundError:
        return None
    except OSError as e:
        denied = isinstance(e, PermissionError)
        raise StoreError(f"cannot list {directory!r}: {e.strerror}", permission=denied) from e
    if not names:
        return None
    problems = Sayings()
    for name in names[MAX_FILES:]:
        problems.say(LEFT, name)
    if only_list:
        return _join(_each(host, archive, directory, names, problems, only_list=True), problems)
    with archive.lock():
        return _join(_each(host, archive, directory, names[:MAX_FILES], problems, only_list=False), problems)


def _each(
    host: Host, archive: Archive, directory: str, names: Iterable[str], problems: Sayings, *, only_list: bool
) -> Iterator[Import]:
    """One file after the other, each removed once what it tells is in the archive."""
    for name in names:
        try:
            data = read_whole(directory, name, MAX_FILE)
        except RecordReadError as e:
            if not e.vanished:
                problems.say(str(e), name)
            continue
        found = list(load(RECEIVED).read(Held(data, name), Options()))
        sender = next((f.sender._asdict() for f in found if isinstance(f, Salvaged) and f.sender is not None), {})
        store = {"path": SPOOL, "kind": RECEIVED, "file": name, "sender": sender}
        yield _take(
            archive,
            foreign_facts(host, is_own=False),
            store,
            [f for f in found if isinstance(f, Salvaged) or f.is_damage],
            only_list=only_list,
        )
        if not only_list:
            durable.remove_file(os.path.join(directory, name))


def _join(imports: Iterable[Import], problems: Sayings) -> Import:
    done = list(imports)
    vain = sum(not one.listed for one in done)
    notes = (f"{vain} times nothing that was received tells of a crash",) if vain else ()
    return Import(
        path=SPOOL,
        kind=RECEIVED,
        harvests=tuple(harvest_id for one in done for harvest_id in one.harvests),
        archived=tuple(receipt for one in done for receipt in one.archived),
        known=sum(one.known for one in done),
        notes=(*dict.fromkeys(note for one in done for note in one.notes), *notes),
        problems=(*problems.sentences(), *dict.fromkeys(problem for one in done for problem in one.problems)),
        listed=tuple(listed for one in done for listed in one.listed),
    )


# -- the console of the boot before


def import_last_kmsg(host: Host, config: Config, *, only_list: bool = False) -> Import | None:
    """Take /proc/last_kmsg into the archive; None if there is none.

    Raises:
        ArchiveError: the archive cannot be written, or does not read back.
    """
    if host.is_crash_kernel():
        return None
    archive = Archive(host.path(config.archive.path))
    for name in LAST_KMSG_NAMES:
        try:
            data = read_whole(host.path("/proc"), name, MAX_RECORD)
        except RecordReadError:
            continue  # mostly there is none
        store = {"path": f"/proc/{name}", "kind": LAST_KMSG}
        found = load(LAST_KMSG).read(Held(data, name), Options())
        if only_list:
            return _take(archive, host.facts(), store, found, only_list=True)
        with archive.lock():
            return _take(archive, host.facts(), store, found, only_list=False)
    return None
