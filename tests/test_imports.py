# SPDX-License-Identifier: Apache-2.0
"""What systemd-pstore took, into the archive: by the real one, where it is installed, and by trees made to hurt."""

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored import steps
from pstored.config import Archive, Config
from pstored.errors import ArchiveError, StoreError
from pstored.harvest import NOTHING
from pstored.host import Host
from pstored.intake.bundles import MAX_BUNDLES, Import
from pstored.intake.systemdpstore import MAX_RECORD, import_systemd_pstore, split_text
from pstored.intake.tree import MAX_DEPTH
from pstored.stages import Collected
from tests.conftest import MakeRoot, Pstored, Root, can_mount, forked, require
from tests.fuse_pstore import FuseFile, fuse_store
from tests.test_analyze import collect, live_through
from tests.test_crash_safety import COLLECT, archived, digests, kill_everywhere, run_killed, told

SYSTEMD_PSTORE = "/lib/systemd/systemd-pstore"
PANIC = "Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: %s\n"
TIME_NS = 1_795_000_000_123_456_789


def taken(root: Root) -> Path:
    """Where systemd-pstore of this tree keeps records."""
    return root.path / "var/lib/systemd/pstore"


def take(root: Root) -> None:
    """The real systemd-pstore, at a boot: what is in the store goes into its directory."""
    require(os.path.exists(SYSTEMD_PSTORE), "systemd-pstore is needed (Debian: apt-get install systemd)")
    taken(root).mkdir(parents=True, exist_ok=True)
    subprocess.run([SYSTEMD_PSTORE, str(root.store), str(taken(root))], check=True, capture_output=True)
    assert not root.names(), "it is configured to leave the records (pstore.conf): nothing to test"


def leave(root: Root, path: str, data: bytes | str, *, mtime_ns: int = TIME_NS) -> Path:
    """Put a file where systemd-pstore would."""
    target = taken(root) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data.encode() if isinstance(data, str) else data)
    os.utime(target, ns=(mtime_ns, mtime_ns))
    return target


def run(root: Root, path: Path | None = None) -> Import | None:
    """An import in this process."""
    return import_systemd_pstore(Host(str(root.path)), Config(), None if path is None else str(path))


def crashes(root: Root) -> list[dict[str, Any]]:
    """The reports."""
    return [json.loads((path / "crash.json").read_bytes()) for path in root.crashes()]


def reports(root: Root) -> list[str]:
    """What they say, but for when it was collected, and below which root."""
    return sorted(str(report).replace(str(root.path), "") for report in told(root))


def said(done: Import | None) -> str:
    """Notes and problems."""
    assert done is not None
    return "\n".join(done.notes + done.problems)


# --- the real one


@pytest.mark.parametrize(
    "name",
    [
        "lab-efi-twoboots",
        "lab-erst",
        "lab-erst-mce",
        "lab-blk",
        "lab-enc-zstd",
        "x86_64-6.1-ramoops-all",
        "x86_64-6.1-ramoops-ecc",
        "x86_64-6.1deb-efi",
        "x86_64-6.1deb-ramoops",
    ],
)
def test_import_tells_what_a_direct_collect_tells(name: str, root: MakeRoot, pstored: Pstored) -> None:
    """The same crashes under the same digests, the same texts, and the same boots where a stamp names them.

    What the collecting boot would tell is not known: nothing is found by elimination, and a zone that nothing ties to
    a dump does not make its boot likely.
    """
    direct, late = root(name), root(name)
    take(late)
    assert pstored("collect", root=direct).status in (0, 1)
    assert pstored("collect", root=late).status in (0, 1)
    assert digests(late) == digests(direct) != []
    assert archived(late) == archived(direct)
    for ours, theirs in zip(crashes(direct), crashes(late), strict=True):
        for key in ("title", "kind", "dumps", "files", "time", "kernel", "complete", "machine_id", "backend"):
            assert theirs[key] == ours[key], key
        assert theirs["boot"]["id"] in (ours["boot"]["id"], None)
        if ours["boot"]["method"] == "stamp" and ours["boot"]["confidence"] == "certain":
            assert theirs["boot"] == ours["boot"]
        assert theirs["collected"]["boot_id"] is None
        assert theirs["collected"]["imported_from"] == "/var/lib/systemd/pstore"
        assert {(r["erased"], r["outcome"]) for r in theirs["records"]} == {(None, "imported")}
    before = sorted(p for p in taken(late).rglob("*"))
    assert pstored("collect", root=late).status == 0
    assert len(late.harvests()) == 1
    assert sorted(p for p in taken(late).rglob("*")) == before, "nothing is removed there"


def test_collect_says_what_it_imported(root: MakeRoot, pstored: Pstored) -> None:
    """In words and in JSON; a second time there is nothing to say; `show` names the source."""
    made, other = root("lab-erst"), root("lab-erst")
    take(made)
    take(other)
    first = pstored("collect", root=made)
    assert first.status == 0
    assert "/var/lib/systemd/pstore: 4 new records imported" in first.stdout
    assert "systemd" not in pstored("collect", root=made).stdout
    shown = pstored("show", root=made).stdout
    assert "4 from erst: 4 imported\n" in shown
    assert "from /var/lib/systemd/pstore\n" in shown
    assert "still in the store" not in shown
    facts = pstored("collect", "--json", root=other).json["import"]
    assert facts["path"] == "/var/lib/systemd/pstore"
    assert len(facts["archived"]) == 4
    assert [h.name for h in other.harvests()] == list(facts["harvests"])
    again = pstored("collect", "--json", root=other).json["import"]
    assert (again["archived"], again["harvests"], again["known"]) == ([], [], 4)


def test_the_command_alone(root: MakeRoot, pstored: Pstored) -> None:
    """`pstored import` imports and analyzes; a second import brings nothing new."""
    made = root("lab-erst")
    take(made)
    first = pstored("import", root=made)
    assert (first.status, len(made.crashes())) == (0, 1)
    assert "4 new records imported" in first.stdout
    second = pstored("import", "--json", root=made)
    assert (second.status, second.json["imports"][0]["known"], second.json["crashes"]) == (0, 4, [])
    assert pstored("verify", root=made).status == 0


def test_early_harvest_imports_nothing(root: MakeRoot, pstored: Pstored) -> None:
    """It takes what is in the store, and no more."""
    made = root("lab-erst")
    take(made)
    assert pstored("harvest", root=made).status == 0
    assert not made.harvests()


def test_harvest_json_says_where_it_came_from(root: MakeRoot) -> None:
    """And not which boot took it from the store: nobody knows; the times are those of the records."""
    made = root("lab-erst-mce")
    times = {name: (made.store / name).stat().st_mtime_ns for name in made.names()}
    take(made)
    done = run(made)
    assert done is not None
    facts = made.load(f"harvests/{done.harvests[0]}/harvest.json")
    assert facts["store"]["path"] == "/var/lib/systemd/pstore"
    assert facts["store"]["kind"] == "systemd-pstore"
    assert (facts["boot_id"], facts["uptime_s"], facts["kernel"]["release"]) == (None, None, None)
    assert {r["name"]: r["mtime_ns"] for r in facts["records"]} == times
    assert all((taken(made) / path).name == name for name, path in facts["store"]["files"].items())


@pytest.mark.parametrize("direct_first", [True, False])
def test_what_is_in_both_is_archived_once(direct_first: bool, root: MakeRoot, pstored: Pstored) -> None:
    """systemd-pstore with Unlink=no, or overtaken: same records, same times to the nanosecond, one crash."""
    made = root()
    made.add("dmesg-ramoops-0", (PANIC % "once").encode())
    made.add("console-ramoops-0", b"[   77.000001] Kernel panic - not syncing: once\n")
    copies = [(name, (made.store / name).read_bytes()) for name in made.names()]
    take(made)
    for name, data in copies:
        made.add(name, data)
    if not direct_first:
        assert pstored("import", root=made).status == 0
    done = pstored("collect", "--json", root=made)
    assert (done.status, len(made.harvests()), len(made.crashes())) == (0, 1, 1)
    assert done.json["import"]["known"] == 2
    assert done.json["harvest"]["known"] == (0 if direct_first else 2)
    assert made.names() == ["console-ramoops-0"]  # erased by the receipt of whichever has it
    outcomes = {r["name"]: r["outcome"] for r in crashes(made)[0]["records"]}
    assert outcomes == {"dmesg-ramoops-0": "erased", "console-ramoops-0": "live"}


def test_of_ramoops_crashes_under_one_name_the_first_and_the_last_are_found(root: MakeRoot, pstored: Pstored) -> None:
    """systemd-pstore replaces the record, but v252 never its dmesg.txt; a crash in the middle is nowhere any more."""
    made = root()
    for number, what in enumerate(("first", "middle", "last")):
        made.add("dmesg-ramoops-0", (PANIC % what).encode(), mtime_ns=TIME_NS + number * 10**12)
        made.add("console-ramoops-0", f"[   77.000001] Kernel panic - not syncing: {what}\n".encode())
        take(made)
    require((taken(made) / "dmesg.txt").exists(), "this systemd-pstore writes no dmesg.txt for ramoops: v252 does")
    done = pstored("collect", root=made)
    found = {c["title"]: c for c in crashes(made)}
    assert set(found) == {"Kernel panic: first", "Kernel panic: last"}
    assert "dmesg-ramoops-0: in no file of its own, taken out of dmesg.txt" in done.stdout
    assert found["Kernel panic: first"]["time"]["wall"] is None  # dmesg.txt has no time of that crash
    assert {r["type"] for r in found["Kernel panic: last"]["records"]} == {"dmesg", "console"}
    assert len(made.harvests()) == 2
    assert pstored("collect", root=made).status == 0
    assert len(made.harvests()) == 2


def test_boots_that_it_threw_together_are_told_apart(root: MakeRoot, pstored: Pstored) -> None:
    """An oops, a reboot, a panic, all within the seconds that v252 takes for one crash, are two crashes."""
    made = root()
    for boot, second in (("a", 179540752201001), ("b", 179540752701001)):
        stamp = f"<13>[    3.000000] pstored: boot {boot * 8}-0000-4000-8000-000000000000\n"
        text = "Panic#1 Part1\n" + stamp + f"<0>[    4.000000] Kernel panic - not syncing: {boot}\n"
        made.add(f"dmesg-efi-{second}", text.encode(), mtime_ns=second // 100_000 * 10**9)
    take(made)
    assert pstored("collect", root=made).status == 0
    assert [c["boot"]["id"][:8] for c in crashes(made)] == ["a" * 8, "b" * 8]


# --- other layouts, other texts


def test_layout_of_newer_systemd(root: MakeRoot, pstored: Pstored) -> None:
    """Time and count, newest ERST id: from v253 on; a dmesg.txt without names beside records is left alone.

    The parts from 100 on are in the next second's directory, and come together all the same.
    """
    made = root()
    for part in (1, 2, 100, 101):
        record_id = (1_795_407_522 * 100 + part) * 1000 + 1
        text = f"Panic#1 Part{part}\n<0>[  {200 - part:3}.000000] Kernel panic - not syncing: line {part}\n"
        leave(made, f"{record_id // 100_000}/001/dmesg-efi_pstore-{record_id}", text, mtime_ns=1_795_407_522 * 10**9)
        leave(made, f"{record_id // 100_000}/001/dmesg.txt", text * 2)
    erst = 7_711_216_860_565_340_161
    leave(made, f"{erst}/dmesg-erst-{erst}", PANIC % "erst")
    leave(made, f"{erst}/dmesg.txt", PANIC % "erst")
    assert len([p for p in taken(made).iterdir() if p.is_dir()]) == 3
    done = pstored("collect", "--json", root=made)
    assert len(done.json["import"]["archived"]) == 5
    efi = next(c for c in crashes(made) if c["backend"] == "efi_pstore")
    assert [d["parts"] for d in efi["dumps"]] == [[1, 2, 100, 101]]


def test_text_without_its_records_is_kept(root: MakeRoot, pstored: Pstored) -> None:
    """Somebody has removed the records: what dmesg.txt holds is archived in pieces, and read."""
    made = root()
    parts = [f"Panic#1 Part{n}\n<0>[   7{9 - n}.000001] Kernel panic - not syncing: part {n}\n" for n in (3, 2, 1)]
    leave(made, "1795407522/001/dmesg.txt", "".join(parts))
    leave(made, "179540760/dmesg.txt", "dmesg-efi-179540760001001:\n" + PANIC % "named")
    leave(made, "notes/dmesg.txt", "what a person wrote\n")
    leave(made, "empty/dmesg.txt", "")
    done = pstored("collect", "--json", root=made)
    assert sorted(done.json["import"]["archived"]) == [
        "1795407522-001-dmesg.txt.1",
        "1795407522-001-dmesg.txt.2",
        "1795407522-001-dmesg.txt.3",
        "dmesg-efi-179540760001001",
        "notes-dmesg.txt.1",
    ]
    found = {c["title"]: c for c in crashes(made)}
    assert set(found) == {"Kernel panic: named", "Kernel panic: part 1"}
    assert found["Kernel panic: part 1"]["dumps"][0]["parts"] == [1, 2, 3]
    assert found["Kernel panic: part 1"]["time"]["wall"] is None
    assert pstored("collect", "--json", root=made).json["import"]["archived"] == []


NAMES = st.from_regex(r"dmesg-(ramoops|efi|efi_pstore|erst)-[0-9]{1,20}", fullmatch=True)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=50).filter(lambda data: b":\n" not in data))))
def test_text_of_v252_gives_its_records_back(records: list[tuple[str, bytes]]) -> None:
    """Name and bytes of each, also where one does not end with a newline."""
    text = b"".join(name.encode() + b":\n" + data for name, data in records)
    assert list(split_text(text)) == records


@given(st.one_of(st.binary(), st.text(alphabet="dmesg-fi0:\nPanic#1 Part", max_size=200).map(str.encode)))
def test_any_text_is_split_without_a_loss(text: bytes) -> None:
    """Any bytes are pieces of it, names included."""
    pieces = list(split_text(text))
    assert b"".join((b"" if name is None else name.encode() + b":\n") + data for name, data in pieces) == text


# --- once


def test_same_bytes_at_another_time_are_another_crash(root: MakeRoot) -> None:
    """A machine that dies in the same way at each boot; a copy with the same time is a copy."""
    made = root()
    leave(made, "dmesg-ramoops-0", PANIC % "again")
    assert (done := run(made)) is not None
    assert len(done.archived) == 1
    leave(made, "copy/dmesg-ramoops-0", PANIC % "again")
    assert (done := run(made)) is not None
    assert (len(done.archived), done.known) == (0, 1)
    leave(made, "dmesg-ramoops-0", PANIC % "again", mtime_ns=TIME_NS + 1)
    assert (done := run(made)) is not None
    assert (len(done.archived), done.known) == (1, 1)


def test_what_the_limits_removed_does_not_come_back(root: MakeRoot, pstored: Pstored) -> None:
    """As long as systemd-pstore has it, a crash pruned from the archive would be told anew at each collect."""
    made = root()
    leave(made, "dmesg-erst-7711216860565340161", PANIC % "old")
    assert pstored("collect", root=made).status == 0
    made.configure("[archive]\nmax_harvests = 1\n")
    for number in (1, 2):
        made.add_erst_crash(number, (PANIC % f"new {number}").encode())
        assert pstored("collect", root=made).status == 0
    held = [c["title"] for c in crashes(made)]
    assert pstored("collect", root=made).status == 0
    assert [c["title"] for c in crashes(made)] == held
    assert len(made.harvests()) == 1
    assert made.load("imported.json")["records"] != []
    done = pstored("import", str(taken(made)), "--json", root=made)  # who asks for it gets it
    assert done.json["imports"][0]["archived"] == ["dmesg-erst-7711216860565340161"]
    (taken(made) / "dmesg-erst-7711216860565340161").unlink()
    leave(made, "dmesg-erst-7711216860565340999", PANIC % "last")
    assert pstored("collect", root=made).status == 0
    assert len(made.load("imported.json")["records"]) == 1  # what is no longer there is forgotten


@pytest.mark.parametrize("memory", ["", "{}", "[]", '{"records": 7}', '{"records": [7, null, "x"]}'])
def test_memory_that_is_damaged_is_made_again(memory: str, root: MakeRoot) -> None:
    """The archive itself tells what is in it."""
    made = root()
    leave(made, "dmesg-erst-1", PANIC % "x")
    run(made)
    good = made.load("imported.json")
    (made.archive / "imported.json").write_text(memory)
    assert (done := run(made)) is not None
    assert (done.known, done.archived) == (1, ())
    assert made.load("imported.json") == good


def test_damaged_bundle_is_no_reason_to_leave_a_record_out(root: MakeRoot) -> None:
    """An import by hand reads back what it relies on."""
    made = root()
    leave(made, "dmesg-erst-1", PANIC % "x")
    run(made)
    tar = made.harvests()[0] / "records.tar"
    tar.write_bytes(tar.read_bytes().replace(b"panic", b"picnic"[:5]))
    assert (done := run(made, taken(made))) is not None
    assert len(done.archived) == 1
    assert "does not read back" in said(done)


def test_a_disk_that_writes_something_else_is_noticed(root: MakeRoot) -> None:
    """The bundle is read back; what does not, is not remembered, and imported anew."""
    made = root()
    leave(made, "dmesg-erst-1", PANIC % "x")

    def child() -> str:
        def flip(step: str) -> None:
            path = made.archive / "harvests/.new-harvest/records.tar"
            if step.startswith("rename") and path.exists():
                path.write_bytes(path.read_bytes().replace(b"Panic#1", b"Panic#3"))

        steps.hook = flip
        with pytest.raises(ArchiveError, match="does not read back") as caught:
            run(made)
        return str(caught.value)

    forked(child)
    assert not (made.archive / "imported.json").exists()
    assert (done := run(made)) is not None
    assert len(done.archived) == 1


def test_import_killed_at_every_step(root: MakeRoot, tmp_path: Path) -> None:
    """Killed anywhere, with two bundles to write: the next collect has every record once, and each crash told once."""
    made = root()
    made.configure("[journal]\nenabled = true\n")
    leave(made, "dmesg-ramoops-0", PANIC % "second")
    leave(made, "dmesg.txt", "dmesg-ramoops-0:\n" + PANIC % "first")
    leave(made, "179540752/dmesg-efi-179540752201001", PANIC % "third")
    undisturbed = Root(path=tmp_path / "undisturbed")
    subprocess.run(["cp", "-a", made.path, undisturbed.path], check=True)
    assert run_killed(undisturbed, *COLLECT).status == 0
    assert len(digests(undisturbed)) == 3
    before = sorted((p, p.stat().st_mtime_ns) for p in taken(undisturbed).rglob("*"))
    kills = 0
    for at, killed, ran in kill_everywhere(made, tmp_path, *COLLECT):
        kills += 1
        where = f"killed at step {at}, after {ran.passed[-1:]}"
        assert run_killed(killed, *COLLECT).status == 0, where
        assert archived(killed) == archived(undisturbed), where
        assert sorted(digests(killed)) == sorted(digests(undisturbed)), where
        assert reports(killed) == reports(undisturbed), where
        assert len((killed.path / "sink").read_text().splitlines()) == 3, where
        assert not killed.litter(), where
        assert killed.load("imported.json") == undisturbed.load("imported.json"), where
        assert run_killed(killed, "verify").status == 0, where
    assert kills > 30
    run_killed(undisturbed, *COLLECT)
    assert sorted((p, p.stat().st_mtime_ns) for p in taken(undisturbed).rglob("*")) == before


def test_memory_is_written_after_what_it_vouches_for(root: MakeRoot) -> None:
    """It would keep records out whose bundle a power cut has taken."""
    made = root()
    leave(made, "dmesg-erst-1", PANIC % "x")
    ran = run_killed(made, *COLLECT)
    memory = next(at for at, step in enumerate(ran.passed) if step.endswith("/imported.json"))
    flushed = {step for step in ran.passed[:memory] if step.startswith("fsync ")}
    assert {f"fsync {made.archive}/harvests", f"fsync {made.archive}", f"fsync {made.archive.parent}"} <= flushed


# --- trees that hurt


def test_hostile_tree(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """No link is followed, no FIFO opened, nothing huge read; what is no record is left, and said safely."""
    made = root()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/dmesg-efi-1").write_text("secret")
    leave(made, "dmesg-efi-7", PANIC % "good")
    os.symlink(tmp_path / "secret/dmesg-efi-1", taken(made) / "dmesg-efi-2")
    os.symlink(tmp_path / "secret", taken(made) / "179540752")
    os.symlink("loop", taken(made) / "loop")
    os.mkfifo(taken(made) / "dmesg-efi-3")
    os.mkfifo(taken(made) / "dmesg.txt")
    with open(leave(made, "dmesg-efi-4", ""), "r+b") as f:
        f.truncate(MAX_RECORD + 1)
    leave(made, "evil\x1b[2J\nname", "x")
    (taken(made) / os.fsdecode(b"dmesg-\xff-1")).write_bytes(b"x")
    leave(made, ".#dmesg-efi-9abcdef", "half a copy")
    deep = "/".join("abcdefgh")
    leave(made, f"{deep}/dmesg-efi-5", PANIC % "too deep")
    leave(made, "/".join("abc"[:MAX_DEPTH]) + "/dmesg-efi-6", PANIC % "not too deep")
    done = pstored("collect", root=made)
    assert done.status == 0
    assert [name for name, _ in archived(made)] == ["dmesg-efi-6", "dmesg-efi-7"]
    assert f"larger than {MAX_RECORD} bytes" in done.stdout
    assert "no record that systemd-pstore would leave there" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "secret" not in str(archived(made))


def test_records_that_cannot_be_read_are_in_the_exit_status(root: MakeRoot, pstored: Pstored) -> None:
    """EIO at once: said; EIO later: what there is of it is archived, as from a store; the rest is imported."""
    require(can_mount() and os.path.exists("/dev/fuse"), "needs root and /dev/fuse")
    made = root()
    taken(made).mkdir(parents=True)
    files = {
        b"dmesg-efi-1": FuseFile(data=b"x" * 9000, fails_after=0),
        b"dmesg-efi-2": FuseFile(data=(PANIC % "half").encode() + b"x" * 9000, fails_after=5000),
        b"dmesg-efi-3": FuseFile(data=(PANIC % "whole").encode()),
        b"dmesg.txt": FuseFile(data=b"x" * 9000, fails_after=0),
    }

    def child() -> list[Any]:
        with fuse_store(taken(made), files):
            found = [run(made), run(made)]
        return [(sorted(r.name for r in d.archived), d.known, said(d)) for d in found if d is not None]

    first, second = forked(child, new_mounts=True)
    assert first[0] == ["dmesg-efi-2", "dmesg-efi-3"]
    assert "dmesg-efi-1, dmesg.txt: cannot be read: Input/output error" in first[2]
    assert second[:2] == ([], 2)
    leave(made, "dmesg-efi-5", "x")
    os.chmod(taken(made) / "dmesg-efi-5", 0)
    if os.geteuid() != 0:
        assert pstored("import", root=made).status == 1


def test_records_that_vanish_or_change_meanwhile(root: MakeRoot) -> None:
    """systemd-tmpfiles ages the directory while it is read: what is gone is no problem, what is changed is taken."""
    made = root()
    for number in (1, 2, 3):
        leave(made, f"dmesg-erst-{number}", PANIC % number)

    def child() -> Import | None:
        def meddle(step: str) -> None:
            if step.startswith("create") and step.endswith("records.tar"):
                (taken(made) / "dmesg-erst-1").unlink()
                leave(made, "dmesg-erst-2", PANIC % "another", mtime_ns=TIME_NS + 5)

        steps.hook = meddle
        return run(made)

    assert (done := forked(child)) is not None
    assert [r.name for r in done.archived] == ["dmesg-erst-2", "dmesg-erst-3"]
    assert dict(archived(made))["dmesg-erst-2"] == (PANIC % "another").encode()
    assert not done.problems
    assert (again := run(made)) is not None
    assert (again.archived, again.problems) == ((), ())


def test_all_vanish_meanwhile(root: MakeRoot) -> None:
    """No bundle then."""
    made = root()
    leave(made, "dmesg-erst-1", PANIC % "x")

    def child() -> Import | None:
        def meddle(step: str) -> None:
            with suppress(FileNotFoundError):
                (taken(made) / "dmesg-erst-1").unlink()

        steps.hook = meddle
        return run(made)

    assert (done := forked(child)) is not None
    assert (done.harvests, done.archived, done.problems) == ((), (), ())
    assert not made.harvests()
    assert not made.litter()


def test_many_records_of_one_name_take_several_passes(root: MakeRoot, pstored: Pstored) -> None:
    """Each bundle has a name once; the newest of each come together, and with the console; the rest is said."""
    made = root()
    count = MAX_BUNDLES + 4
    for number in range(count):
        leave(made, f"{number:03}/dmesg-ramoops-0", PANIC % number, mtime_ns=TIME_NS + number)
    leave(made, "console-ramoops-0", f"[   77.000001] Kernel panic - not syncing: {count - 1}\n")
    first = pstored("import", root=made)
    assert first.status == 1
    assert "and 1 more: left for the next import" in first.stderr
    assert len(made.harvests()) == MAX_BUNDLES
    newest = made.load(f"harvests/{made.harvests()[-1].name}/harvest.json")
    assert [(r["name"], r["mtime_ns"] - TIME_NS) for r in newest["records"]] == [
        ("console-ramoops-0", 0),
        ("dmesg-ramoops-0", count - 1),
    ]
    assert pstored("import", root=made).status == 0
    assert len(archived(made)) == count + 1
    assert len(crashes(made)) == count


def test_thousands_of_directories(root: MakeRoot) -> None:
    """One bundle, a constant number of flushes."""
    made = root()
    for number in range(3000):
        leave(
            made, f"{1_790_000_000 + number}/001/dmesg-efi-{(1_790_000_000 + number) * 100_000 + 1001}", PANIC % number
        )
    ran = run_killed(made, "import")
    assert len(archived(made)) == 3000
    fsyncs = [s for s in ran.passed[: ran.passed.index(f"rename {made.archive}/imported.json")] if s[:5] == "fsync"]
    assert len(fsyncs) <= 8


# --- what can go wrong before


def test_nothing_there_is_nothing_to_do(root: MakeRoot, pstored: Pstored) -> None:
    """No directory, or an empty one; an archive is not made for it."""
    made = root()
    assert run(made) is None
    done = pstored("import", root=made)
    assert (done.status, done.stdout) == (0, "nothing to import\n")
    taken(made).mkdir(parents=True)
    assert run(made) is None
    assert pstored("collect", "--json", root=made).json["import"] is None


@pytest.mark.parametrize(
    ("make", "why", "status"),
    [(lambda _: None, "there is no", 1), (lambda path: path.write_text(""), "nothing in it that pstored", 1)],
)
def test_a_directory_that_is_none(
    make: Callable[[Path], object], why: str, status: int, root: MakeRoot, pstored: Pstored
) -> None:
    """One that was asked for must be there; the operand is not below --root."""
    made = root()
    path = made.path / "some where"
    make(path)
    done = pstored("import", str(path), root=made)
    assert done.status == status
    assert why in done.stderr
    with pytest.raises(StoreError):
        run(made, path)


def test_a_directory_of_another_machine(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """A copy, or a disk in a rescue system: as typed; its machine id is not this one's."""
    made, other = root(), root()
    leave(other, "dmesg-erst-7711216860565340161", PANIC % "elsewhere")
    assert pstored("import", str(taken(other)), root=made).status == 0
    (crash,) = crashes(made)
    assert (crash["machine_id"], crash["collected"]["imported_from"]) == (None, str(taken(other)))
    assert not (made.archive / "imported.json").exists()


@pytest.mark.parametrize("own", [True, False])
def test_another_machine_that_booted_at_the_same_time(own: bool, root: MakeRoot, tmp_path: Path) -> None:
    """After a power cut a fleet boots as one: the ledger names the boot of this machine's records, and of no others."""
    made = root("oops-panic", backend="efi_pstore", stamp_prefix="")
    boot = made.boots[0]
    live_through(made, boot, tmp_path)
    take(made)
    run(made, None if own else taken(made).rename(tmp_path / "copy"))
    (crash,) = collect(made, wall_s=boot.began + 300)
    if own:
        assert (crash["boot"]["id"], crash["boot"]["method"]) == (boot.boot_id, "ledger")
    else:
        assert crash["boot"]["id"] is None
        assert any("of which machine" in why for why in crash["boot"]["evidence"])


def test_an_import_that_fails_does_not_hide_a_crash(root: MakeRoot, pstored: Pstored) -> None:
    """What was harvested is analyzed and told; then the error, and its exit status."""
    made = root("lab-erst")
    taken(made).parent.mkdir(parents=True)
    taken(made).write_text("a file in its place")
    done = pstored("collect", root=made)
    assert done.status == 1
    assert "Kernel panic" in done.stdout
    assert "cannot list" in done.stderr


def test_the_kdump_kernel_imports_nothing(root: MakeRoot) -> None:
    """There is little memory, and a root that may not be the right one."""
    made = root()
    leave(made, "dmesg-erst-1", PANIC % "x")
    made.write("proc/vmcore", "")
    assert run(made) is None
    assert import_systemd_pstore(Host(str(made.path)), Config(archive=Archive()), None) is None


def test_what_an_import_has_left_is_due() -> None:
    """The daemon's status says so, and not that nothing is."""
    left = Import("/var/lib/systemd/pstore", "systemd-pstore", (), (), 0, (), ("a: cannot be listed",))
    assert Collected(NOTHING, left, None).due() == ["the import"]
    assert Collected(NOTHING, left._replace(problems=()), None).due() == []
