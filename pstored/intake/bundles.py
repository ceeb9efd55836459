# SPDX-License-Identifier: Apache-2.0
"""The archive's side of every import: what of a heap of records is new, in as few bundles as their names allow.

A record is known by its type, backend, content and, if it is a dump, its time.  A run killed anywhere leaves whole
bundles; the next goes on.
"""

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import NamedTuple

from pstored import durable
from pstored.archive import Archive, Harvest, Receipt
from pstored.bundle import Earlier, read_back, write_bundle
from pstored.host import Facts, Host
from pstored.parse.filename import split_record_name
from pstored.readers.model import Salvaged, Sender
from pstored.store import Digest, MemoryStore, RecordReadError, Store, record_key

MAX_PASS = 32 << 20
"""Bytes archived in one pass; the rest is for the next, so that no archive is flooded at once."""
MAX_BUNDLES = 16
"""Likewise, bundles: so many records of one name."""
SECOND_NS = 1_000_000_000

MAX_RECORD = 16 << 20
"""A larger record is cut to its end: no log of a kernel is so long."""
ERASED = "the kernel had erased it, but its bytes were still there"
LEFT = "left for the next import, being too many for one"


class Offer(NamedTuple):
    """A record to be archived, and where its bytes are."""

    name: str
    """As in pstorefs."""
    store: Store
    path: str
    """In that store."""
    mtime_ns: int
    """The record's time; 0 if it has none, and then any record of the same content is the same record."""
    notes: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()
    packed: bytes | None = None
    """The same record as a kernel shows it that cannot unpack it."""
    sender: Sender | None = None
    """Who sent it, if it came over the net."""


def make_offer(found: Salvaged) -> Offer:
    """What a reader found, for the archive."""
    data, notes = found.data, found.notes
    if len(data) > MAX_RECORD:
        notes = (*notes, f"cut to its last {MAX_RECORD} of {len(data)} bytes")
        data = data[-MAX_RECORD:]
    if found.erased:
        notes = (*notes, ERASED)
    return Offer(
        name=found.name,
        store=MemoryStore({found.name: data}, mtime_ns=found.mtime_ns),
        path=found.name,
        mtime_ns=found.mtime_ns,
        notes=notes,
        damage=found.damage,
        packed=found.packed,
        sender=found.sender,
    )


def said_of(offers: Mapping[str, Offer]) -> dict[str, dict[str, object]]:
    """What harvest.json says of each record besides its receipt; nothing, where there is nothing to say."""
    return {name: {key: value for key, value in _said(offer).items() if value} for name, offer in offers.items()}


def _said(offer: Offer) -> dict[str, object]:
    sender = None if offer.sender is None else offer.sender._asdict()
    return {"notes": offer.notes, "damage": offer.damage, "sender": sender}


class Fate(Enum):
    """What became of an offer."""

    NEW = "new"
    KNOWN = "archived before"
    COPY = "a copy of another"
    LEFT = LEFT


class Listed(NamedTuple):
    """An offer as :meth:`Intake.offer` judged it, without its bytes."""

    name: str
    size: int
    mtime_ns: int
    fate: Fate
    notes: tuple[str, ...]
    damage: tuple[str, ...]


class Import(NamedTuple):
    """What one import did."""

    path: str
    """Where from."""
    kind: str | None
    """Of what format it is; None if nothing there is known."""
    harvests: tuple[str, ...]
    """The new bundles, oldest first."""
    archived: tuple[Receipt, ...]
    known: int
    """Records there that are, or were, in the archive."""
    notes: tuple[str, ...]
    """What else is to be known."""
    problems: tuple[str, ...]
    """What could not be imported, though it may be evidence: in the exit status."""
    listed: tuple[Listed, ...] = ()
    """All records there, whatever became of them."""


def foreign_facts(host: Host, *, is_own: bool) -> Facts:
    """Of the boot that took the records from the store nothing is known: this one's facts would mislead.

    Args:
        host: whose clock it is.
        is_own: the records are this machine's.
    """
    here = host.facts()
    return Facts(
        boot_id=None,
        machine_id=here.machine_id if is_own else None,
        kernel_release=None,
        kernel_version=None,
        cmdline=None,
        uptime_s=None,
        wall_ns=here.wall_ns,
        oops_count=None,
        tainted=None,
        backend=None,
    )


class Intake:
    """Takes offers; what is new of them goes into bundles when :meth:`write` is called."""

    def __init__(self, archive: Archive, remembered: frozenset[str] = frozenset()) -> None:
        self.archive = archive
        self.known: set[str] = set()
        """Identities of what was offered and is, or was, in the archive."""
        self.listed: list[Listed] = []
        """What was offered, but for copies."""
        self._keys = archive.known_keys()
        self._earlier = Earlier(archive)
        self._remembered = remembered
        self._found: set[str] = set()  # identities, and keys
        self._trees: list[_Tree] = []  # the first record of each name in the first, and so on
        self._size = 0

    @property
    def warnings(self) -> list[str]:
        """What of the archive does not read back."""
        return self._earlier.warnings

    def offer(self, offer: Offer) -> Fate:
        """Take a record, if it is new and there is room.

        Raises:
            RecordReadError: not a byte of it can be read.
        """
        digest = offer.store.digest(offer.path)
        key = record_key(offer.name, digest)
        fate = self._judge(offer, key, digest.size)
        if fate is not Fate.COPY:
            self.listed.append(Listed(offer.name, digest.size, offer.mtime_ns, fate, offer.notes, offer.damage))
        return fate

    def _judge(self, offer: Offer, key: str, size: int) -> Fate:
        identity = identify(offer.name, key, offer.mtime_ns)
        if (identity if offer.mtime_ns else key) in self._found:
            return Fate.COPY
        self._found.update((key, identity))
        keys = [spelled for k in (key, *_packed_key(offer)) for spelled in _spellings(k)]
        if identity in self._remembered or any(self._is_archived(offer, k) for k in keys):
            self.known.add(identity)
            return Fate.KNOWN
        return Fate.NEW if self._place(offer, size) else Fate.LEFT

    def _is_archived(self, offer: Offer, key: str) -> bool:
        return any(
            _is_same(offer, receipt.mtime_ns)
            for harvest_id in self._keys.get(key, ())
            for receipt in self._earlier.receipts(harvest_id, key)
        )

    def _place(self, offer: Offer, size: int) -> bool:
        """Put a record into the first bundle that has none of its name; not if there is no room."""
        if self._size + size > MAX_PASS:
            return False
        tree = next((t for t in self._trees if offer.name not in t.offers), None)
        if tree is None:
            if len(self._trees) == MAX_BUNDLES:
                return False
            tree = _Tree()
            self._trees.append(tree)
        tree.offers[offer.name] = offer
        self._size += size
        return True

    def write(
        self,
        facts: Facts,
        describe: Callable[[dict[str, Offer]], Callable[[str, list[Receipt]], dict[str, object]]],
        unreadable: Callable[[Offer, RecordReadError], None],
    ) -> list[Harvest]:
        """Archive what is new, the last taken first, and forget it; gives the bundles, oldest first.

        Args:
            facts: whose clock gives the ids.
            describe: what harvest.json says of a bundle with these records.
            unreadable: told of each record that cannot be read after all.

        Raises:
            ArchiveError: the archive cannot be written, or does not read back.
        """
        bundles = []
        while self._trees:
            tree = self._trees.pop()
            with durable.archive_errors("write to", self.archive.harvests):
                bundle = write_bundle(
                    self.archive,
                    tree,
                    sorted(tree.offers),
                    wall_ns=facts.wall_ns,
                    describe=describe(tree.offers),
                    unreadable=lambda name, e, offers=tree.offers: unreadable(offers[name], e),  # type: ignore[misc]
                )
            if bundle is not None:
                read_back(self.archive, bundle)
                self.archive.add_to_index(bundle)
                bundles.append(bundle)
        self._size = 0
        self.known.update(identify(r.name, r.key, r.mtime_ns) for bundle in bundles for r in bundle.receipts)
        return bundles


class _Tree(Store):
    """What goes into one bundle, as a store: by the records' names, wherever they are."""

    def __init__(self) -> None:
        super().__init__("(import)")
        self.offers: dict[str, Offer] = {}

    def read(self, name: str) -> Iterator[bytes]:
        offer = self.offers[name]
        return offer.store.read(offer.path)

    def mtime_ns(self, name: str) -> int:
        offer = self.offers[name]
        return offer.store.mtime_ns(offer.path)


def identify(name: str, key: str, mtime_ns: int) -> str:
    """What a record is known by: two crashes may leave equal bytes, or two machines send them, but not at one time."""
    record = split_record_name(name)
    has_time = record is not None and (record.type == "dmesg" or record.backend == "netconsole")
    return f"{key} {mtime_ns}" if has_time else key


_EFI = ("dmesg-efi:", "dmesg-efi_pstore:")


def _spellings(key: str) -> list[str]:
    """A record's key by the backend's names: EFI's has another since 6.2, and which kernel shows it is not known."""
    for old, new in (_EFI, _EFI[::-1]):
        if key.startswith(old):
            return [key, new + key.removeprefix(old)]
    return [key]


def _packed_key(offer: Offer) -> tuple[str, ...]:
    if offer.packed is None:
        return ()
    digest = Digest()
    digest.update(offer.packed)
    return (record_key(offer.name, digest),)


def _is_same(offer: Offer, mtime_ns: int) -> bool:
    """Whether an archived record of equal content is the offered one, by its time; some copies have whole seconds."""
    ours, theirs = offer.mtime_ns, mtime_ns
    if 0 in (ours, theirs) or identify(offer.name, "", ours) == identify(offer.name, "", theirs):
        return True
    return ours // SECOND_NS == theirs // SECOND_NS and 0 in (ours % SECOND_NS, theirs % SECOND_NS)
