# SPDX-License-Identifier: Apache-2.0
"""What of a heap of records is new: by type, content and time, however it comes."""

from pathlib import Path

from pstored.archive import Archive
from pstored.bundle import describe
from pstored.host import Host
from pstored.intake.bundles import (
    MAX_BUNDLES,
    MAX_PASS,
    MAX_RECORD,
    Fate,
    Intake,
    Offer,
    foreign_facts,
    make_offer,
    said_of,
)
from pstored.readers.model import Salvaged

S = 1_795_000_000 * 10**9
TEXT = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: x\n"


def take(archive: Archive, *found: Salvaged) -> list[Fate]:
    """Offer records, archive what is new, and say what became of each."""
    intake = Intake(archive)
    fates = [intake.offer(make_offer(f)) for f in found]
    facts = foreign_facts(Host("/nonexistent"), is_own=False)

    def unreadable(offer: Offer, e: Exception) -> None:
        raise AssertionError(offer, e)

    intake.write(facts, lambda offers: describe(facts, store={"kind": "x"}, said=said_of(offers)), unreadable)
    return fates


def made(tmp_path: Path) -> Archive:
    """An empty one."""
    archive = Archive(str(tmp_path / "archive"))
    with archive.lock():
        pass
    return archive


def test_the_same_record_is_known(tmp_path: Path) -> None:
    """In one heap a copy, in the next one known; by content alone where there is no time."""
    archive = made(tmp_path)
    dump, console = Salvaged("dmesg-ramoops-0", TEXT, S + 123), Salvaged("console-ramoops-0", b"text")
    assert take(archive, dump, dump, console) == [Fate.NEW, Fate.COPY, Fate.NEW]
    assert take(archive, dump, console._replace(name="console-ramoops-7"), dump._replace(mtime_ns=0)) == [
        Fate.KNOWN,
        Fate.KNOWN,
        Fate.COPY,
    ]


def test_equal_bytes_at_another_time_are_another_dump(tmp_path: Path) -> None:
    """But of a copy that has whole seconds the second must agree, no more."""
    archive = made(tmp_path)
    assert take(archive, Salvaged("dmesg-ramoops-0", TEXT, S + 123)) == [Fate.NEW]
    assert take(archive, Salvaged("dmesg-ramoops-0", TEXT, S)) == [Fate.KNOWN]
    assert take(archive, Salvaged("dmesg-ramoops-0", TEXT, S + 124)) == [Fate.NEW]
    assert take(archive, Salvaged("dmesg-ramoops-0", TEXT, S + 10**9)) == [Fate.NEW]


def test_packed_and_unpacked_are_one_record(tmp_path: Path) -> None:
    """What a kernel without the algorithm had shown is known."""
    archive = made(tmp_path)
    notice = b"\nECC: No errors detected\n"
    assert take(archive, Salvaged("dmesg-ramoops-0.enc.z", b"packed" + notice, S)) == [Fate.NEW]
    assert take(archive, Salvaged("dmesg-ramoops-0", TEXT, S, packed=b"packed")) == [Fate.KNOWN]
    assert take(archive, Salvaged("dmesg-ramoops-0", TEXT, S)) == [Fate.NEW]


def test_efi_by_either_name_is_one_backend(tmp_path: Path) -> None:
    """Which kernel shows it is not known."""
    archive = made(tmp_path)
    assert take(archive, Salvaged("dmesg-efi-179500000001001", TEXT, S)) == [Fate.NEW]
    assert take(archive, Salvaged("dmesg-efi_pstore-179500000001001", TEXT, S)) == [Fate.KNOWN]
    assert take(archive, Salvaged("dmesg-efi_pstore-179500000001001", TEXT + b"y", S)) == [Fate.NEW]
    assert take(archive, Salvaged("dmesg-efi-179500000001001", TEXT + b"y", S)) == [Fate.KNOWN]


def test_what_is_too_much_is_left_for_the_next_time(tmp_path: Path) -> None:
    """Bytes, and records of one name."""
    archive = made(tmp_path)
    large = [Salvaged(f"dmesg-ramoops-{n}", b"%d" % n * (MAX_PASS // 4), S) for n in range(5)]
    assert take(archive, *large) == [Fate.NEW] * 4 + [Fate.LEFT]
    assert take(archive, *large) == [Fate.KNOWN] * 4 + [Fate.NEW]
    many = [Salvaged("dmesg-ramoops-0", b"%d" % n, S) for n in range(MAX_BUNDLES + 1)]
    assert take(archive, *many) == [Fate.NEW] * MAX_BUNDLES + [Fate.LEFT]


def test_a_record_that_is_too_large_is_cut_to_its_end(tmp_path: Path) -> None:
    """Where a log tells most; and that is said, as is what the kernel had erased."""
    archive = made(tmp_path)
    found = Salvaged("console-ramoops-0", b"x" * MAX_RECORD + b"the end", notes=("first",), erased=True)
    assert take(archive, found) == [Fate.NEW]
    (harvest,) = archive.harvest_ids()
    ((member, data),) = archive.read_records(harvest)
    assert (member.size, data[-7:]) == (MAX_RECORD, b"the end")
    (record,) = archive.load_harvest(harvest).facts["records"]
    assert record["notes"] == [
        "first",
        f"cut to its last {MAX_RECORD} of {MAX_RECORD + 7} bytes",
        "the kernel had erased it, but its bytes were still there",
    ]
