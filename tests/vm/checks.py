# SPDX-License-Identifier: Apache-2.0
"""What a collecting boot left on the host, and what must be true of it.  Reads the archive without pstored's help."""

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

# The C of a type of which only JSON knows more; nothing here is passed on untyped.
Report = dict[str, Any]


class Collected(NamedTuple):
    """One run of ``pstored collect`` in a guest, as its script left it in the job (see scenarios.COLLECT)."""

    job: Path
    listed: dict[str, bytes]
    """What the kernel showed before: every record, read to its end by cat."""
    left: frozenset[str]
    """Names in the store after."""
    status: int
    said: str
    """Standard error."""
    report: Report
    """Standard output."""
    archive: Path
    """A copy of the archive as it was after."""

    def outcomes(self) -> dict[str, str]:
        """What became of each record in the store, by its name."""
        return {record["name"]: record["outcome"] for record in self.report["harvest"]["records"]}

    def crashes(self) -> list[Report]:
        """Every crash in the archive, oldest first."""
        return read_crashes(self.archive)

    def boots(self) -> list[str | None]:
        """The boots that crashed, oldest first."""
        return [crash["boot"]["id"] for crash in self.crashes()]

    def text(self, crash: Report) -> bytes:
        """The dmesg.txt of *crash*."""
        return (self.archive / "crashes" / str(crash["id"]) / "dmesg.txt").read_bytes()


def read_collected(job: Path, suffix: str = "") -> Collected:
    """Read what the script COLLECT left in *job*."""
    here = job / f"collect{suffix}"
    return Collected(
        job=job,
        listed=read_store(here / "store"),
        left=frozenset((here / "left").read_text().splitlines()),
        status=int((here / "status").read_text()),
        said=(here / "said").read_text(),
        report=json.loads((here / "report").read_bytes() or b"{}"),
        archive=here / "root/var/lib/pstored",
    )


def read_store(directory: Path) -> dict[str, bytes]:
    """The records that were copied into *directory*."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def read_crashes(archive: Path) -> list[Report]:
    """Every crash.json in *archive*, oldest first."""
    return [json.loads(path.read_bytes()) for path in sorted(archive.glob("crashes/*/crash.json"))]


def read_archived(archive: Path) -> Counter[tuple[str, bytes]]:
    """Every record in every whole harvest of *archive*: name and bytes, and how often it is there."""
    found: Counter[tuple[str, bytes]] = Counter()
    for path in archive.glob("harvests/[0-9]*/records.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None, f"{path} holds something that is no record: {member.name!r}"
                found[member.name, file.read()] += 1
    return found


def without_notice(record: bytes) -> bytes:
    """A record without its ECC notice, which may differ from mount to mount."""
    return re.sub(rb"\nECC: [^\n]*\n\Z", b"", record)


def check_nothing_lost(records: dict[str, bytes], store: dict[str, bytes], archive: Path, *, once: bool = True) -> None:
    """Every one of *records* is in the store or whole in the archive, and there once."""
    kept = Counter(without_notice(data) for (_, data), count in read_archived(archive).items() for _ in range(count))
    shown = {without_notice(data) for data in store.values()}
    for name, data in records.items():
        content = without_notice(data)
        assert content in kept or content in shown, f"{name} is lost: neither in the store nor in {archive}"
        assert not once or kept[content] <= 1, f"{name} is in the archive {kept[content]} times"


def check_all_taken(collected: Collected) -> None:
    """One pass has archived all there was, has cleared the store of it, and finds no fault."""
    assert collected.listed, f"there was nothing in the store: {collected.job}"
    check_nothing_lost(collected.listed, {}, collected.archive)
    assert not collected.left, f"left in the store: {sorted(collected.left)}"
    assert set(collected.outcomes().values()) == {"erased"}, collected.outcomes()
    assert collected.status == 0, (collected.status, collected.said)


def check_nothing_new(collected: Collected, crashes: int) -> None:
    """A pass over an empty store has found nothing, and the archive still has *crashes* crashes."""
    assert not collected.listed, f"the store is not empty: {sorted(collected.listed)}"
    assert collected.report["crashes"] == []
    assert collected.status == 0, (collected.status, collected.said)
    assert len(collected.crashes()) == crashes


def console_lines(serial: bytes) -> list[bytes]:
    """The kernel's lines on the serial console; what firmware prints there does not begin so."""
    return [line for line in serial.splitlines() if line.startswith(b"[")]


def check_text(text: bytes, serial: bytes) -> int:
    """The lines of a crash are a run of the lines on the console, none left out; gives their number."""
    # "<6>[    1.0] text" in a record, "[    1.0] text" on the console (kernel/printk/printk.c, record_print_text())
    wanted = [re.sub(rb"\A<\d+>", b"", line) for line in text.splitlines()]
    printed = console_lines(serial)
    assert wanted, "the crash has no text"
    assert wanted[0] in printed, f"not on the console: {wanted[0]!r}"
    first = printed.index(wanted[0])
    assert wanted == printed[first : first + len(wanted)]
    return len(wanted)


def check_boots(collected: Collected, boots: Iterable[str]) -> None:
    """The crashes are those of *boots*, one each, in the order of time as far as the clock can tell."""
    assert sorted(str(boot) for boot in collected.boots()) == sorted(boots)
    for crash in collected.crashes():
        assert crash["boot"]["method"] == "stamp", crash["boot"]
