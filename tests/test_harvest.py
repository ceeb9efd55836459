# SPDX-License-Identifier: Apache-2.0
"""From the store into the archive, and only then out of the store."""

import errno
import hashlib
import io
import itertools
import json
import os
import resource
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import pstored.cli.collect
from pstored import steps
from pstored.config import Archive as ArchiveTable
from pstored.config import Config, ErasePolicy
from pstored.config import Harvest as HarvestTable
from pstored.erase import Outcome, verdict
from pstored.errors import ArchiveError
from pstored.harvest import Pass, harvest
from pstored.host import Host
from pstored.parse.filename import split_record_name
from tests.conftest import MakeRoot, Pstored, Root, can_mount, forked, mount, require, run_pstored
from tests.fuse_pstore import FuseFile, fuse_store

E, LIVE, KEPT, DEFERRED = Outcome.ERASED, Outcome.LIVE, Outcome.KEPT, Outcome.DEFERRED
PANIC = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: %s\n"

FLUSHES = 4
"""In a pass with new records: tar, harvest.json, their directory, harvests/; for one or a thousand."""


def run(root: Root, *, erase: ErasePolicy = ErasePolicy.SAFE, allow_volatile: bool = False) -> Pass:
    """A pass in this process."""
    archive = ArchiveTable(allow_volatile=allow_volatile)
    return harvest(Host(str(root.path)), Config(harvest=HarvestTable(erase=erase), archive=archive))


def outcomes(done: Pass) -> dict[str, str]:
    """Record name to what became of it."""
    return {e.name: str(e.outcome) for e in done.erasures}


def members(harvest_directory: Path) -> dict[str, bytes]:
    """What records.tar holds, read without pstored."""
    found = {}
    with tarfile.open(harvest_directory / "records.tar") as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            found[member.name] = content.read()
    return found


# --- what the disk really holds


@pytest.mark.parametrize("file", ["records.tar", "harvest.json"])
def test_a_disk_that_writes_something_else_erases_nothing(file: str, root: MakeRoot, pstored: Pstored) -> None:
    """The flush said yes, but a bit has flipped: the bundle is read back, so the records stay; then archived anew."""
    made = root()
    for number in range(3):
        made.add(f"dmesg-efi-{number}", PANIC % b"%d" % number)

    def run_on_a_bad_disk() -> str:
        def flip(name: str) -> None:
            path = made.archive / "harvests/.new-harvest" / file
            if name.startswith("rename") and path.exists():
                data = path.read_bytes()
                path.write_bytes(data.replace(b"Panic#1", b"Panic#3").replace(b'"size": 6', b'"size": 7'))
                assert path.read_bytes() != data

        steps.hook = flip
        with pytest.raises(ArchiveError, match="does not read back") as caught:
            run(made)
        return caught.value.hint or ""

    assert "nothing was erased" in forked(run_on_a_bad_disk)
    assert made.names() == ["dmesg-efi-0", "dmesg-efi-1", "dmesg-efi-2"]
    again = run(made)
    assert len(again.archived) == 3
    assert made.names() == []


# --- systemd-pstore beside us


def test_rival_that_our_unit_keeps_down_is_not_named(root: MakeRoot) -> None:
    """Enabled, both: the conflict drops systemd-pstore's start."""
    made = root()
    for name in ("systemd-pstore", "pstored-harvest"):
        made.write(f"etc/systemd/system/sysinit.target.wants/{name}.service", "[Unit]\n")
    assert not run(made).warnings


@pytest.mark.parametrize("is_enabled", [True, False])
@pytest.mark.parametrize("is_masked", [True, False])
def test_rival_is_named(root: MakeRoot, is_enabled: bool, is_masked: bool) -> None:
    """While systemd-pstore owns the store, too; an empty store or not.  What it has taken is imported, not lost."""
    made = root()
    if is_enabled:
        made.write("etc/systemd/system/sysinit.target.wants/systemd-pstore.service", "[Unit]\n")
    if is_masked:
        made.write("etc/systemd/system/x", "")
        (made.path / "etc/systemd/system/systemd-pstore.service").symlink_to("/dev/null")
    made.write("var/lib/systemd/pstore/dmesg-efi-1", "for collect\n")
    owns = is_enabled and not is_masked
    for _ in ("empty", "a record"):
        said = " ".join(run(made).warnings)
        assert ("systemctl mask systemd-pstore.service" in said) is owns
        assert bool(said) is owns
        made.add("dmesg-efi-1", PANIC % b"x")


# --- verdict


@pytest.mark.parametrize(
    ("name", "oopsed_no", "oopsed_yes"),
    [
        ("dmesg-ramoops-0", E, DEFERRED),
        ("dmesg-ramoops-7.enc.z", E, DEFERRED),
        ("console-ramoops-0", LIVE, LIVE),
        ("console-ramoops", LIVE, LIVE),
        ("pmsg-ramoops-0", LIVE, LIVE),
        ("ftrace-ramoops-3", LIVE, LIVE),
        ("mce-ramoops-0", LIVE, LIVE),
        ("dmesg-efi-179540752201001", E, DEFERRED),
        ("dmesg-efi_pstore-179540752201001.enc.z", E, DEFERRED),
        ("mce-efi_pstore-179540752201001", E, DEFERRED),
        ("dmesg-erst-7711219347287212033", E, DEFERRED),
        ("mce-erst-7711219347287212034", E, DEFERRED),
        ("console-efi_pstore-1", LIVE, LIVE),
        ("dmesg-pstore_blk-0", E, E),
        ("console-pstore_blk-0", LIVE, LIVE),
        ("pmsg-pstore_blk-0", LIVE, LIVE),
        ("ftrace-pstore_blk-0", LIVE, LIVE),
        ("dmesg-nvram-1", KEPT, KEPT),
        ("rtas-nvram-3", KEPT, KEPT),
        ("powerpc-ofw-nvram-5", KEPT, KEPT),
        ("powerpc-common-nvram-6", KEPT, KEPT),
        ("powerpc-opal-nvram-8", KEPT, KEPT),
        ("dmesg-vendorstore-0", E, DEFERRED),
        ("vendor-vendorstore-0", LIVE, LIVE),
        ("README", KEPT, KEPT),
        ("dmesg-ramoops-0~", KEPT, KEPT),
    ],
)
def test_verdict_of_the_safe_policy(name: str, oopsed_no: Outcome, oopsed_yes: Outcome) -> None:
    """Every backend and type, before and after an oops.

    Not knowing counts as an oops where the id is a slot; EFI and ERST ids clash only where the clock stands still, too.
    """
    record = split_record_name(name)
    is_by_time = record is not None and record.backend in ("efi", "efi_pstore", "erst")
    assert verdict(record, ErasePolicy.SAFE, oopsed=False)[0] is oopsed_no
    assert verdict(record, ErasePolicy.SAFE, oopsed=True)[0] is oopsed_yes
    unknown = oopsed_no if is_by_time else oopsed_yes
    assert verdict(record, ErasePolicy.SAFE, oopsed=None)[0] is unknown


@pytest.mark.parametrize("name", ["dmesg-ramoops-0", "console-ramoops-0", "dmesg-efi-1", "dmesg-nvram-1", "README"])
@pytest.mark.parametrize("oopsed", [False, True, None])
def test_verdict_of_the_other_policies(name: str, oopsed: bool | None) -> None:
    """All is all, none is none, and both are as the owner wants them."""
    record = split_record_name(name)
    assert verdict(record, ErasePolicy.ALL, oopsed=oopsed)[::2] == (Outcome.ERASED, True)
    assert verdict(record, ErasePolicy.NONE, oopsed=oopsed)[::2] == (Outcome.KEPT, True)


@pytest.mark.parametrize("name", ["dmesg-ramoops-0", "README"])
def test_what_stays_unexpectedly_is_trouble(name: str) -> None:
    """A deferred record and an unknown name are in the exit status; what has to stay is not."""
    assert verdict(split_record_name(name), ErasePolicy.SAFE, oopsed=True)[2] is False
    for expected in ("console-ramoops-0", "dmesg-nvram-1"):
        assert verdict(split_record_name(expected), ErasePolicy.SAFE, oopsed=True)[2] is True


# --- a pass


def test_receipts_match_and_the_tar_is_any_tars(root: MakeRoot, tmp_path: Path) -> None:
    """Name, bytes and time of each record as the store had them: by the receipts, and by tar(1)."""
    made = root("all-zones", backend="ramoops", era="6.1", ecc=b"ECC: ")
    before = {name: ((made.store / name).read_bytes(), (made.store / name).stat().st_mtime_ns) for name in made.names()}
    done = run(made)
    assert done.exit_status() == 0
    (bundle,) = made.harvests()
    assert done.harvest_id == bundle.name
    facts = json.loads((bundle / "harvest.json").read_bytes())
    assert facts["schema"] == 1
    assert facts["boot_id"] == (made.path / "proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts["store"]["backend"] == "ramoops"
    for receipt in facts["records"]:
        data, mtime_ns = before[receipt["name"]]
        assert (receipt["size"], receipt["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert receipt["mtime_ns"] == mtime_ns
        content = data.removesuffix(b"\nECC: No errors detected\n")
        assert receipt["content_sha256"] == hashlib.sha256(content).hexdigest()
        assert receipt["error"] is None
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-xf", bundle / "records.tar", "-C", out], check=True)
    for name, (data, mtime_ns) in before.items():
        assert (out / name).read_bytes() == data
        assert (out / name).stat().st_mtime_ns == mtime_ns
        assert (out / name).stat().st_mode & 0o777 == 0o444
    assert len(os.listdir(out)) == len(before)


def test_second_pass_changes_nothing(root: MakeRoot, pstored: Pstored) -> None:
    """What stays in the store is known: no new harvest, every file of the archive as it was, exit 0."""
    made = root("all-zones", backend="ramoops")
    assert pstored("collect", root=made).status == 0
    assert made.names() == ["console-ramoops-0", "ftrace-ramoops-0", "pmsg-ramoops-0"]
    before = made.snapshot()
    again = pstored("collect", "--json", root=made)
    assert again.status == 0
    assert again.json["harvest"]["id"] is None
    assert again.json["harvest"]["known"] == 3
    assert again.json["crashes"] == []
    assert made.snapshot() == before


def test_empty_store_is_nothing_to_do(root: MakeRoot, pstored: Pstored) -> None:
    """No record, or no pstore at all: exit 0, and no archive is made by the harvest."""
    made = root()
    assert pstored("harvest", root=made).status == 0
    made.store.rmdir()
    assert pstored("harvest", root=made).status == 0
    assert not made.archive.exists()


def test_compressed_records_are_archived_raw(root: MakeRoot) -> None:
    """What the kernel could not decompress is archived as it is, under its own name."""
    made = root("panic", backend="efi_pstore", algorithm="lz4")
    before = {name: (made.store / name).read_bytes() for name in made.names()}
    assert any(name.endswith(".enc.z") for name in before)
    run(made)
    assert members(made.harvests()[0]) == before
    assert made.names() == []


def test_ecc_notice_may_change_from_mount_to_mount(root: MakeRoot) -> None:
    """The same record with another notice is not archived again."""
    made = root()
    made.add("console-ramoops-0", b"[    1.0] hello\n\nNo errors detected\n")
    assert len(run(made).archived) == 1
    made.add("console-ramoops-0", b"[    1.0] hello\n\nECC: 3 Corrected bytes, 0 unrecoverable blocks\n")
    assert run(made).archived == ()


def test_slots_come_again_with_other_crashes(root: MakeRoot) -> None:
    """The name says nothing: the next crash in the same slot is archived, and so is one in between that came back."""
    made = root()
    for number in (b"one", b"two", b"three"):
        made.add("dmesg-ramoops-0", PANIC % number)
        assert [r.name for r in run(made).archived] == ["dmesg-ramoops-0"]
    made.add("dmesg-ramoops-3", PANIC % b"two")
    done = run(made)
    assert (done.archived, done.known, outcomes(done)) == ((), 1, {"dmesg-ramoops-3": "erased"})
    assert made.names() == []
    assert len(made.harvests()) == 3


def test_equal_dumps_of_different_times_are_different_crashes(root: MakeRoot) -> None:
    """A machine without printk.time that dies in the same way at every boot: each is archived, told by its mtime."""
    made = root()
    for second in range(3):
        made.add("dmesg-ramoops-0", PANIC % b"same", mtime_ns=(1_795_000_000 + second) * 10**9)
        done = run(made)
        assert [r.mtime_ns for r in done.archived] == [(1_795_000_000 + second) * 10**9]
        assert (done.known, outcomes(done)) == (0, {"dmesg-ramoops-0": "erased"})
    assert len(made.harvests()) == 3


def test_equal_dump_of_the_same_time_is_known(root: MakeRoot) -> None:
    """What the firmware brings back, in whatever slot, is what was archived."""
    made = root()
    for name in ("dmesg-efi-1", "dmesg-efi-2"):
        made.add(name, PANIC % b"same")
        assert outcomes(run(made)) == {name: "erased"}
    assert len(made.harvests()) == 1


def test_equal_dump_that_was_never_erased_is_known(root: MakeRoot) -> None:
    """While the first is in the store its time may change from mount to mount: archived once."""
    made = root()
    made.write("sys/kernel/oops_count", "1\n")
    made.add("dmesg-ramoops-0", PANIC % b"same", mtime_ns=1_795_000_000 * 10**9)
    assert outcomes(run(made)) == {"dmesg-ramoops-0": "deferred"}
    made.add("dmesg-ramoops-0", PANIC % b"same", mtime_ns=1_795_000_007 * 10**9)
    done = run(made)
    assert (done.archived, done.known) == ((), 1)


@pytest.mark.parametrize("name", ["console-ramoops-0", "pmsg-ramoops-0", "ftrace-ramoops-0"])
def test_zones_are_known_by_content_alone(root: MakeRoot, name: str) -> None:
    """Their mtime is the mount's: it says nothing; not even after an erase by policy."""
    made = root()
    for second, policy in enumerate((ErasePolicy.SAFE, ErasePolicy.ALL, ErasePolicy.SAFE)):
        made.add(name, b"the same text", mtime_ns=(1_795_000_000 + second) * 10**9)
        assert len(run(made, erase=policy).archived) == (second == 0)
    assert len(made.harvests()) == 1


def test_collect_as_json(root: MakeRoot, pstored: Pstored) -> None:
    """A public interface: these keys, with a crash and without."""
    made = root("panic", backend="efi_pstore")
    for crashes in (1, 0):
        done = pstored("collect", "--json", root=made)
        assert done.status == 0
        stages = ["harvest", "import", "kdump", "elsewhere", "kernel_log", "crashes", "notes", "delivery", "outgoing"]
        assert list(done.json) == ["schema", *stages]
        assert list(done.json["harvest"]) == ["id", "archived", "known", "records", "warnings"]
        assert (done.json["schema"], len(done.json["crashes"])) == (1, crashes)


def test_equal_records_are_both_archived(root: MakeRoot) -> None:
    """Two records with the same bytes in one pass: both are there, both are erased."""
    made = root()
    for name in ("dmesg-ramoops-0", "dmesg-ramoops-1"):
        made.add(name, PANIC % b"same")
    assert set(outcomes(run(made)).values()) == {"erased"}
    assert sorted(members(made.harvests()[0])) == ["dmesg-ramoops-0", "dmesg-ramoops-1"]


def test_ids_sort_by_collection_even_without_a_clock(root: MakeRoot) -> None:
    """A board whose clock stands at 1970 after one that was right: later harvests still have later ids."""
    made = root()
    config = Config()
    for number, wall_s in enumerate((1_800_000_000, 0, 5, 1_700_000_000)):
        made.add("dmesg-erst-1", PANIC % b"%d" % number)
        harvest(Host(str(made.path), clock_ns=lambda wall_s=wall_s: wall_s * 10**9), config)  # type: ignore[misc]
    ids = [path.name for path in made.harvests()]
    assert len(ids) == 4
    assert [members(path)["dmesg-erst-1"] for path in made.harvests()] == [PANIC % b"%d" % n for n in range(4)]
    assert ids[0].startswith("20270115T080000Z-")


# --- names, times, sizes

WEIRD = [
    b"dmesg-efi-1",
    b"-rf",
    b"--checkpoint-action=exec=sh",
    b"...",
    b"..dmesg-efi-2",
    b".hidden",
    b".new-harvest",
    b"with space",
    b"new\nline",
    b"tab\tand\x1b[31mred",
    b"\xff\xfe\x80",
    b"dmesg-efi-3\xff",
    "grün-efi-1".encode(),
    b"a" * 255,
    b"dmesg-efi-" + b"9" * 245,
    b"\xff" * 255,
    b"#$'\"\\`*?",
    b"CON",
    b"name=value",
    b"trailing ",
]


def test_weird_names_are_archived_as_they_are(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """Whatever the bytes of a name, the record is archived under it, readable with tar(1), and the pass ends well."""
    made = root()
    for name in WEIRD:
        path = os.path.join(os.fsencode(made.store), name)
        with open(path, "wb") as f:
            f.write(b"in " + name)
    done = pstored("harvest", "--json", root=made, env={"LC_ALL": "C.UTF-8"})
    assert done.status == 1  # names that are no record's stay, and somebody should look
    assert "Traceback" not in done.stderr
    (bundle,) = made.harvests()
    archived = {os.fsencode(name): data for name, data in members(bundle).items()}
    assert archived == {name: b"in " + name for name in WEIRD}
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-xf", bundle / "records.tar", "-C", out], check=True)
    assert sorted(os.listdir(os.fsencode(out))) == sorted(WEIRD)
    assert {os.fsencode(r["name"]) for r in json.loads((bundle / "harvest.json").read_bytes())["records"]} == set(WEIRD)


@pytest.mark.parametrize("locale", ["C.UTF-8", "C", "POSIX"])
def test_weird_names_do_not_stop_collect(root: MakeRoot, pstored: Pstored, locale: str) -> None:
    """All three stages and what they print, for people and for programs, with names that no terminal can show."""
    made = root("panic", backend="efi_pstore")
    for name in WEIRD[1:]:
        with open(os.path.join(os.fsencode(made.store), name), "wb") as f:
            f.write(PANIC % name[:9])
    done = pstored("collect", root=made, env={"LC_ALL": locale})
    assert "Traceback" not in done.stderr
    assert done.status == 1
    assert "\x1b" not in done.stdout + done.stderr
    assert len(made.harvests()) == 1
    for arguments in (("list",), ("show",), ("list", "--json"), ("show", "--json"), ("verify",), ("collect", "--json")):
        done = pstored(*arguments, root=made, env={"LC_ALL": locale})
        assert "Traceback" not in done.stderr, arguments
        assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "mtime_ns",
    [
        0,
        1,
        50_000,  # str() of this as a float of seconds has an exponent, which tar(1) does not take
        999_999_999,
        -1,
        -1_500_000_000,
        -2_000_000_000 * 10**9,
        4_294_967_296 * 10**9 + 1,  # 2106
        8_589_934_592 * 10**9,  # 2242: no longer fits the octal field
        14_000_000_000 * 10**9 + 123_456_789,
        1_795_000_000_123_456_789,
    ],
)
def test_mtimes_of_all_ages(root: MakeRoot, tmp_path: Path, mtime_ns: int) -> None:
    """Before 1970, beyond 2106, parts of a second: exact in the receipt, right in the tar, never in the way."""
    made = root()
    path = made.add("dmesg-efi-1", PANIC % b"when", mtime_ns=mtime_ns)
    shown_ns = path.stat().st_mtime_ns  # ext4 ends in 2446, others elsewhere
    done = run(made)
    assert outcomes(done) == {"dmesg-efi-1": "erased"}
    assert done.archived[0].mtime_ns == shown_ns
    out = tmp_path / "out"
    out.mkdir()
    said = subprocess.run(
        ["tar", "-xf", made.harvests()[0] / "records.tar", "-C", out], check=True, capture_output=True
    )
    assert b"alformed" not in said.stderr
    assert (out / "dmesg-efi-1").stat().st_mtime_ns == shown_ns
    with tarfile.open(made.harvests()[0] / "records.tar") as tar:
        (member,) = tar
    seconds = member.pax_headers.get("mtime", str(int(member.mtime)))
    assert Decimal(seconds) == Decimal(shown_ns).scaleb(-9)
    assert "e" not in seconds.lower()


def test_empty_record_is_archived_and_erased(root: MakeRoot) -> None:
    """A record of no bytes is one, too."""
    made = root()
    made.add("dmesg-efi-1", b"")
    assert outcomes(run(made)) == {"dmesg-efi-1": "erased"}
    assert members(made.harvests()[0]) == {"dmesg-efi-1": b""}


def test_huge_record_in_bounded_memory(root: MakeRoot, pstored: Pstored) -> None:
    """64 MiB in one record need no more memory than a small one: 64 MiB of address space above the start is plenty."""
    made = root()
    with open(made.store / "dmesg-efi-1", "wb") as f:
        f.writelines(os.urandom(1 << 20) for _ in range(64))
    digest = hashlib.sha256((made.store / "dmesg-efi-1").read_bytes()).hexdigest()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (96 << 20, 96 << 20))

    done = pstored("harvest", root=made, before=limit)
    assert (done.status, done.stderr) == (0, "")
    assert made.load(f"harvests/{made.harvests()[0].name}/harvest.json")["records"][0]["sha256"] == digest
    assert made.names() == []


# --- what is no readable record


def test_links_pipes_and_directories_are_left_alone(root: MakeRoot, tmp_path: Path) -> None:
    """With --root anything can stand in the store: nothing is followed, nothing blocks, the records are taken."""
    made = root()
    secret = tmp_path / "secret"
    secret.write_text("not for the archive")
    os.symlink(secret, made.store / "dmesg-efi-1")
    os.symlink("/nowhere", made.store / "dmesg-efi-2")
    os.mkfifo(made.store / "dmesg-efi-3")
    (made.store / "dmesg-efi-4").mkdir()
    made.add("dmesg-efi-5", PANIC % b"real")
    done = run(made)
    assert outcomes(done) == {
        "dmesg-efi-1": "unreadable",
        "dmesg-efi-2": "unreadable",
        "dmesg-efi-3": "unreadable",
        "dmesg-efi-4": "unreadable",
        "dmesg-efi-5": "erased",
    }
    assert done.exit_status() == 1
    assert members(made.harvests()[0]) == {"dmesg-efi-5": PANIC % b"real"}
    facts = json.loads((made.harvests()[0] / "harvest.json").read_bytes())
    assert [u["name"] for u in facts["unreadable"]] == [f"dmesg-efi-{n}" for n in range(1, 5)]
    assert made.names() == [f"dmesg-efi-{n}" for n in range(1, 5)]
    assert run(made).exit_status() == 1
    assert len(made.harvests()) == 1


def test_records_may_vanish_at_any_time(root: MakeRoot) -> None:
    """Somebody else clears the store while it is read: what was got is kept, and nothing is trouble."""
    made = root()
    for number in range(5):
        made.add(f"dmesg-efi-{number}", PANIC % b"%d" % number)

    def run_while_others_clear() -> Pass:
        def hook(name: str) -> None:
            if name.endswith("records.tar") and name.startswith("create"):
                (made.store / "dmesg-efi-0").unlink()
                (made.store / "dmesg-efi-4").unlink()
            if name.startswith("rename"):
                (made.store / "dmesg-efi-1").unlink(missing_ok=True)
            if name == "erase dmesg-efi-2":
                (made.store / "dmesg-efi-2").unlink()

        steps.hook = hook
        return run(made)

    done = forked(run_while_others_clear)
    expected = ["vanished", "vanished", "vanished", "erased", "vanished"]
    assert outcomes(done) == {f"dmesg-efi-{number}": outcome for number, outcome in enumerate(expected)}
    assert done.exit_status() == 0
    assert sorted(members(made.harvests()[0])) == ["dmesg-efi-1", "dmesg-efi-2", "dmesg-efi-3"]


def test_all_records_vanish_before_they_are_read(root: MakeRoot) -> None:
    """Nothing to archive after all: no empty harvest, no litter."""
    made = root()
    made.add("dmesg-efi-1", PANIC % b"gone")

    def run_while_others_clear() -> Pass:
        def hook(name: str) -> None:
            if name.startswith("create"):
                (made.store / "dmesg-efi-1").unlink()

        steps.hook = hook
        return run(made)

    done = forked(run_while_others_clear)
    assert (done.harvest_id, outcomes(done)) == (None, {"dmesg-efi-1": "vanished"})
    assert not made.harvests()
    assert not made.litter()


def test_changed_record_is_not_erased(root: MakeRoot) -> None:
    """Another crash in the slot since it was archived: it stays, and the next pass takes it."""
    made = root()
    made.add("dmesg-efi-1", PANIC % b"old")

    def run_while_it_crashes() -> Pass:
        def hook(name: str) -> None:
            if name.startswith("rename") and "harvests/2" in name:
                made.add("dmesg-efi-1", PANIC % b"new")

        steps.hook = hook
        return run(made)

    done = forked(run_while_it_crashes)
    assert outcomes(done) == {"dmesg-efi-1": "changed"}
    assert done.exit_status() == 1
    assert outcomes(run(made)) == {"dmesg-efi-1": "erased"}
    assert [members(path)["dmesg-efi-1"] for path in made.harvests()] == [PANIC % b"old", PANIC % b"new"]


def on_fuse(root: Root, files: dict[bytes, FuseFile], *passes: Callable[[], Any]) -> list[Any]:
    """Run the passes, one after the other, on a store of such files, in a child with mounts of its own."""
    require(can_mount() and os.path.exists("/dev/fuse"), "needs root and /dev/fuse")

    def child() -> list[Any]:
        with fuse_store(root.store, files):
            return [one() for one in passes]

    return forked(child, new_mounts=True)


def test_unreadable_and_half_readable_records(root: MakeRoot) -> None:
    """EIO at once: left and said.  EIO after some bytes: those are archived, once, and the record stays."""
    made = root()
    data = os.urandom(10_000)
    files = {
        b"dmesg-efi-1": FuseFile(data=data, fails_after=0),
        b"dmesg-efi-2": FuseFile(data=data, fails_after=9000),
        b"dmesg-efi-3": FuseFile(data=data, open_error=errno.EACCES),
        b"dmesg-efi-4": FuseFile(data=data),
    }
    first, second, names = on_fuse(made, files, lambda: run(made), lambda: run(made), made.names)
    expected = {
        "dmesg-efi-1": "unreadable",
        "dmesg-efi-2": "unreadable",
        "dmesg-efi-3": "unreadable",
        "dmesg-efi-4": "erased",
    }
    assert outcomes(first) == expected
    assert first.exit_status() == 1
    assert names == ["dmesg-efi-1", "dmesg-efi-2", "dmesg-efi-3"]
    (bundle,) = made.harvests()
    assert members(bundle) == {"dmesg-efi-2": data[:9000], "dmesg-efi-4": data}
    receipts = {r["name"]: r for r in json.loads((bundle / "harvest.json").read_bytes())["records"]}
    assert "after 9000 bytes" in receipts["dmesg-efi-2"]["error"]
    assert second.archived == ()
    assert second.exit_status() == 1


def test_half_readable_record_that_becomes_whole(root: MakeRoot) -> None:
    """What was archived in part is archived again once all of it can be read, and only then erased."""
    made = root()
    data = PANIC % b"x" * 300
    (first,) = on_fuse(made, {b"dmesg-efi-2": FuseFile(data=data, fails_after=4096)}, lambda: run(made))
    assert outcomes(first) == {"dmesg-efi-2": "unreadable"}
    (second,) = on_fuse(made, {b"dmesg-efi-2": FuseFile(data=data)}, lambda: run(made))
    assert outcomes(second) == {"dmesg-efi-2": "erased"}
    assert [members(path)["dmesg-efi-2"] for path in made.harvests()] == [data[:4096], data]


def test_second_reading_that_fails_is_said_to_be_that(root: MakeRoot) -> None:
    """Nothing has changed, as far as is known: it is archived whole, stays, and goes when it can be read again."""
    made = root()
    data = PANIC % b"x" * 300
    opened = itertools.count(1)

    def fail_the_third_time() -> None:
        file.fails_after = 4096 if next(opened) == 3 else None

    file = FuseFile(data=data, on_open=fail_the_third_time)
    first, second = on_fuse(made, {b"dmesg-efi-2": file}, lambda: run(made), lambda: run(made))
    (erasure,) = first.erasures
    assert (erasure.outcome, first.exit_status()) == ("unreadable", 1)
    assert erasure.why == "a second reading differs: cannot be read: Input/output error, after 4096 bytes"
    assert outcomes(second) == {"dmesg-efi-2": "erased"}
    assert [members(path)["dmesg-efi-2"] for path in made.harvests()] == [data]


def test_reads_to_the_end_whatever_st_size_says(root: MakeRoot) -> None:
    """st_size of ftrace is too small, that of others may be too large: the bytes are what read(2) gives."""
    made = root()
    files = {
        b"ftrace-ramoops-0": FuseFile(data=b"f" * 300_001, shown_size=7),
        b"dmesg-efi-1": FuseFile(data=b"d" * 5, shown_size=70_000),
        b"dmesg-efi-2": FuseFile(data=b"p" * 70_001, piece=1000),
    }
    (done,) = on_fuse(made, files, lambda: run(made))
    assert outcomes(done) == {"dmesg-efi-1": "erased", "dmesg-efi-2": "erased", "ftrace-ramoops-0": "live"}
    assert members(made.harvests()[0]) == {os.fsdecode(name): file.data for name, file in files.items()}


@pytest.mark.parametrize("error", [errno.EPERM, errno.EIO, errno.EROFS])
def test_unlink_that_the_kernel_refuses(root: MakeRoot, error: int) -> None:
    """Each record is archived, once; why it stays is in erased.json, and the exit status is 1 each time."""
    made = root()
    files = {b"dmesg-efi-%d" % n: FuseFile(data=PANIC % b"%d" % n, unlink_error=error) for n in range(3)}
    first, second = on_fuse(made, files, lambda: run(made), lambda: run(made))
    assert (first.exit_status(), second.exit_status()) == (1, 1)
    assert set(outcomes(first).values()) == set(outcomes(second).values()) == {"failed"}
    assert second.archived == ()
    (bundle,) = made.harvests()
    erased = json.loads((bundle / "erased.json").read_bytes())
    assert {r["outcome"] for r in erased["records"]} == {"failed"}
    assert all("the kernel refuses" in r["why"] for r in erased["records"])


# --- the archive cannot be written, or does not last


def records_of(root: Root) -> dict[str, bytes]:
    """The store's records."""
    return {name: (root.store / name).read_bytes() for name in root.names()}


def test_file_in_the_place_of_the_archive(root: MakeRoot, pstored: Pstored) -> None:
    """Nothing is erased; exit 73, and what is in the way is named."""
    made = root("panic", backend="efi_pstore")
    before = records_of(made)
    made.write("var/lib/pstored", "a file")
    for command in ("harvest", "collect"):
        done = pstored(command, root=made)
        assert done.status == 73
        assert done.stderr.startswith("error: cannot ")
        assert str(made.archive) in done.stderr
        assert "Traceback" not in done.stderr
    assert records_of(made) == before


def test_read_only_archive(root: MakeRoot) -> None:
    """A file system mounted read-only: nothing erased, exit 73, and a hint."""
    require(can_mount(), "mount namespaces need root")
    made = root("panic", backend="efi_pstore")
    before = records_of(made)
    made.archive.mkdir()

    def child() -> list[Any]:
        mount("--bind", made.archive, made.archive)
        mount("-o", "remount,bind,ro", made.archive)
        first = run_pstored("harvest", root=made)
        mount("-o", "remount,bind,rw", made.archive)
        assert run_pstored("collect", root=made).status == 0
        made.add("dmesg-efi_pstore-1", PANIC % b"later")
        mount("-o", "remount,bind,ro", made.archive)
        return [first, run_pstored("collect", root=made), records_of(made)]

    first, second, left = forked(child, new_mounts=True)
    for done in (first, second):
        assert done.status == 73
        assert "Read-only file system" in done.stderr
        assert "\nhint: " in done.stderr
    assert before
    assert list(left) == ["dmesg-efi_pstore-1"]


def test_full_disk(root: MakeRoot) -> None:
    """1 MiB of room for 2 MiB of records: nothing erased, exit 73, a hint; with room, the next run does it all."""
    require(can_mount(), "mount namespaces need root")
    made = root()
    for number in range(2):
        made.add(f"dmesg-efi-{number}", os.urandom(1 << 20))
    before = records_of(made)
    made.archive.mkdir()
    made.configure("[archive]\nallow_volatile = true\n")

    def child() -> list[Any]:
        mount("-t", "tmpfs", "-o", "size=1M", "tmpfs", made.archive)
        first = run_pstored("harvest", root=made)
        left = records_of(made)
        seen = [path.name for path in made.harvests()]
        mount("-o", "remount,size=8M", made.archive)
        return [first, left, seen, run_pstored("harvest", root=made), made.litter(), members(made.harvests()[0])]

    first, left, seen, second, litter, archived = forked(child, new_mounts=True)
    assert first.status == 73
    assert "No space left on device" in first.stderr
    assert "\nhint: " in first.stderr
    assert "Traceback" not in first.stderr
    assert left == before
    assert seen == []
    assert second.status == 0
    assert archived == before
    assert litter == []
    assert before.keys() == {"dmesg-efi-0", "dmesg-efi-1"}


def test_disk_full_after_the_archive_but_before_erased_json(root: MakeRoot) -> None:
    """Full once the bundle is there: the pass goes on, says so, and exits with 1; what it erased is in the archive."""
    require(can_mount(), "mount namespaces need root")
    made = root("panic", backend="efi_pstore")
    before = records_of(made)
    made.archive.mkdir()
    made.configure("[archive]\nallow_volatile = true\n")

    def child() -> list[Any]:
        mount("-t", "tmpfs", "-o", "size=1M", "tmpfs", made.archive)

        def fill(name: str) -> None:
            if name.startswith("erase"):
                with open(made.archive / "hog", "ab", buffering=0) as f:
                    try:
                        while True:
                            f.write(bytes(4096))
                    except OSError:
                        pass

        steps.hook = fill
        done = run(made, allow_volatile=True)
        return [done, members(made.harvests()[0]), records_of(made), (made.harvests()[0] / "erased.json").exists()]

    done, archived, left, noted = forked(child, new_mounts=True)
    assert done.exit_status() == 1
    assert outcomes(done) == dict.fromkeys(before, "erased") | {"erased.json": "failed"}
    (warning,) = done.warnings
    assert warning.startswith("what was erased is not noted: ")
    assert "No space left on device" in warning
    assert archived == before
    assert (left, noted) == ({}, False)


def test_collect_on_a_disk_that_fills_up_says_what_it_erased(root: MakeRoot) -> None:
    """The stages after the harvest fail, too: exit 73, but what went out of the store is said all the same."""
    require(can_mount(), "mount namespaces need root")
    made = root("panic", backend="efi_pstore")
    made.archive.mkdir()
    made.configure("[archive]\nallow_volatile = true\n")

    def child() -> list[Any]:
        mount("-t", "tmpfs", "-o", "size=1M", "tmpfs", made.archive)

        def fill(name: str) -> None:
            if name.startswith("erase"):
                with suppress(OSError), open(made.archive / "hog", "ab", buffering=0) as f:
                    while True:
                        f.write(bytes(4096))

        steps.hook = fill
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = pstored.cli.run(["--root", str(made.path), "collect"])
        return [status, out.getvalue(), err.getvalue(), made.names()]

    status, out, err, left = forked(child, new_mounts=True)
    assert status != 0
    assert left == []
    assert "erased from the store" in out
    assert "what was erased is not noted" in err


def test_every_unlink_fails(root: MakeRoot) -> None:
    """The store is read-only: all archived once, exit 1, said why, and the second run archives nothing again."""
    require(can_mount(), "mount namespaces need root")
    made = root("oops-panic", backend="efi_pstore")
    count = len(made.names())

    def child() -> list[Any]:
        mount("--bind", made.store, made.store)
        mount("-o", "remount,bind,ro", made.store)
        first = run_pstored("collect", root=made)
        before = made.snapshot()
        second = run_pstored("collect", root=made)
        return [first, second, made.snapshot() == before]

    first, second, same = forked(child, new_mounts=True)
    assert (first.status, second.status, same) == (1, 1, True)
    for done in (first, second):
        assert "the kernel refuses: Read-only file system" in done.stderr
    assert len(made.names()) == count
    (bundle,) = made.harvests()
    erased = json.loads((bundle / "erased.json").read_bytes())
    assert len(erased["records"]) == count
    assert {(r["outcome"], r["why"]) for r in erased["records"]} == {
        ("failed", "the kernel refuses: Read-only file system")
    }
    report = made.load(f"crashes/{made.crashes()[0].name}/crash.json")
    assert {(r["erased"], r["why"]) for r in report["records"]} == {
        (False, "the kernel refuses: Read-only file system")
    }


def test_volatile_archive(root: MakeRoot) -> None:
    """On tmpfs: archived, said loudly, nothing erased; erased when the owner says it may be."""
    require(can_mount(), "mount namespaces need root")
    made = root("panic", backend="efi_pstore")
    before = records_of(made)
    made.archive.mkdir()

    def child() -> list[Any]:
        mount("-t", "tmpfs", "tmpfs", made.archive)
        first = run_pstored("harvest", root=made)
        left = records_of(made)
        archived = members(made.harvests()[0])
        made.configure("[archive]\nallow_volatile = true\n")
        return [first, left, archived, run_pstored("harvest", root=made), records_of(made), len(made.harvests())]

    first, left, archived, second, at_last, harvests = forked(child, new_mounts=True)
    assert first.status == 1
    assert "warning: the archive" in first.stderr
    assert "does not survive a reboot" in first.stderr
    assert "allow_volatile" in first.stderr
    assert left == archived == before
    assert (second.status, second.stderr, at_last, harvests) == (0, "", {}, 1)


def test_damaged_earlier_bundle_is_archived_anew(root: MakeRoot) -> None:
    """A rotten archive never costs a record: what the store still has goes into a new harvest, and is known there."""
    made = root()
    made.add("console-ramoops-0", b"[    1.0] still there\n")
    run(made)
    tar = made.harvests()[0] / "records.tar"
    tar.write_bytes(tar.read_bytes().replace(b"still there", b"still where"))
    done = run(made)
    assert [r.name for r in done.archived] == ["console-ramoops-0"]
    assert any("does not read back" in w for w in done.warnings)
    assert members(made.harvests()[1]) == {"console-ramoops-0": b"[    1.0] still there\n"}
    again = run(made)
    assert (again.archived, again.known) == ((), 1)


@pytest.mark.parametrize("name", ["records.tar", "harvest.json"])
def test_damaged_earlier_bundle_keeps_the_record_in_the_store(root: MakeRoot, name: str) -> None:
    """A record that was deferred at first is not erased by the receipt of a damaged bundle: it is archived anew."""
    made = root()
    made.write("sys/kernel/oops_count", "1\n")
    made.add("dmesg-ramoops-0", PANIC % b"precious")
    assert outcomes(run(made)) == {"dmesg-ramoops-0": "deferred"}
    (made.harvests()[0] / name).unlink()
    made.reboot()
    done = run(made)
    assert outcomes(done) == {"dmesg-ramoops-0": "erased"}
    assert members(made.harvests()[1]) == {"dmesg-ramoops-0": PANIC % b"precious"}


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "%b"}',
        b'{"id": "%b", "keys": null}',
        b'{"id": "%b", "keys": ["dmesg-efi:0000"]}',
        b'{"id": "%b", "keys": [["a"]]}',
        b'{"id": "%b", "keys": ["dmesg-e',
        b"\x00" * 40 + b"%b",
        b"[" * 100_000 + b"%b",
    ],
)
def test_damaged_index_never_stops_a_harvest(root: MakeRoot, line: bytes) -> None:
    """The index is a cache: whatever a power cut or a hand made of it, the next crash is archived and erased."""
    made = root()
    made.add("console-ramoops-0", b"[    1.0] hello\n")
    run(made)
    made.add("dmesg-efi-1", PANIC % b"next")
    line = line.replace(b"%b", made.harvests()[0].name.encode())
    (made.archive / "harvests.index").write_bytes(line + b"\n")
    done = run(made)
    assert outcomes(done) == {"console-ramoops-0": "live", "dmesg-efi-1": "erased"}
    assert members(made.harvests()[-1])["dmesg-efi-1"] == PANIC % b"next"


def test_index_that_promises_what_the_harvest_has_not(root: MakeRoot) -> None:
    """A record that only the index knows is archived before it is erased."""
    made = root()
    made.add("dmesg-efi-1", PANIC % b"first")
    run(made)
    (bundle,) = made.harvests()
    key = "dmesg-efi:" + hashlib.sha256(PANIC % b"second").hexdigest()
    (made.archive / "harvests.index").write_text(f"{bundle.name}\t{key}\t{bundle.name}\n")
    made.add("dmesg-efi-2", PANIC % b"second")
    done = run(made)
    assert outcomes(done) == {"dmesg-efi-2": "erased"}
    assert PANIC % b"second" in [data for path in made.harvests() for data in members(path).values()]


# --- what may be erased


def test_slot_hazard(root: MakeRoot, pstored: Pstored) -> None:
    """After an oops in this boot a ramoops slot may hold another crash than shown: deferred until the next boot."""
    made = root("panic", backend="ramoops")
    made.write("sys/kernel/oops_count", "1\n")
    first = pstored("collect", root=made)
    assert first.status == 1
    assert "deferred" in first.stderr
    assert made.names() == ["dmesg-ramoops-0"]
    report = made.load(f"crashes/{made.crashes()[0].name}/crash.json")
    assert [(r["erased"], r["outcome"]) for r in report["records"]] == [(False, "deferred")]
    made.reboot()
    second = pstored("collect", root=made)
    assert second.status == 0
    assert made.names() == []
    assert len(made.harvests()) == len(made.crashes()) == 1
    again = made.load(f"crashes/{made.crashes()[0].name}/crash.json")
    assert [(r["erased"], r["outcome"]) for r in again["records"]] == [(True, "erased")]
    assert {k: again[k] for k in ("id", "boot", "title", "dumps", "revision")} == {
        k: report[k] for k in ("id", "boot", "title", "dumps", "revision")
    }


@pytest.mark.parametrize(
    ("oops_count", "tainted", "erased"),
    [
        ("0\n", "0\n", True),
        ("0\n", "128\n", False),  # an oops taints before its dump is written, and is counted after
        ("0\n", None, True),
        (None, "0\n", True),
        (None, "4097\n", True),
        (None, "128\n", False),
        (None, "4225\n", False),
        ("1\n", "0\n", False),
        (None, None, False),
        ("", None, False),
        ("rubbish\n", "0\n", True),
    ],
)
def test_how_an_oops_is_known(root: MakeRoot, oops_count: str | None, tainted: str | None, erased: bool) -> None:
    """By oops_count or the D bit of the taint mask; a kernel that does not say counts as one with an oops."""
    made = root()
    made.add("dmesg-ramoops-0", PANIC % b"x")
    for path, text in (("sys/kernel/oops_count", oops_count), ("proc/sys/kernel/tainted", tainted)):
        if text is None:
            (made.path / path).unlink()
        else:
            made.write(path, text)
    assert outcomes(run(made)) == {"dmesg-ramoops-0": "erased" if erased else "deferred"}


def test_oops_in_the_middle_of_a_pass(root: MakeRoot) -> None:
    """Asked anew for each record: what comes after the oops stays."""
    made = root()
    for number in range(4):
        made.add(f"dmesg-ramoops-{number}", PANIC % b"%d" % number)

    def run_while_it_oopses() -> Pass:
        def hook(name: str) -> None:
            if name == "erase dmesg-ramoops-1":
                made.write("sys/kernel/oops_count", "1\n")

        steps.hook = hook
        return run(made)

    done = forked(run_while_it_oopses)
    assert list(outcomes(done).values()) == ["erased", "erased", "deferred", "deferred"]


def test_oops_while_the_record_is_read_again(root: MakeRoot) -> None:
    """The question is asked last: an oops during the second reading of a record keeps that record."""
    made = root()
    made.write("sys/kernel/oops_count", "0\n")

    opened = 0

    def on_open() -> None:
        nonlocal opened
        opened += 1
        if opened == 3:  # after the digest and the copy
            made.write("sys/kernel/oops_count", "1\n")

    files = {b"dmesg-ramoops-0": FuseFile(data=PANIC % b"x", on_open=on_open)}
    (done,) = on_fuse(made, files, lambda: run(made))
    assert outcomes(done) == {"dmesg-ramoops-0": "deferred"}


def test_live_zones_and_nvram_are_left_alone(root: MakeRoot) -> None:
    """They stay, without trouble, and are not archived twice; not even after another boot."""
    made = root()
    for name in ("console-ramoops-0", "pmsg-ramoops-0", "ftrace-ramoops-0", "console-pstore_blk-0"):
        made.add(name, name.encode())
    made.add("dmesg-nvram-1", b"<5>[    0.0] from nvram\n")
    made.add("powerpc-ofw-nvram-5", b"\x00" * 32)
    first = run(made)
    assert set(outcomes(first).values()) == {"live", "kept"}
    assert first.exit_status() == 0
    assert len(first.archived) == len(made.names()) == 6
    made.reboot()
    second = run(made)
    assert (second.archived, second.known, second.exit_status()) == ((), 6, 0)
    made.add("console-ramoops-0", b"another boot's text")
    assert [r.name for r in run(made).archived] == ["console-ramoops-0"]


def test_policy_none_and_all(root: MakeRoot) -> None:
    """None keeps everything without trouble; all erases everything that is archived, live or not."""
    made = root("garbage", backend="ramoops")
    made.write("sys/kernel/oops_count", "1\n")
    before = made.names()
    kept = run(made, erase=ErasePolicy.NONE)
    assert (set(outcomes(kept).values()), kept.exit_status()) == ({"kept"}, 0)
    assert made.names() == before
    done = run(made, erase=ErasePolicy.ALL)
    assert (set(outcomes(done).values()), done.exit_status(), done.archived) == ({"erased"}, 0, ())
    assert made.names() == []


def test_kdump_kernel_takes_nothing(root: MakeRoot, pstored: Pstored) -> None:
    """Where /proc/vmcore is, the crashed kernel is still in memory: hands off."""
    made = root("panic", backend="ramoops")
    made.write("proc/vmcore", "")
    done = pstored("harvest", root=made)
    assert done.status == 0
    assert "kdump" in done.stderr
    assert made.names() == ["dmesg-ramoops-0"]
    assert not made.harvests()


@pytest.mark.parametrize("umask", [0, 0o777, 0o022])
def test_modes_whatever_the_umask(root: MakeRoot, pstored: Pstored, umask: int) -> None:
    """Directories 0750, files 0640: crash texts are not for everybody."""
    made = root("all-zones", backend="ramoops")
    made.configure("[journal]\nenabled = true\n")
    done = pstored("collect", root=made, before=lambda: void(os.umask(umask)))
    assert done.status in (0, 75)
    paths = [made.archive, *made.archive.rglob("*")]
    assert len(paths) > 12
    wrong = {
        str(p): oct(p.stat().st_mode) for p in paths if p.stat().st_mode & 0o777 != (0o750 if p.is_dir() else 0o640)
    }
    assert not wrong


def void(_: object) -> None:
    """Drop a value."""


def test_store_that_may_not_be_listed(root: MakeRoot) -> None:
    """Not root: exit 77, and said what to do."""
    require(os.geteuid() == 0, "needs root to become somebody else")
    made = root("panic", backend="ramoops")

    def child() -> tuple[int, str]:
        os.chdir(made.path)  # the way there is for root only
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        said = io.StringIO()
        with redirect_stderr(said):
            return pstored.cli.run(["--root", ".", "harvest"]), said.getvalue()

    status, said = forked(child)
    assert status == 77
    assert "hint: run as root" in said


# --- flushes


def steps_of_a_pass(root: Root) -> list[str]:
    """The names of the steps of a pass, in order."""

    def child() -> list[str]:
        seen: list[str] = []
        steps.hook = seen.append
        run(root)
        return seen

    return forked(child)


def flushes(root: Root) -> int:
    """How many a pass makes."""
    return sum(step.startswith("fsync ") for step in steps_of_a_pass(root))


@pytest.mark.parametrize("number", [1, 15, 1000])
def test_flushes_are_constant(root: MakeRoot, number: int) -> None:
    """As many for a thousand records as for one: four, with a known record in the store, too; six at first.

    The first pass flushes the archive and its parent, too.
    """

    def fill(made: Root, base: int) -> None:
        for at in range(number):
            made.add(f"dmesg-efi_pstore-{base}{at:05}", PANIC % b"%d %d" % (base, at))

    made = root()
    fill(made, 1)
    assert flushes(made) == FLUSHES + 2
    for base in (2, 3):
        fill(made, base)
        assert flushes(made) == FLUSHES
    made.add("console-ramoops-0", b"[    0.1] stays\n")
    assert flushes(made) == FLUSHES
    fill(made, 4)
    assert flushes(made) == FLUSHES
    assert made.names() == ["console-ramoops-0"]
    assert flushes(made) == 1  # nothing new: no bundle, and erased.json says the same already


def test_order_of_a_pass(root: MakeRoot) -> None:
    """Exactly this: data, harvest.json, directory, rename, parent; then the erases; then what became of them."""
    made = root()
    made.add("dmesg-efi-1", PANIC % b"1")
    run(made)  # the archive is there now
    for number in (2, 3):
        made.add(f"dmesg-efi-{number}", PANIC % b"%d" % number)
    seen = [step.replace(str(made.archive) + "/", "") for step in steps_of_a_pass(made)]
    (_, bundle) = [path.name for path in made.harvests()]
    assert seen == [
        "create harvests/.new-harvest/records.tar",
        "fsync harvests/.new-harvest/records.tar",
        "create harvests/.new-harvest/harvest.json",
        "write harvests/.new-harvest/harvest.json",
        "fsync harvests/.new-harvest/harvest.json",
        "fsync harvests/.new-harvest",
        f"rename harvests/{bundle}",
        "fsync harvests",
        "append harvests.index",
        "erase dmesg-efi-2",
        "erase dmesg-efi-3",
        "create .new-erased.json",
        "write .new-erased.json",
        f"rename harvests/{bundle}/erased.json",
    ]


@pytest.mark.parametrize("earlier", [1, 12])
def test_flushes_when_old_and_new_are_erased_together(root: MakeRoot, earlier: int) -> None:
    """Deferred records of earlier harvests, erased with a new one: none for what is only noted."""
    made = root()
    made.write("sys/kernel/oops_count", "1\n")
    for number in range(earlier):
        made.add(f"dmesg-ramoops-{number}", PANIC % b"%d" % number)
        run(made)
    assert len(made.harvests()) == earlier
    made.reboot()
    made.add("dmesg-ramoops-99", PANIC % b"new")
    seen = steps_of_a_pass(made)
    assert sum(step.startswith("erase ") for step in seen) == earlier + 1
    assert sum(step.startswith("fsync ") for step in seen) == FLUSHES


@pytest.mark.parametrize("torn", [None, b"", bytes(4096), b'{"schema": 1, "records": [{"name": "dmesg-'])
def test_power_cut_takes_what_was_noted_of_the_erase(root: MakeRoot, torn: bytes | None) -> None:
    """erased.json is not flushed: without it, or with a torn one, nothing is archived twice, or kept for ever."""
    made = root()
    made.write("sys/kernel/oops_count", "1\n")
    made.add("dmesg-ramoops-0", PANIC % b"1")
    assert outcomes(run(made)) == {"dmesg-ramoops-0": DEFERRED}
    (bundle,) = made.harvests()
    (bundle / "erased.json").unlink()
    if torn is not None:
        (bundle / "erased.json").write_bytes(torn)
    assert outcomes(run(made)) == {"dmesg-ramoops-0": DEFERRED}
    made.reboot()
    assert outcomes(run(made)) == {"dmesg-ramoops-0": E}
    assert made.harvests() == [bundle]
    assert made.names() == []


def test_two_passes_at_once(root: MakeRoot) -> None:
    """Started together, they take turns: every record is archived once."""
    made = root("oops-panic", backend="efi_pstore")
    before = records_of(made)
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                run(made)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    archived = list(itertools.chain.from_iterable(members(path).items() for path in made.harvests()))
    assert sorted(archived) == sorted(before.items())
    assert made.names() == []
