# SPDX-License-Identifier: Apache-2.0
"""The records of the archive's harvests, decoded, with what harvest.json says of them."""

from hashlib import sha256
from typing import Any

from pstored.archive import Archive, Harvest, Receipt
from pstored.errors import ArchiveError, DiskError
from pstored.parse.record import Record, decode_record

DIFFERS = "what the archive has of it is not what was taken from the store"


class Records:
    """Reads harvests; harvest.json once."""

    def __init__(self, archive: Archive) -> None:
        self.whole: set[str] = set()
        """Harvests whose records could be read as they were archived."""
        self._archive = archive
        self._harvests: dict[str, Harvest] = {}

    def facts(self, harvest_id: str) -> dict[str, Any]:
        """What harvest.json says.

        Raises:
            ArchiveError: it is not there, or not what we wrote.
        """
        return self._harvest(harvest_id).facts

    def of(self, harvest_id: str) -> list[Record]:
        """A harvest's records.

        Raises:
            ArchiveError: they cannot be read (DiskError), or are damaged.
        """
        harvest = self._harvest(harvest_id)
        receipts = {r.name: r for r in harvest.receipts}
        said = {r["name"]: r for r in harvest.facts["records"]}
        found = []
        is_whole = True
        for member, data in self._archive.read_records(harvest_id):
            receipt = receipts.get(member.name)
            if receipt is None:
                continue
            more = said[member.name]
            damage = _sentences(more.get("damage"))
            if sha256(data).hexdigest() != receipt.sha256:
                whole = self._from_another(harvest_id, receipt)
                damage += [DIFFERS] if whole is None else []
                is_whole = is_whole and whole is not None
                data = data if whole is None else whole
            found.append(
                decode_record(
                    member.name,
                    data,
                    mtime_ns=receipt.mtime_ns,
                    harvest_id=harvest_id,
                    sha256=receipt.sha256,
                    error=receipt.error,
                    notes=_sentences(more.get("notes")),
                    damage=damage,
                    sender=_address(more.get("sender")),
                )
            )
        if is_whole:
            self.whole.add(harvest_id)
        return found

    def _from_another(self, harvest_id: str, receipt: Receipt) -> bytes | None:
        """A damaged record's bytes from a harvest that has them whole: it was still in the store, and archived anew."""
        for other in self._archive.known_keys([receipt.key]).get(receipt.key, ()):
            if other != harvest_id:
                try:
                    for _, data in self._archive.read_records(other):
                        if sha256(data).hexdigest() == receipt.sha256:
                            return data
                except DiskError:
                    raise  # another time it may give it
                except ArchiveError:
                    continue
        return None

    def _harvest(self, harvest_id: str) -> Harvest:
        if harvest_id not in self._harvests:
            self._harvests[harvest_id] = self._archive.load_harvest(harvest_id)
        return self._harvests[harvest_id]


def _sentences(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _address(sender: object) -> str | None:
    address = sender.get("address") if isinstance(sender, dict) else None
    return address if isinstance(address, str) and address else None
