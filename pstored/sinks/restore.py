# SPDX-License-Identifier: Apache-2.0
"""The crashed boot's own journal: the kernel lines that it lacks are given back to it, most of all its last words.

A client of journald cannot set ``_BOOT_ID``.  So the lines go through systemd-journal-remote(8) into files of their
own beside journald's, named as journald names its archived ones: its vacuuming (SystemMaxUse=, MaxRetentionSec=) takes
them away in their time.  What is lacking is asked of the journal itself, those files included: whatever a killed run
has put there is not put there again, and a later revision of the crash adds only what is new in it.
"""

import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from pstored import durable
from pstored.errors import SinkError
from pstored.host import Host
from pstored.journal import remote as journalremote
from pstored.journal.bootjournal import MAX_BOOTS, BootJournal, JournalBoot
from pstored.journal.export import (
    MAX_LINES,
    MAX_USEC,
    Line,
    Origin,
    Placed,
    clock_offset_us,
    comparable,
    export,
    in_order,
    kernel_lines,
)

JOURNALS = "/var/log/journal"
MACHINE_ID = "/etc/machine-id"
PREFIX = "pstored@"
"""Begins the names of our files; what stands before the ``@`` is the writer's to choose (``system``, ``user-1000``)."""
SURE = frozenset(("certain", "high"))
"""A boot named with less confidence may be another: its journal is left alone."""
_ID128 = re.compile(r"[0-9a-f]{32}")
LAST_ENTRIES = 200
"""So many of a boot's last entries are looked at, and more if all of these are ours."""


class RestoreSink:
    """Gives kernel lines back to the journals of crashed boots."""

    name = "restore"

    def __init__(self, host: Host, scratch: str, *, programs: Iterable[str] = journalremote.PROGRAMS) -> None:
        self._host = host
        self._programs = programs
        self._scratch = scratch
        """Where temporary files go: the archive, whose next writer removes them if this run is killed."""

    def deliver(self, crash: dict[str, Any], *, text: bytes, report_path: str) -> dict[str, Any] | None:  # noqa: ARG002
        """Give back what the crashed boot's journal lacks of *text*, the kernel's log.

        Returns:
            The receipt: how many lines, in which files; or why none: that is not tried again.  None while the boot is
            still running: journald may be about to write those very lines, or may lose them when the boot ends.

        Raises:
            SinkError: the journal cannot be read (refused), or the lines cannot be written (to be tried again).
        """
        if crash["boot"]["id"] is not None and crash["boot"]["id"] == self._host.boot_id():
            return None
        directory = self._directory(crash)
        program = journalremote.find_program(self._programs)
        lines = kernel_lines(text)
        why_not = self._why_not(crash, lines) or _why_not_there(directory)
        if program is None or why_not is not None:
            return _nothing(why_not or "systemd-journal-remote is not installed")
        try:
            return self._restore(program, crash, lines, directory)
        except OSError as e:
            raise SinkError(
                f"cannot give kernel lines back to the journal in {directory!r}: {e.strerror or e}",
                hint="it is tried again at the next delivery; restore = false in [journal] turns it off",
            ) from e

    def _restore(self, program: str, crash: dict[str, Any], lines: list[Line], directory: str) -> dict[str, Any]:
        boot_id = crash["boot"]["id"]
        durable.remove_litter(directory, prefix=durable.NEW + PREFIX)
        witness = self._ask(boot_id, lines)
        lacking = find_lacking(lines, witness.present)
        origin = find_origin(self._host, crash, witness.last)
        if not witness.last and crash["machine_id"] is None:
            return _nothing(f"the records do not say that boot {boot_id} was one of this machine, nor does the journal")
        if not lacking:
            return _nothing(f"that of boot {boot_id} has all kernel lines") | {"has_boot": True}
        if origin is None:
            return _nothing(f"it has nothing of boot {boot_id}, and the records do not say when that was")
        earliest_us, latest_us = find_room(witness.boots, boot_id, crash["collected"]["boot_id"])
        if earliest_us > latest_us:
            return _nothing(f"the clocks of the boots before and after {boot_id} leave no room for it between them")
        origin = origin._replace(earliest_us=earliest_us, latest_us=latest_us)
        files = self._write(program, list(export(witness.place(lacking), origin)), crash["id"], directory)
        said = f"{len(lacking)} kernel lines given back to the journal of boot {boot_id}"
        return {"lines": len(lacking), "files": files, "said": said, "has_boot": True}

    def _why_not(self, crash: dict[str, Any], lines: list[Line]) -> str | None:
        if crash["boot"]["id"] is None or crash["boot"]["confidence"] not in SURE:
            return "which boot crashed is not sure enough"
        return None if lines else "there are no kernel lines with a time"

    def _directory(self, crash: dict[str, Any]) -> str:
        """Where journald keeps what survives a reboot; its own path, which may not be there."""
        machine_id = _id128(crash["machine_id"]) or _id128(self._host.read(MACHINE_ID))
        return self._host.path(os.path.join(JOURNALS, machine_id or "none"))

    def _ask(self, boot_id: str, lines: list[Line]) -> "Witness":
        journal = BootJournal(self._host)
        present = journal.kernel_lines(boot_id, {line.time_us for line in lines})
        last = last_entries(journal, boot_id)
        boots = journal.boots(MAX_BOOTS) if journal.problem is None else []
        if not boots and journal.problem is not None:
            raise SinkError(
                f"what the journal has of boot {boot_id} is not known: {journal.problem}",
                retry=False,
                hint="`pstored analyze --all`, then `pstored deliver`, tries again",
            )
        return Witness(present, last, boots)

    def _write(self, program: str, entries: list[bytes], crash_id: str, directory: str) -> list[str]:
        """Make the files, and put them into the journal; gives their names."""
        temporary = tempfile.mkdtemp(prefix=durable.NEW + "restore-", dir=self._scratch)
        try:
            made = journalremote.write_files(program, entries, temporary)
            # the numbering's id: of its own for each restoration, and the same if the same is done again
            digest = hashlib.sha256(b"\0".join((crash_id.encode(), *entries))).hexdigest()[:32]
            names = []
            for file in made:
                name = f"{PREFIX}{digest}-{file.first_seqnum:016x}-{file.first_wall_us:016x}.journal"
                durable.put_sparse_copy(file.path, directory, name, like=_neighbour(directory))
                names.append(name)
            return names
        finally:
            durable.remove_tree(temporary)


def last_entries(journal: BootJournal, boot_id: str) -> list[dict[str, Any]]:
    """A boot's last entries, oldest first, some that are not ours among them if there are any."""
    last = journal.last_entries(boot_id, LAST_ENTRIES)
    if last and all("PSTORE_RESTORED" in entry for entry in last):
        last = journal.last_entries(boot_id, LAST_ENTRIES + MAX_LINES)
    return last


def find_origin(host: Host, crash: dict[str, Any], last: list[dict[str, Any]]) -> Origin | None:
    """Whose lines they are, and when that boot began; None if that is not known.

    Args:
        host: where the crash was collected.
        crash: crash.json, which names a boot.
        last: entries that the journal has of that boot; its clock and its name for itself count more.  Without any, a
            crash that was imported may be another machine's.
    """
    offset_us = clock_offset_us(crash)
    here = _id128(host.read(MACHINE_ID))
    machine_id = _id128(crash["machine_id"]) or (here if last else None)
    hostname = (host.read("/etc/hostname") or "").strip() or None if machine_id == here else None
    for entry in last:
        if "PSTORE_RESTORED" in entry:
            continue
        offset_us = entry["__REALTIME_TIMESTAMP"] - entry["__MONOTONIC_TIMESTAMP"]
        hostname = entry["_HOSTNAME"] if isinstance(entry.get("_HOSTNAME"), str) else hostname
    if offset_us is None or offset_us <= 0:
        return None
    return Origin(
        crash_id=crash["id"],
        boot_id=crash["boot"]["id"],
        machine_id=machine_id,
        hostname=hostname,
        offset_us=offset_us,
    )


def _id128(text: str | None) -> str | None:
    found = (text or "").strip()
    return found if _ID128.fullmatch(found) else None


def _nothing(why: str) -> dict[str, Any]:
    return {"lines": 0, "files": [], "said": f"nothing given back to the journal: {why}"}


def _why_not_there(directory: str) -> str | None:
    try:
        return None if _journals(directory) else f"there is no journal in {directory}"
    except FileNotFoundError:
        return f"no persistent journal: there is no {directory}"


def _journals(directory: str) -> list[str]:
    return sorted(n for n in os.listdir(directory) if n.endswith(".journal") and not n.startswith((".", PREFIX)))


def _neighbour(directory: str) -> str:
    """A file of journald's, as whose owner, group and mode ours are to be."""
    names = _journals(directory)
    return os.path.join(directory, "system.journal" if "system.journal" in names else names[0])


def find_lacking(lines: Iterable[Line], present: Counter[tuple[int, bytes]]) -> list[Line]:
    """The lines that are not in *present*; one without a time of its own is where the line before it is."""
    left = present.copy()
    found: list[Line] = []
    lacks = False
    for line in lines:
        if line.timed:
            key = (line.time_us, comparable(line.text))
            lacks = left[key] <= 0
            left[key] -= 1
        if lacks:
            found.append(line)
    return found


def find_room(boots: list[JournalBoot], boot_id: str, collecting: str | None) -> tuple[int, int]:
    """Between which wall times lines of a boot must be, so as to stay between the boots before and after it.

    journald numbers its entries, and by that they sort, whatever the clock does.  Ours have other numbers; against
    other boots they sort by wall clock (systemd 252, sd-journal.c, compare_locations()).  Where that went back from
    boot to boot, lines with their own time would be in the midst of another boot, and hide it from ``--list-boots``.

    Args:
        boots: those in the journal, oldest first.
        boot_id: the lines'; if it is not among these, it was before the collecting one.
        collecting: the boot that collected.
    """
    ids = [boot.boot_id for boot in boots]
    if boot_id in ids:
        before, after = boots[: ids.index(boot_id)], boots[ids.index(boot_id) + 1 :]
    elif collecting in ids:
        before, after = boots[: ids.index(collecting)], boots[ids.index(collecting) :]
    else:
        before, after = [], []
    return (
        max((max(boot.first_wall_us, boot.last_wall_us) + 1 for boot in before), default=0),
        min((min(boot.first_wall_us, boot.last_wall_us) - 1 for boot in after), default=MAX_USEC - 1),
    )


class Witness(NamedTuple):
    """What the journal has of a boot."""

    present: Counter[tuple[int, bytes]]
    last: list[dict[str, Any]]
    """Its last entries, oldest first."""
    boots: list[JournalBoot]
    """It and all others, oldest first."""

    def place(self, lacking: list[Line]) -> list[Placed]:
        """Where the lines belong among the boot's entries.

        Entries sort by when journald received them, which is after the kernel logged them.  So a line that was lost
        may have a time before that of lines above it: it is moved behind what journald received, by no more than it
        takes, and so that lines that only a later revision brings still find room.
        """
        live = [entry for entry in self.last if "PSTORE_RESTORED" not in entry]
        if not live:
            return in_order(lacking)
        last_us: int = live[-1]["__MONOTONIC_TIMESTAMP"]
        kernel = [
            (int(entry[SOURCE]), entry["__MONOTONIC_TIMESTAMP"])
            for entry in live
            if entry.get("_TRANSPORT") == "kernel" and str(entry.get(SOURCE)).isdecimal()
        ]
        logged_us, received_us = max(kernel, default=(0, 0))
        lost_us = max(logged_us, last_us - _slack_us(last_us))

        def moved(time_us: int) -> int:
            if time_us < logged_us or time_us > last_us:
                return time_us
            if time_us < lost_us:  # user space lived on for long: an oops that was survived
                return max(time_us, received_us + 1)
            return last_us + 1 + (time_us - lost_us) // SQUEEZE

        return in_order(lacking, [moved(line.time_us) for line in lacking])


SQUEEZE = 10
"""Lines that are moved keep so much less distance: what was logged up to 2 s before is within 0.2 s after."""
SOURCE = "_SOURCE_MONOTONIC_TIMESTAMP"


def _slack_us(monotonic_us: int) -> int:
    """How far the kernel's log time may be behind the monotonic clock at that time.

    journald may receive a line late, and only the latter clock is slewed: adjtimex(2), by at most 500 ppm.
    """
    return 2_000_000 + monotonic_us // 1000
