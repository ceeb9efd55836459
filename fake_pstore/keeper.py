# SPDX-License-Identifier: Apache-2.0
"""A backend: which of the dumped parts it keeps, under which ids, and what the next kernel shows of them."""

import random
from collections.abc import Sequence

from .damage import DAMAGES, ecc_notice
from .dump import KMSG_BYTES, Part, blk_total_line, dump_parts, old_ramoops_line
from .kernels import BACKENDS, RAMOOPS_SLOTS, bufsize
from .model import Options, Record
from .names import efi_id, erst_id, record_name

_S = 1_000_000_000
_PART_NS = 90_000_000
"""About what it takes to write one EFI variable: parts of one dump fall into different seconds."""


class Keeper:
    """What a backend holds over the boots, as a mount of pstore would show it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.backend = BACKENDS[options.backend]
        self.algorithm = options.algorithm or options.era.algorithm
        self.bufsize = bufsize(options.backend, ecc=options.ecc is not None)
        self.records: dict[str, Record] = {}
        """By name without .enc.z: type, backend and id are what the kernel goes by."""
        self.hidden: list[str] = []
        """What cannot be seen, and why, in words."""
        self.untimed: set[str] = set()
        """Records whose mtime will be the time of the mount."""
        self._slot = 0
        self._erst_first = 0
        self._erst_number = 0
        self._totals: dict[bytes, int] = {}

    def new_boot(self) -> None:
        """ramoops forgets which slots it used; ERST ids begin anew with the first record."""
        self._erst_number = 0
        if self.options.backend == "ramoops":
            self._slot = 0

    def dump(
        self, lines: Sequence[bytes], reason: bytes, count: int, when_ns: int, *, kmsg_bytes: int = KMSG_BYTES
    ) -> int:
        """Keep a dump of a log; *when_ns* by the clock of the crashing boot.

        Returns:
            Nanoseconds it took.
        """
        parts = dump_parts(
            lines,
            reason=reason,
            count=count,
            era=self.options.era,
            algorithm=self.algorithm,
            bufsize=self.bufsize,
            kmsg_bytes=1 << 62 if self.options.parts else kmsg_bytes,
            max_parts=self.backend.parts or self.options.parts,
        )
        for part in parts:
            self._keep_part(part, reason, count, when_ns)
            when_ns += _PART_NS
        return _PART_NS * len(parts)

    def _keep_part(self, part: Part, reason: bytes, count: int, when_ns: int) -> None:
        what = f"{reason.decode()}#{count} Part{part.number}"
        record_id = self._dump_id(part, count, when_ns)
        if part.number in self.options.missing_parts:
            self.hidden.append(f"{what}: left out, as asked")
            return
        data = part.stored
        encoded = part.compressed and self.options.algorithm is not None
        if not encoded:
            data = self._first_line(part, reason, when_ns) + (part.text if part.compressed else part.stored)
        self.add("dmesg", record_id, data, self._mtime(when_ns), what, encoded=encoded)

    def _dump_id(self, part: Part, count: int, when_ns: int) -> int:
        if self.options.backend in ("efi", "efi_pstore"):
            return part.number if self.options.era.part_is_efi_id else efi_id(when_ns // _S, part.number, count)
        if self.options.backend == "erst":
            return self.next_erst_id(when_ns)
        slot, self._slot = self._slot, (self._slot + 1) % RAMOOPS_SLOTS
        return slot

    def next_erst_id(self, when_ns: int) -> int:
        """The id of the next CPER record of this boot."""
        if not self._erst_number:
            self._erst_first = when_ns // _S
        self._erst_number += 1
        return erst_id(self._erst_first, self._erst_number)

    def _first_line(self, part: Part, reason: bytes, when_ns: int) -> bytes:
        if self.options.backend == "ramoops" and self.options.era.raw_header:
            return old_ramoops_line(when_ns // _S, when_ns % _S // 1000)
        if self.options.backend == "pstore_blk" and not part.compressed:
            self._totals[reason] = self._totals.get(reason, 0) + 1
            return blk_total_line(reason, self._totals[reason])
        return b""

    def _mtime(self, when_ns: int) -> int | None:
        if self.options.backend != "ramoops":
            return when_ns if self.options.backend == "pstore_blk" else when_ns // _S * _S
        if self.options.era.raw_header:
            return None  # v3.10 did not read the time back
        microseconds = when_ns % _S // 1000
        if self.options.era.version < (4, 13):
            return when_ns // _S * _S + microseconds  # taken for nanoseconds
        return when_ns // _S * _S + microseconds * 1000

    def add(
        self, kind: str, record_id: int, data: bytes, mtime_ns: int | None, what: str, *, encoded: bool = False
    ) -> None:
        """Keep a record; without *mtime_ns* it gets the time of the mount."""
        number = None if kind in ("console", "ftrace") and not self.options.era.zone_ids else record_id
        key = record_name(kind, self.options.backend, number)
        if key in self.records:
            if self.options.backend != "ramoops":
                self.hidden.append(f"{what}: another record has the id of {key} already")
                return
            self.hidden.append(f"{self.records[key].what}: overwritten in {key} by a later boot")
        self.untimed.discard(key)
        if mtime_ns is None:
            self.untimed.add(key)
        name = record_name(kind, self.options.backend, number, compressed=encoded)
        self.records[key] = Record(name, data, mtime_ns or 0, what)

    def show(self, mounted_ns: int, rng: random.Random) -> list[Record]:
        """What a mount shows, in name order: damaged where asked, the ECC notice behind each, times settled."""
        chosen = [name for name in self.records if name.startswith("dmesg")] or list(self.records)
        corrected: dict[str, int] = {}
        for damage in self.options.damage if chosen else ():
            name = rng.choice(chosen)
            record = self.records[name]
            corrected[name] = rng.randrange(1, 40)
            self.records[name] = record._replace(
                data=DAMAGES[damage](record.data, rng), what=f"{record.what}, damaged ({damage})"
            )
        for name, record in self.records.items():
            data = record.data
            if self.options.ecc is not None and not name.startswith("ftrace"):  # its notice was read as records
                data += ecc_notice(self.options.ecc, corrected.get(name, 0), int(name in corrected))
            mtime_ns = mounted_ns if name in self.untimed else record.mtime_ns
            self.records[name] = record._replace(data=data, mtime_ns=mtime_ns)
        return sorted(self.records.values())
