# SPDX-License-Identifier: Apache-2.0
"""Every real crash through ``pstored collect``: how many, which boot, which parts, and every byte of the text.

What is expected is written here by hand, or worked out from the raw records without pstored.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fake_pstore import capture
from pstored.archive import Archive
from pstored.crashes.dumps import Dump
from pstored.crashes.incidents import group
from pstored.parse.record import decode_record
from tests.conftest import Done, Root, run_pstored

COLLECTED = [name for name in capture.names() if capture.load(name).files]
ENCODED = [name for name in COLLECTED if name.startswith("lab-enc-")]


class Crash(NamedTuple):
    """What a capture must give."""

    kind: str
    severity: str
    title: str
    dumps: tuple[tuple[str, int, int], ...]
    """Reason, count, number of parts."""
    others: tuple[str, ...] = ()
    """Texts beside dmesg.txt."""


SYSRQ = "Kernel panic: sysrq triggered crash"
NULL = "BUG: kernel NULL pointer dereference, address: 0000000000000000 in lkdtm_EXCEPTION"
TWO = (("Oops", 1, 1), ("Panic", 2, 1))
ZONES = ("console", "pmsg")
EXPECTED: dict[str, tuple[Crash, ...]] = {
    "lab-blk": (Crash("null-deref", "oops", NULL, (("Oops", 1, 1),), ZONES),),
    "lab-efi-twoboots": (
        Crash("sysrq", "panic", SYSRQ, (("Oops", 1, 16), ("Panic", 2, 16))),
        Crash("sysrq", "panic", SYSRQ, (("Oops", 1, 15), ("Panic", 2, 16))),
    ),
    **{name: (Crash("sysrq", "panic", SYSRQ, TWO, ZONES),) for name in ENCODED},
    "lab-erst": (Crash("sysrq", "panic", SYSRQ, (("Oops", 1, 2), ("Panic", 2, 2))),),
    "lab-erst-mce": (
        Crash(
            "mce",
            "panic",
            "fatal machine check on CPU 0, bank 4: internal unclassified error, processor context corrupt, "
            "address 0xdeadb000",
            (("Panic", 1, 2),),
            ("mce",),
        ),
    ),
    "lk-CORRUPT_STACK": (
        Crash(
            "paging-fault",
            "oops",
            "BUG: unable to handle page fault for address: ffffffffffffffff in vfs_write",
            (("Oops", 1, 1),),
            ZONES,
        ),
    ),
    "lk-EXHAUST_STACK": (
        Crash(
            "stack-overflow",
            "panic",
            "BUG: TASK stack guard page was hit at (____ptrval____) (stack is (____ptrval____)..(____ptrval____))"
            " in recursive_loop",
            TWO,
            ZONES,
        ),
    ),
    "lk-HUNG_TASK": (
        Crash("hung-task", "panic", "INFO: task init:83 blocked for more than 5 seconds.", (("Panic", 1, 1),), ZONES),
    ),
    "lk-LOOP": (
        Crash(
            "soft-lockup",
            "panic",
            "watchdog: BUG: soft lockup - CPU#1 stuck for 13s! [init:83] in lkdtm_LOOP",
            (("Panic", 1, 1),),
            ZONES,
        ),
    ),
    "lk-WRITE_RO": (
        Crash(
            "paging-fault",
            "oops",
            "BUG: unable to handle page fault for address: ffffffff9445aca0 in lkdtm_WRITE_RO",
            (("Oops", 1, 1),),
            ZONES,
        ),
    ),
    # two oopses at once on two CPUs: the first is the cause, the panic is the second one's
    "x86_64-6.1-ramoops-all": (Crash("oops", "panic", "int3: 0000 [#1] SMP in idle_cpu", TWO, (*ZONES, "ftrace")),),
    "x86_64-6.1-ramoops-ecc": (Crash("sysrq", "panic", SYSRQ, TWO, ZONES),),
    "x86_64-6.1deb-efi": (Crash("sysrq", "panic", SYSRQ, (("Panic", 1, 14),)),),
    "x86_64-6.1deb-erst": (Crash("sysrq", "panic", SYSRQ, (("Panic", 1, 2),)),),
    "x86_64-6.1deb-ramoops": (Crash("sysrq", "panic", SYSRQ, (("Panic", 1, 1),)),),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A capture, and what pstored made of it."""

    capture: capture.Capture
    root: Root
    done: Done

    @property
    def crashes(self) -> list[dict[str, Any]]:
        """What ``collect --json`` printed."""
        found: list[dict[str, Any]] = self.done.json["crashes"]
        return found

    def text(self, crash: dict[str, Any], name: str) -> bytes:
        """A file beside crash.json."""
        path: Path = self.root.archive / "crashes" / str(crash["id"]) / name
        return path.read_bytes()


def collect(name: str, path: Path, *, stamped: bool) -> Case:
    """Run ``collect --json`` on a capture."""
    loaded = capture.load(name)
    capture.populate_root(path, loaded)
    root = Root(path=path)
    # the machine that runs the tests may have its temporary files in memory
    prefix = f'[boots]\nstamp_prefix = "{capture.STAMP_PREFIX}"\n' if stamped else ""
    root.configure(f"[archive]\nallow_volatile = true\n{prefix}")
    return Case(loaded, root, run_pstored("collect", "--json", root=root))


@pytest.fixture(scope="module", params=COLLECTED)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Each capture, collected with its stamp prefix configured."""
    return collect(request.param, tmp_path_factory.mktemp(request.param), stamped=True)


@pytest.fixture(scope="module", params=COLLECTED)
def blind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Each capture, collected without: its stamps mean nothing."""
    return collect(request.param, tmp_path_factory.mktemp(request.param), stamped=False)


# -- without pstored: what the records hold


NOTICE = re.compile(rb"\n(ECC: )?(No errors detected|\d+ Corrected bytes, \d+ unrecoverable blocks)\n$")


def raw_parts(loaded: capture.Capture) -> dict[tuple[str, str, int], dict[int, bytes]]:
    """(boot, reason, count) to part number to text: the records' own first lines, ECC notices cut off.

    The boots of lab-efi-twoboots are told apart by the seconds in their ids: they crashed 13 s apart.
    """
    found: dict[tuple[str, str, int], dict[int, bytes]] = defaultdict(dict)
    for name, data, _ in loaded.records("truth" if loaded.truth_files else "pstore"):
        if name.startswith("dmesg"):
            first, _, text = NOTICE.sub(b"", data).partition(b"\n")
            said = re.fullmatch(rb"(\w+)#(\d+) Part(\d+)", first)
            assert said is not None, first
            boot = loaded.crash_boot_id
            if loaded.name == "lab-efi-twoboots" and int(name.split("-")[2]) // 100_000 < 1_795_407_530:
                boot = next(b for b in loaded.stamped_boot_ids if b != boot)
            found[boot, said[1].decode(), int(said[2])][int(said[3])] = text
    return found


def raw_dumps(loaded: capture.Capture) -> dict[str, list[bytes]]:
    """Boot to the texts of its dumps, in order of their count: parts joined, the highest first."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for (boot, _, _), parts in sorted(raw_parts(loaded).items(), key=lambda item: item[0][2]):
        found[boot].append(b"".join(parts[n] for n in sorted(parts, reverse=True)))
    return found


def joined(older: bytes, newer: bytes) -> bytes:
    """Two texts of one log as one, line by line: the newer one goes on somewhere in the older one."""
    a, b = older.splitlines(keepends=True), newer.splitlines(keepends=True)
    if any(a == b[k : k + len(a)] for k in range(len(b) - len(a) + 1)):
        return newer
    at = next(k for k in range(len(a)) if a[k:] == b[: len(a) - k])
    return b"".join(a[:at] + b)


def dumps_in_archive(case: Case) -> dict[str, list[Dump]]:
    """Boot to its dumps, as pstored puts them together from its archive."""
    archive = Archive(str(case.root.archive))
    (harvest,) = archive.harvest_ids()
    receipts = {r.name: r for r in archive.load_harvest(harvest).receipts}
    records = [
        decode_record(member.name, data, mtime_ns=receipts[member.name].mtime_ns)
        for member, data in archive.read_records(harvest)
    ]
    found = {}
    for incident in group(records, stamp_prefix=capture.STAMP_PREFIX):
        (boot,) = {boot_id for _, log in incident.logs() for boot_id in log.stamps(capture.STAMP_PREFIX)}
        found[boot] = incident.dumps
    return found


# -- the tests


def test_every_capture_with_records_is_expected() -> None:
    """A new capture needs its line in the table."""
    assert set(EXPECTED) == set(COLLECTED)


def test_it_ends_well(case: Case) -> None:
    """Everything understood, everything erased that may be: nothing on standard error, exit status 0."""
    assert (case.done.status, case.done.stderr) == (0, "")
    assert case.done.json["schema"] == 1
    assert case.done.json["notes"] == []


def test_the_crashes_are_what_happened(case: Case) -> None:
    """As many as there were, oldest first, each with its kind, title, dumps and texts."""
    found = [
        Crash(
            c["kind"],
            c["severity"],
            c["title"],
            tuple((d["reason"], d["count"], len(d["parts"])) for d in c["dumps"]),
            tuple(sorted(name.removesuffix(".txt") for name in c["files"] if name != "dmesg.txt")),
        )
        for c in case.crashes
    ]
    expected = [e._replace(others=tuple(sorted(e.others))) for e in EXPECTED[case.capture.name]]
    assert found == expected


def test_the_boots_that_crashed_are_named(case: Case) -> None:
    """By the stamps that they wrote; never the boot that collected."""
    boots = [c["boot"] for c in case.crashes]
    assert {b["id"] for b in boots} == set(case.capture.stamped_boot_ids)
    assert len(boots) == len(case.capture.stamped_boot_ids)
    assert all((b["method"], b["confidence"]) == ("stamp", "certain") and b["evidence"] for b in boots)
    assert case.capture.collect_boot_id not in {b["id"] for b in boots}
    assert all(c["collected"]["boot_id"] == case.capture.collect_boot_id for c in case.crashes)


def test_the_last_crash_is_the_last_boot(case: Case) -> None:
    """Oldest first: what capture.json calls the crash is the newest."""
    assert case.crashes[-1]["boot"]["id"] == case.capture.crash_boot_id


def test_all_parts_are_there_in_order(case: Case) -> None:
    """Ascending from 1, none missing, none damaged."""
    for crash in case.crashes:
        assert crash["complete"] is True
        for dump in crash["dumps"]:
            assert dump["parts"] == list(range(1, len(dump["parts"]) + 1))
            assert (dump["missing"], dump["damage"], dump["complete"]) == ([], [], True)
    raw = raw_parts(case.capture)
    assert sorted(
        (c["boot"]["id"], d["reason"], d["count"], len(d["parts"])) for c in case.crashes for d in c["dumps"]
    ) == [(boot, reason, count, len(parts)) for (boot, reason, count), parts in sorted(raw.items())]


def test_every_record_is_in_the_report_once(case: Case) -> None:
    """Name, size and digest as capture.json has them."""
    found = [(r["name"], r["size"], r["sha256"]) for c in case.crashes for r in c["records"]]
    assert sorted(found) == sorted((n, f.size, f.sha256) for n, f in case.capture.files.items())


def test_each_dump_alone_is_the_truth_byte_for_byte(case: Case) -> None:
    """For lab-enc-* what a kernel with the right algorithm showed; for the others the raw records joined."""
    ours = {boot: [d.text for d in dumps] for boot, dumps in dumps_in_archive(case).items()}
    assert ours == raw_dumps(case.capture)


def test_dmesg_txt_is_the_truth_byte_for_byte(case: Case) -> None:
    """Two dumps of one boot are one log: what both hold stands once, and nothing is lost."""
    raw = raw_dumps(case.capture)
    for crash in case.crashes:
        texts = raw[crash["boot"]["id"]]
        expected = texts[0] if len(texts) == 1 else joined(*texts)
        assert case.text(crash, "dmesg.txt") == expected
        for text in texts:
            assert set(text.splitlines()) <= set(expected.splitlines())


def test_the_console_is_the_record_byte_for_byte(case: Case) -> None:
    """Without its ECC notice."""
    raw = {n: NOTICE.sub(b"", d) for n, d, _ in case.capture.records() if n.startswith("console")}
    for crash in case.crashes:
        if "console.txt" in crash["files"]:
            assert case.text(crash, "console.txt") == b"".join(raw.values())
    assert bool(raw) == any("console.txt" in c["files"] for c in case.crashes)


def test_pmsg_has_every_line_of_the_record(case: Case) -> None:
    """Plain text."""
    raw = [NOTICE.sub(b"", d) for n, d, _ in case.capture.records() if n.startswith("pmsg")]
    for text in raw:
        ours = case.text(case.crashes[0], "pmsg.txt").splitlines()
        assert [line for line in text.splitlines() if line not in ours] == []


def printed(lines: Iterable[bytes]) -> list[bytes]:
    """Lines with a timestamp, as a console has them."""
    return [line.rstrip() for line in lines if re.match(rb"\[ *\d+\.\d{6}\]", line)]


def test_dmesg_agrees_with_the_serial_console(case: Case) -> None:
    """Each line below the console's loglevel was on the serial line, and each that was there between is in the text."""
    loglevel = int(re.findall(r"\bloglevel=(\d)", case.capture.crash_cmdline or "loglevel=7")[-1])
    serial = printed(case.capture.serial("crash").replace(b"\r", b"").split(b"\n"))
    crash = next(c for c in case.crashes if c["boot"]["id"] == case.capture.crash_boot_id)
    ours = []
    for line in case.text(crash, "dmesg.txt").splitlines():
        said = re.fullmatch(rb"<(\d+)>(.*)", line)
        assert said is not None, line
        if int(said[1]) % 8 < loglevel:
            ours.append(said[2].rstrip())
    assert len(ours) > 250
    start = serial.index(ours[0])
    assert serial[start : start + len(ours)] == ours


def test_the_kernel_and_the_time_are_those_of_the_crash(case: Case) -> None:
    """Release and command line as the guest had them; the time is after its init, before the collection."""
    crash = next(c for c in case.crashes if c["boot"]["id"] == case.capture.crash_boot_id)
    assert crash["kernel"]["release"] == case.capture.crash_kernel
    assert (crash["kernel"]["cmdline"] or "").split() == (case.capture.crash_cmdline or "").split()
    assert crash["time"]["doubtful"] is False
    wall = json.loads((case.root.archive / "crashes" / crash["id"] / "crash.json").read_bytes())["time"]["wall"]
    assert wall.startswith("2026-11-23T")
    assert crash["backend"] == case.capture.backend


@pytest.mark.parametrize("name", ENCODED)
def test_the_algorithm_is_found_out(name: str, tmp_path: Path) -> None:
    """No record says which it is: the report does (842's text is in none of the libraries)."""
    done = collect(name, tmp_path, stamped=True)
    said = {r["compression"] for c in done.crashes for r in c["records"] if r["name"].endswith(".enc.z")}
    algorithm = capture.load(name).compression
    assert said <= {algorithm, "lz4"} if algorithm == "lz4hc" else said == {algorithm}


# -- without the stamps


def test_without_stamps_the_crashes_are_the_same(blind: Case) -> None:
    """Told apart by their texts alone."""
    expected = EXPECTED[blind.capture.name]
    assert [(c["kind"], c["title"]) for c in blind.crashes] == [(e.kind, e.title) for e in expected]
    assert [[(d["reason"], d["count"], len(d["parts"])) for d in c["dumps"]] for c in blind.crashes] == [
        list(e.dumps) for e in expected
    ]
    assert all(c["complete"] for c in blind.crashes)


def test_without_stamps_no_boot_is_named_but_the_reason(blind: Case) -> None:
    """The ledger has only the collecting boot, and that is never the answer."""
    for crash in blind.crashes:
        boot = crash["boot"]
        assert (boot["id"], boot["method"], boot["confidence"]) == (None, "unknown", "none")
        assert boot["evidence"]
    assert blind.done.status == 0


def test_without_stamps_the_texts_are_the_same(blind: Case) -> None:
    """Which boot it was changes nothing in what it said."""
    raw = sorted(texts[0] if len(texts) == 1 else joined(*texts) for texts in raw_dumps(blind.capture).values())
    assert sorted(blind.text(c, "dmesg.txt") for c in blind.crashes) == raw
