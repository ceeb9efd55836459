# SPDX-License-Identifier: Apache-2.0
"""The neighbours of the store on this machine: what pstorefs does not show of them is archived, each once.

ACPI's boot error record (BERT): what firmware tells of the boot before this one.  Crash variables of EFI, when another
backend is active: only one can be, and what an earlier one has left is seen in efivarfs alone.  And, if somebody asks
for it, the memory of ramoops itself: there are the dumps that the kernel has dropped, or has overwritten in its list.

Nothing is removed.  What was seen is noted in elsewhere.json as long as it is there, so that what the archive's limits
removed is not told once more.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext

from pstored.archive import SCHEMA, Archive, Harvest
from pstored.boots.resetreason import BERT
from pstored.bundle import describe
from pstored.config import Config
from pstored.documents import dump_json, recall
from pstored.errors import StoreError
from pstored.host import Host
from pstored.intake.bundles import LEFT, Fate, Import, Intake, Offer, identify, make_offer, said_of
from pstored.intake.tree import Sayings
from pstored.readers import load
from pstored.readers.memory import Held, Window
from pstored.readers.model import Options, Remark, Salvaged
from pstored.store import RecordReadError, read_whole, record_key

EFIVARS = "/sys/firmware/efi/efivars"
DEV_MEM = "/dev/mem"
MEMORY = "elsewhere.json"
MAX_REGION = 1 << 20
MAX_VARIABLES = 1024
"""Of EFI: a store of 64 KiB has room for some sixty."""
EFI_BACKENDS = ("efi", "efi_pstore")


def import_bert(host: Host, config: Config, *, only_list: bool = False) -> Import | None:
    """Take the boot error record into the archive; None if there is none, or it is known.

    Args:
        host: whose it is.
        config: whether to, and where the archive is.
        only_list: write nothing.

    Raises:
        ArchiveError: the archive cannot be written, or does not read back.
    """
    if not config.elsewhere.bert or host.is_crash_kernel():
        return None
    try:
        data = read_whole(host.path(os.path.dirname(BERT)), os.path.basename(BERT), MAX_REGION)
    except RecordReadError:
        return None  # no ACPI, or no such table: nothing that somebody should know
    found = (f for f in load("bert").read(Held(data, BERT), Options()) if isinstance(f, Salvaged))
    return Neighbour(host, config, BERT, "bert", only_list=only_list).take(found)


def import_efi_variables(host: Host, config: Config, *, only_list: bool = False) -> Import | None:
    """Take crash variables that pstorefs does not show, since another backend is active; None if there is nothing new.

    Args:
        host: whose they are.
        config: whether to, and where the archive is.
        only_list: write nothing.

    Raises:
        ArchiveError: the archive cannot be written, or does not read back.
    """
    backend = host.facts().backend
    if not config.elsewhere.efi or backend is None or backend in EFI_BACKENDS or host.is_crash_kernel():
        return None
    directory = host.path(EFIVARS)
    try:
        names = sorted(name for name in os.listdir(directory) if name.startswith("dump-type"))[:MAX_VARIABLES]
    except OSError:
        return None
    neighbour = Neighbour(host, config, EFIVARS, "efi", only_list=only_list)
    return neighbour.take(_variables(directory, names, neighbour), seen=names)


def _variables(directory: str, names: list[str], neighbour: "Neighbour") -> Iterator[Salvaged]:
    """Those that were not seen before: reading one takes a firmware some milliseconds."""
    reader = load("efi")
    for name in names:
        if name in neighbour.remembered:
            continue
        try:
            source = Held(read_whole(directory, name, MAX_REGION), name)
        except RecordReadError as e:
            if not e.vanished:
                neighbour.problems.say(str(e), name)
            continue
        if reader.recognize(source):
            yield from (f for f in reader.read(source, Options()) if isinstance(f, Salvaged))


def import_ramoops_memory(host: Host, config: Config, *, only_list: bool = False) -> Import | None:
    """Take the dumps in the memory of ramoops, if the configuration says so; None if there is nothing new.

    Its console and the like are of the running boot, and live.

    Args:
        host: whose it is.
        config: whether to, and where the archive is.
        only_list: write nothing.

    Raises:
        ArchiveError: the archive cannot be written, or does not read back.
    """
    if not config.elsewhere.dev_mem or host.is_crash_kernel():
        return None
    parameters = {k: v for k, v in host.pstore_parameters().items() if k.startswith("ramoops.") and v != "0"}
    try:
        address, size = (int(parameters[f"ramoops.mem_{word}"], 0) for word in ("address", "size"))
    except (KeyError, ValueError):
        return None
    neighbour = Neighbour(host, config, DEV_MEM, "ramoops", only_list=only_list)
    return neighbour.take(_region(host, address, size, parameters))


def _region(host: Host, address: int, size: int, parameters: dict[str, str]) -> Iterator[Salvaged | Remark]:
    from pstored.intake.sources import open_source

    try:
        with closing(open_source(host.path(DEV_MEM), address + size)) as opened:
            for found in load("ramoops").read(Window(opened, address, size), Options(parameters)):
                if isinstance(found, Salvaged) and found.name.startswith("dmesg-"):
                    yield found
            if opened.problem is not None:
                yield Remark(f"{opened.problem}: the kernel does not let everybody read its memory", is_damage=True)
    except StoreError as e:
        yield Remark(str(e), is_damage=True)


class Neighbour:
    """One place, and what was seen there."""

    def __init__(self, host: Host, config: Config, path: str, kind: str, *, only_list: bool) -> None:
        """*path*: as it is shown; *kind*: a word of :data:`pstored.readers.KINDS`."""
        self.only_list = only_list
        self.archive = Archive(host.path(config.archive.path))
        self.facts = host.facts()
        self.path = path
        self.kind = kind
        self.notes = Sayings()
        self.problems = Sayings()
        self._memory = self._load()
        self.remembered = frozenset(self._memory.get(kind, ()))

    def take(
        self, found: Iterator[Salvaged] | Iterator[Salvaged | Remark], seen: list[str] | None = None
    ) -> Import | None:
        """Archive what is new of it; None if nothing is, and nothing is to be said.

        Args:
            found: what is there.
            seen: what to remember; without, the records' identities.
        """
        offers: list[Offer] = []
        for thing in found:
            if isinstance(thing, Remark):
                (self.problems if thing.is_damage else self.notes).say(thing.text, self.path)
            else:
                offers.append(make_offer(thing))
        identities = {_identity(offer): offer for offer in offers}
        new = [offer for identity, offer in identities.items() if identity not in self.remembered]
        now = frozenset(identities if seen is None else seen)
        if not new and now == self.remembered and not self.notes.sentences() and not self.problems.sentences():
            return None
        with nullcontext() if self.only_list else self.archive.lock():
            return self._archive(new, now)

    def _archive(self, new: list[Offer], now: frozenset[str]) -> Import:
        intake = Intake(self.archive)
        left = [offer for offer in new if intake.offer(offer) is Fate.LEFT]
        for offer in left:
            self.problems.say(LEFT, offer.name)
        known = len(intake.known)
        bundles = [] if self.only_list else self._write(intake, None if left else now)
        return Import(
            path=self.path,
            kind=self.kind,
            harvests=tuple(bundle.id for bundle in bundles),
            archived=tuple(receipt for bundle in bundles for receipt in bundle.receipts),
            known=known,
            notes=(*intake.warnings, *self.notes.sentences()),
            problems=self.problems.sentences(),
            listed=tuple(intake.listed),
        )

    def _write(self, intake: Intake, now: frozenset[str] | None) -> list[Harvest]:
        """Archive what was taken, and then, if it is all there is, remember it."""
        bundles = intake.write(self.facts, self._describe, _unreadable)
        self.archive.flush_names(harvests=not bundles)
        if now is not None:
            document = {"schema": SCHEMA, "seen": self._memory | {self.kind: sorted(now)}}
            self.archive.write(self.archive.path, {MEMORY: dump_json(document)})
        return bundles

    def _describe(self, offers: dict[str, Offer]) -> Callable[..., dict[str, object]]:
        store = {"path": self.path, "kind": self.kind}
        return describe(self.facts, store=store, said=said_of(offers))

    def _load(self) -> dict[str, list[str]]:
        """What was seen; lost, it is found out from the archive."""
        try:
            seen = recall(os.path.join(self.archive.path, MEMORY))["seen"]
            return {
                kind: [name for name in names if isinstance(name, str)]
                for kind, names in seen.items()
                if isinstance(names, list)
            }
        except (KeyError, TypeError, AttributeError):
            return {}


def _identity(offer: Offer) -> str:
    return identify(offer.name, record_key(offer.name, offer.store.digest(offer.path)), offer.mtime_ns)


def _unreadable(offer: Offer, e: RecordReadError) -> None:
    raise AssertionError(f"{offer.name} is in memory: {e}")
