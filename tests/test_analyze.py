# SPDX-License-Identifier: Apache-2.0
"""From harvests to crashes: what several collections give, over reboots, and done again from the beginning."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fake_pstore import capture
from fake_pstore.model import BootTruth
from fake_pstore.tree import write_record
from pstored.analyze import analyze
from pstored.archive import Archive
from pstored.boots.ledger import Look, note_boot, read_ledger
from pstored.config import Config, load
from pstored.crashes.report import Report
from pstored.documents import dump_json
from pstored.harvest import Pass, harvest
from pstored.host import Host
from pstored.records import DIFFERS
from pstored.stamp import Stamp
from tests.conftest import MakeRoot, Pstored, Root

LATER = "99999999-8888-4777-8666-555555555555"
PREFIX = "pstored: boot "


def settings(root: Root) -> Config:
    """The tree's configuration; the tests may run in memory."""
    config = load(str(root.path)).config
    return config._replace(archive=config.archive._replace(allow_volatile=True))


def collect(root: Root, *, wall_s: float | None = None, stamped: bool = False) -> list[dict[str, Any]]:
    """Harvest and analyze as `pstored collect` does; gives the crashes that are new or have grown."""
    host = Host(str(root.path)) if wall_s is None else Host(str(root.path), clock_ns=lambda: int(wall_s * 1e9))
    config = settings(root)
    archive = Archive(str(root.archive))
    done: Pass = harvest(host, config)
    with archive.lock():
        note_boot(archive, Look(host.facts(), stamp=Stamp(("/dev/kmsg",) if stamped else ())))
        found = analyze(archive, config, touched=done.touched)
    crashes = [archive.load_crash(i) for i in found.crashes]
    for crash in crashes:
        Report.model_validate(crash)
    return crashes


def analyze_all(root: Root) -> None:
    """`pstored analyze --all`."""
    archive = Archive(str(root.archive))
    with archive.lock():
        analyze(archive, settings(root), again=True)


def derived(root: Root) -> dict[str, bytes]:
    """Every file of every crash, but for the receipts of sinks."""
    crashes = root.archive / "crashes"
    return {
        str(path.relative_to(crashes)): path.read_bytes()
        for path in sorted(crashes.rglob("*"))
        if path.is_file() and path.name != "delivered.json"
    }


def boot_into(root: Root, boot_id: str, *, uptime_s: float = 10.0, oopses: int = 0) -> None:
    """Another boot runs."""
    root.write("proc/sys/kernel/random/boot_id", f"{boot_id}\n")
    root.write("proc/uptime", f"{uptime_s:.2f} 0.00\n")
    root.write("sys/kernel/oops_count", f"{oopses}\n")


def set_aside(root: Root, path: Path) -> None:
    """Take the records out of the store, as if they were not written yet."""
    shutil.move(root.store, path)
    root.store.mkdir()


def put_back(root: Root, path: Path, *, only: str = "") -> None:
    """Put records whose name begins so into the store."""
    for record in sorted(path.iterdir()):
        if record.name.startswith(only):
            write_record(root.store / record.name, record.read_bytes(), record.stat().st_mtime_ns)
            record.unlink()


def live_through(root: Root, boot: BootTruth, tmp_path: Path, *, wall_s: float | None = None) -> None:
    """The boot that will crash is seen by pstored, 10 s after it began, with nothing in the store."""
    now = (root.path / "proc/sys/kernel/random/boot_id").read_text().strip()
    set_aside(root, tmp_path / "aside")
    boot_into(root, boot.boot_id)
    assert collect(root, wall_s=boot.began + 10 if wall_s is None else wall_s) == []
    boot_into(root, now)
    put_back(root, tmp_path / "aside")


# -- which boot, over several collections


@pytest.mark.parametrize("backend", ["efi_pstore", "erst", "ramoops", "pstore_blk"])
def test_a_boot_that_pstored_has_seen_is_named_by_the_ledger(backend: str, root: MakeRoot, tmp_path: Path) -> None:
    """No stamp: kernel, clock and uptime fit the one boot in the ledger."""
    made = root("oops-panic", backend=backend, stamp_prefix="")
    boot = made.boots[0]
    live_through(made, boot, tmp_path)
    (crash,) = collect(made, wall_s=boot.began + 300)
    assert crash["boot"]["id"] == boot.boot_id
    assert (crash["boot"]["method"], crash["boot"]["confidence"]) == ("ledger", "high")
    assert [b.boot_id for b in read_ledger(Archive(str(made.archive)))] == [boot.boot_id, crash["collected"]["boot_id"]]


def test_two_unstamped_boots_are_each_named(root: MakeRoot, tmp_path: Path) -> None:
    """Both were seen; each crash finds its own."""
    made = root("two-boots", backend="efi_pstore", stamp_prefix="")
    for n, boot in enumerate(made.boots):
        (tmp_path / str(n)).mkdir()
        live_through(made, boot, tmp_path / str(n))
    crashes = collect(made, wall_s=made.boots[1].began + 300)
    assert [c["boot"]["id"] for c in crashes] == [boot.boot_id for boot in made.boots]


def test_a_console_alone_is_named_by_elimination(root: MakeRoot, tmp_path: Path) -> None:
    """It holds the boot before this one; with low confidence, and it says why."""
    made = root("console-only-crash", backend="ramoops", stamp_prefix="")
    boot = made.boots[0]
    live_through(made, boot, tmp_path)
    (crash,) = collect(made, wall_s=boot.began + 300)
    assert crash["boot"]["id"] == boot.boot_id
    assert (crash["boot"]["method"], crash["boot"]["confidence"]) == ("elimination", "low")
    assert crash["dumps"] == []
    assert crash["time"]["wall"] is None


def test_an_unseen_boot_is_not_taken_for_the_one_before_it(root: MakeRoot, tmp_path: Path) -> None:
    """pstored saw an earlier boot; the one that crashed died before it ran."""
    made = root("panic", backend="efi_pstore", stamp_prefix="")
    seen = BootTruth(LATER, made.boots[0].began - 4000, ())
    live_through(made, seen, tmp_path)
    (crash,) = collect(made, wall_s=made.boots[0].began + 300)
    assert crash["boot"]["id"] is None
    assert crash["boot"]["evidence"]


def test_a_board_without_a_clock_names_no_wrong_boot(root: MakeRoot, tmp_path: Path) -> None:
    """Every boot begins at the same wall time: two seen, a third crashed unseen; none of them may be named."""
    made = root("panic", backend="efi_pstore", stamp_prefix="")
    began = made.boots[0].began
    for n in range(2):
        (tmp_path / str(n)).mkdir()
        live_through(made, BootTruth(f"{n}{LATER[1:]}", began, ()), tmp_path / str(n))
    (crash,) = collect(made, wall_s=began + 12)
    assert crash["boot"]["id"] is None


def test_a_board_whose_clock_is_set_late_names_no_wrong_boot(root: MakeRoot, tmp_path: Path) -> None:
    """One boot seen at the stopped clock's time, one crashed unseen at the same; then the network set the clock.

    The stopped clock shows a time before the kernel was built: it is wrong, and proves nothing.
    """
    made = root("panic", backend="ramoops", stamp_prefix="")
    for path in made.store.iterdir():
        write_record(path, path.read_bytes(), 25 * 10**9)  # 25 s after 1970
    live_through(made, BootTruth(LATER, 0, ()), tmp_path)
    (crash,) = collect(made, wall_s=made.boots[0].began + 300)
    assert crash["boot"]["id"] is None
    assert crash["time"]["doubtful"] is True


def test_the_running_boots_own_oops_is_named_by_its_stamp(root: MakeRoot) -> None:
    """Collected in the very boot that oopsed and lived on."""
    made = root("oops", backend="efi_pstore")
    boot_into(made, made.boots[0].boot_id, uptime_s=100, oopses=1)
    (crash,) = collect(made, stamped=True, wall_s=made.boots[0].began + 100)
    assert crash["boot"]["id"] == made.boots[0].boot_id == crash["collected"]["boot_id"]
    assert crash["boot"]["method"] == "stamp"


def test_without_a_stamp_the_running_boot_is_not_named(root: MakeRoot) -> None:
    """It may be; it is not proven."""
    made = root("oops", backend="efi_pstore", stamp_prefix="")
    boot_into(made, made.boots[0].boot_id, uptime_s=100, oopses=1)
    (crash,) = collect(made, wall_s=made.boots[0].began + 100)
    assert crash["boot"]["id"] is None
    assert "collecting boot" in " ".join(crash["boot"]["evidence"])


def test_a_wrong_clock_does_not_hide_the_stamp(root: MakeRoot) -> None:
    """The boot is certain, its time is doubtful."""
    made = root("panic", backend="ramoops")
    for path in made.store.iterdir():
        write_record(path, path.read_bytes(), 25 * 10**9)
    (crash,) = collect(made)
    assert (crash["boot"]["id"], crash["boot"]["confidence"]) == (made.boots[0].boot_id, "certain")
    assert crash["time"]["doubtful"] is True


# -- crashes that grow


@pytest.mark.parametrize("stamp", [PREFIX, ""], ids=["stamped", "not stamped"])
@pytest.mark.parametrize("backend", ["efi_pstore", "erst", "ramoops"])
def test_an_oops_and_its_later_panic_are_one_crash(backend: str, stamp: str, root: MakeRoot, tmp_path: Path) -> None:
    """The oops is collected while its boot lives on; then it panics, and the next boot collects that: revision 2."""
    made = root("oops-panic", backend=backend, stamp_prefix=stamp)
    boot, now = made.boots[0], (made.path / "proc/sys/kernel/random/boot_id").read_text().strip()
    oops = [p.name for p in sorted(made.store.iterdir()) if p.read_bytes().startswith(b"Oops#1")]
    set_aside(made, tmp_path / "aside")
    for name in oops:
        put_back(made, tmp_path / "aside", only=name)
    boot_into(made, boot.boot_id, oopses=0 if backend == "ramoops" else 1)
    (first,) = collect(made, wall_s=boot.began + 30, stamped=bool(stamp))
    assert (first["revision"], [d["reason"] for d in first["dumps"]]) == (1, ["Oops"])
    put_back(made, tmp_path / "aside")
    boot_into(made, now)
    (second,) = collect(made, wall_s=boot.began + 300, stamped=bool(stamp))
    assert [p.name for p in made.crashes()] == [first["id"]]
    assert (second["id"], second["revision"]) == (first["id"], 2)
    assert [d["reason"] for d in second["dumps"]] == ["Oops", "Panic"]
    assert second["boot"]["id"] == (boot.boot_id if stamp else second["boot"]["id"])
    assert len(second["collected"]["harvests"]) == 2
    before = derived(made)
    analyze_all(made)
    assert derived(made) == before


def test_a_part_that_comes_later_completes_its_crash(root: MakeRoot, tmp_path: Path) -> None:
    """It could not be read at first."""
    made = root("panic", backend="efi_pstore")
    records = sorted(made.store.iterdir())
    set_aside(made, tmp_path / "aside")
    for record in records[:1] + records[2:]:
        put_back(made, tmp_path / "aside", only=record.name)
    (first,) = collect(made)
    assert (first["complete"], len(first["dumps"][0]["missing"])) == (False, 1)
    put_back(made, tmp_path / "aside")
    (second,) = collect(made)
    assert (second["id"], second["revision"], second["complete"]) == (first["id"], 2, True)
    assert second["dumps"][0]["missing"] == []
    assert len(made.crashes()) == 1


def test_a_kernel_that_can_unpack_shows_no_new_crash(root: MakeRoot) -> None:
    """The same dumps packed, archived; after an update the kernel shows them unpacked."""
    made = root("lab-enc-zstd")
    loaded = capture.load("lab-enc-zstd")
    (first,) = collect(made)
    for name, data, mtime in loaded.records("truth"):
        if name.startswith("dmesg"):
            write_record(made.store / name, data, mtime)
    boot_into(made, LATER)
    collect(made)
    assert [p.name for p in made.crashes()] == [first["id"]]
    crash = made.load(f"crashes/{first['id']}/crash.json")
    assert [(d["reason"], d["count"]) for d in crash["dumps"]] == [("Oops", 1), ("Panic", 2)]
    assert len(crash["records"]) == len(first["records"]) + 2


def test_another_crash_of_another_boot_is_another(root: MakeRoot) -> None:
    """The same slots, the same reasons and counts, a day later."""
    made = root("oops-panic", backend="ramoops")
    (first,) = collect(made)
    later = root("oops-panic", backend="ramoops", seed=7)
    for record in later.store.iterdir():
        write_record(made.store / record.name, record.read_bytes(), record.stat().st_mtime_ns)
    boot_into(made, LATER)
    (second,) = collect(made)
    assert first["id"] != second["id"]
    assert second["id"] > first["id"]
    assert second["boot"]["id"] == later.boots[0].boot_id
    assert len(made.crashes()) == 2


# -- again


def test_a_second_run_changes_nothing(root: MakeRoot) -> None:
    """Not a byte, not a time."""
    made = root("x86_64-6.1-ramoops-all")
    assert len(collect(made)) == 1
    before = made.snapshot()
    assert collect(made) == []
    assert made.snapshot() == before


@pytest.mark.parametrize("name", ["lab-efi-twoboots", "lab-enc-lzo", "lab-erst-mce", "x86_64-6.1-ramoops-all"])
def test_all_again_gives_the_same_bytes(name: str, root: MakeRoot) -> None:
    """Nothing derived depends on when or how often it was made."""
    made = root(name)
    collect(made)
    before = derived(made)
    assert before
    for _ in range(2):
        analyze_all(made)
        assert derived(made) == before


def test_all_again_after_later_boots_gives_the_same_bytes(root: MakeRoot, tmp_path: Path) -> None:
    """What the ledger has learnt since must not change an old answer."""
    made = root("oops-panic", backend="efi_pstore", stamp_prefix="")
    boot = made.boots[0]
    live_through(made, boot, tmp_path)
    collect(made, wall_s=boot.began + 300)
    before = derived(made)
    boot_into(made, LATER)
    collect(made, wall_s=float(boot.began))  # a later boot whose clock fits the record, too
    analyze_all(made)
    assert derived(made) == before


def test_a_deleted_crash_is_made_again(root: MakeRoot) -> None:
    """From the harvest: the same id, the same bytes."""
    made = root("lab-efi-twoboots")
    collect(made)
    before = derived(made)
    shutil.rmtree(made.crashes()[0])
    analyze_all(made)
    assert derived(made) == before


def test_all_again_keeps_what_sinks_have(root: MakeRoot) -> None:
    """The one thing in a crash's directory that cannot be made again."""
    made = root("lab-efi-twoboots")
    collect(made)
    receipt = made.crashes()[0] / "delivered.json"
    receipt.write_text('{"schema": 1, "sinks": {}}')
    analyze_all(made)
    assert receipt.read_text() == '{"schema": 1, "sinks": {}}'


def test_all_again_takes_away_what_is_no_longer_found(root: MakeRoot) -> None:
    """Another stamp prefix, another answer; old answers do not stay beside the new."""
    made = root("lab-efi-twoboots")
    collect(made)
    stray = made.archive / "crashes" / "20200101T000000Z-0123456789ab"
    shutil.copytree(made.crashes()[0], stray)
    analyze_all(made)
    assert not stray.exists()
    assert len(made.crashes()) == 2


# -- what is no crash, and what cannot be analyzed


def test_garbage_alone_is_no_crash_but_a_note(root: MakeRoot) -> None:
    """Archived, and said."""
    made = root()
    made.add("unknown-erst-3", b"\x00\x01\x02")
    made.add("annotate-ramoops-0", b"vendor\n")
    assert collect(made) == []
    (bundle,) = made.harvests()
    analyzed = json.loads((bundle / "analyzed.json").read_bytes())
    assert analyzed["crashes"] == []
    said = " ".join(analyzed["notes"])
    assert "unknown-erst-3" in said
    assert "annotate-ramoops-0" in said


def test_a_harvest_that_cannot_be_read_does_not_stop_the_others(root: MakeRoot) -> None:
    """It is noted; what comes after is analyzed."""
    made = root("oops-panic", backend="efi_pstore")
    harvest(Host(str(made.path)), settings(made))
    (made.harvests()[0] / "records.tar").write_bytes(b"not a tar at all")
    for record in root("panic", backend="efi_pstore", seed=3).store.iterdir():
        write_record(made.store / record.name, record.read_bytes(), record.stat().st_mtime_ns)
    (crash,) = collect(made)
    assert crash["kind"] == "sysrq"
    assert "records.tar" in json.loads((made.harvests()[0] / "analyzed.json").read_bytes())["failed"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"{", b"\xff", b'{"schema": 1, "records": [{}]}'])
def test_a_damaged_harvest_json_does_not_stop_the_others(damage: bytes, root: MakeRoot) -> None:
    """Nor is anything raised."""
    made = root("panic", backend="efi_pstore")
    harvest(Host(str(made.path)), settings(made))
    (made.harvests()[0] / "harvest.json").write_bytes(damage)
    for record in root("panic", backend="efi_pstore", seed=3).store.iterdir():
        write_record(made.store / record.name, record.read_bytes(), record.stat().st_mtime_ns)
    assert len(collect(made)) == 1


def test_a_damaged_older_crash_does_not_stop_the_analysis(root: MakeRoot) -> None:
    """crash.json of an incomplete crash is broken; a new harvest that may belong to it is analyzed all the same."""
    made = root("panic", backend="efi_pstore", missing_parts=frozenset((2,)), stamp_prefix="")
    (first,) = collect(made)
    (made.crashes()[0] / "crash.json").write_bytes(b"{}")
    for record in root("panic", backend="efi_pstore", seed=3).store.iterdir():
        write_record(made.store / record.name, record.read_bytes(), record.stat().st_mtime_ns)
    boot_into(made, LATER)
    found = collect(made)
    assert first["id"] not in [c["id"] for c in found]
    assert len(found) == 1


def test_the_ledger_survives_its_damage(root: MakeRoot) -> None:
    """A torn line, or a file of rubbish."""
    made = root("panic", backend="efi_pstore")
    made.archive.mkdir(parents=True)
    (made.archive / "boots.jsonl").write_bytes(b'{"boot_id": "torn\n\xff\xfe[]\nnull\n7\n')
    assert len(collect(made)) == 1
    assert len(read_ledger(Archive(str(made.archive)))) == 1


# -- crashes that look alike, and what later collections change


THIRD = "77777777-6666-4555-8444-333333333333"
SAME = b"%s#1 Part%d\n<0>Kernel panic - not syncing: VFS: Unable to mount root fs\n"


@pytest.mark.parametrize("parts", [1, 3])
def test_a_crash_with_equal_bytes_is_not_taken_for_one_that_still_waits(parts: int, root: MakeRoot) -> None:
    """printk.time=0, and every boot dies alike: the first was deferred, the second is another, and both are shown."""
    made = root()
    for number, second in enumerate((1_795_400_000, 1_795_403_600)):
        for part in range(1, parts + 1):
            name = f"dmesg-efi_pstore-{(second * 100 + part) * 1000 + 1}"
            made.add(name, SAME % (b"Panic", part), mtime_ns=second * 10**9)
        boot_into(made, (LATER, THIRD)[number], oopses=1 - number)
        collect(made)
    assert made.names() == []
    crashes = [made.load(f"crashes/{path.name}/crash.json") for path in made.crashes()]
    assert [(c["complete"], [d["parts"] for d in c["dumps"]]) for c in crashes] == [
        (True, [list(range(1, parts + 1))])
    ] * 2
    assert collect(made) == []


def test_erasing_later_changes_no_attribution(root: MakeRoot, tmp_path: Path) -> None:
    """Oops and panic come in two harvests, the last collection only erases: who crashed was known, and still is."""
    made = root("oops-panic", backend="efi_pstore", stamp_prefix="")
    boot, now = made.boots[0], (made.path / "proc/sys/kernel/random/boot_id").read_text().strip()
    oops = [p.name for p in sorted(made.store.iterdir()) if p.read_bytes().startswith(b"Oops#1")]
    set_aside(made, tmp_path / "aside")
    for name in oops:
        put_back(made, tmp_path / "aside", only=name)
    boot_into(made, boot.boot_id, oopses=1)
    collect(made, wall_s=boot.began + 10)
    put_back(made, tmp_path / "aside")
    boot_into(made, now, oopses=1)
    (grown,) = collect(made, wall_s=boot.began + 300)
    assert (grown["boot"]["id"], grown["revision"]) == (boot.boot_id, 2)
    boot_into(made, THIRD)
    assert collect(made, wall_s=boot.began + 900) == []
    after = made.load(f"crashes/{grown['id']}/crash.json")
    assert after["boot"] == grown["boot"]
    assert all(record["erased"] for record in after["records"])
    before = derived(made)
    analyze_all(made)
    assert derived(made) == before


def test_the_stages_one_by_one_give_what_collect_gives(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """`harvest` early, `analyze` later: the ledger is asked all the same, and doing it all again changes nothing."""
    made = root("console-only-crash", backend="ramoops", stamp_prefix="")
    made.configure("[archive]\nallow_volatile = true\n")
    live_through(made, made.boots[0], tmp_path)
    for command in ("harvest", "analyze"):
        assert pstored(command, root=made).status == 0
    before = derived(made)
    (crash,) = (made.load(f"crashes/{path.name}/crash.json") for path in made.crashes())
    assert (crash["boot"]["id"], crash["boot"]["method"]) == (made.boots[0].boot_id, "elimination")
    analyze_all(made)
    assert derived(made) == before


def test_records_archived_anew_are_no_new_revision(root: MakeRoot) -> None:
    """The first bundle is damaged: its records are archived again, and nothing more is known than before."""
    made = root("panic", backend="efi_pstore", missing_parts=(2,))
    made.configure('[harvest]\nerase = "none"\n')
    (first,) = collect(made)
    tar = made.harvests()[0] / "records.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    assert collect(made) == [] or made.load(f"crashes/{first['id']}/crash.json")["revision"] == 1
    assert len(made.harvests()) == 2
    assert [p.name for p in made.crashes()] == [first["id"]]


def rot(root: Root) -> None:
    """Flip a bit of a record in the newest harvest's bundle."""
    tar = root.harvests()[-1] / "records.tar"
    data = bytearray(tar.read_bytes())
    data[data.index(b"Kernel panic")] ^= 1
    tar.write_bytes(data)


def test_record_that_was_archived_anew_counts_once(root: MakeRoot) -> None:
    """A bundle that did not read back, and that of the next run: what is damaged in one is read from the other."""
    made = root()
    name = made.add_erst_crash(1, b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: once\n")
    data, mtime_ns = (made.store / name).read_bytes(), (made.store / name).stat().st_mtime_ns
    harvest(Host(str(made.path)), settings(made))
    rot(made)
    made.add(name, data, mtime_ns=mtime_ns)
    crashes = collect(made)
    assert len(made.harvests()) == 2
    assert [c["title"] for c in crashes] == ["Kernel panic: once"]
    assert [r["harvest_id"] for r in crashes[0]["records"]] == [made.harvests()[1].name]
    assert crashes[0]["complete"]


def test_packed_record_that_was_archived_anew_is_no_crash_of_its_own(root: MakeRoot, tmp_path: Path) -> None:
    """Of what cannot be unpacked nothing tells that it is of the other's boot."""
    made = root("panic", backend="efi_pstore")
    shutil.copytree(made.store, tmp_path / "aside")
    harvest(Host(str(made.path)), settings(made))
    tar = made.harvests()[0] / "records.tar"
    first = min((tmp_path / "aside").iterdir()).read_bytes()
    tar.write_bytes(tar.read_bytes().replace(first, bytes(len(first))))
    put_back(made, tmp_path / "aside")
    assert [c["boot"]["id"] for c in collect(made)] == [made.boots[0].boot_id]
    assert len(made.harvests()) == 2
    assert [made.load(f"crashes/{p.name}/crash.json")["complete"] for p in made.crashes()] == [True]


def test_record_that_has_rotted_in_the_archive_is_told_as_damaged(root: MakeRoot) -> None:
    """What is left of it is read: nobody else has it."""
    made = root()
    made.add_erst_crash(1, b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: once\n")
    (crash,) = collect(made)
    assert crash["complete"]
    rot(made)
    analyze_all(made)
    (path,) = made.crashes()
    crash = made.load(f"crashes/{path.name}/crash.json")
    assert not crash["complete"]
    assert [d["damage"] for d in crash["dumps"]] == [[f"{crash['records'][0]['name']}: {DIFFERS}"]]


@pytest.mark.parametrize("how", ["gone", "no file"])
def test_a_crash_without_its_report_is_a_row(how: str, root: MakeRoot, pstored: Pstored) -> None:
    """Somebody removed it, or it cannot be looked at: said in the list, not left out."""
    made = root("panic", backend="efi_pstore")
    (first,) = collect(made)
    report = made.archive / "crashes" / first["id"] / "crash.json"
    report.unlink()
    if how == "no file":
        report.mkdir()
    done = pstored("list", root=made)
    assert (done.status, "report is damaged" in done.stdout) == (0, True)


def test_report_that_is_brought_up_to_date_says_the_same(root: MakeRoot, pstored: Pstored) -> None:
    """Deferred, then erased: what is a proof, and what a guess, is still said, and a guess does not become a proof."""
    made = root("all-zones", backend="ramoops", stamp_prefix="")
    made.write("sys/kernel/oops_count", "1\n")
    assert pstored("collect", root=made).status == 1
    (crash,) = made.crashes()
    before = made.load(f"crashes/{crash.name}/crash.json")
    assert any(note.startswith("a guess: ") for note in before["notes"])
    made.reboot()
    assert pstored("collect", root=made).status == 0
    after = made.load(f"crashes/{crash.name}/crash.json")
    assert [r["outcome"] for r in before["records"]] != [r["outcome"] for r in after["records"]]
    for key in ("notes", "boot", "dumps", "files", "complete", "title", "revision"):
        assert after[key] == before[key], key


# -- what the cache and the archive have lost


def two_parts(root: MakeRoot, tmp_path: Path) -> tuple[Root, Path]:
    """A crash of which one record is still to come, and where that is."""
    made = root("panic", backend="efi_pstore")
    records = sorted(made.store.iterdir())
    set_aside(made, tmp_path / "aside")
    for record in records[:1] + records[2:]:
        put_back(made, tmp_path / "aside", only=record.name)
    assert len(collect(made)) == 1
    return made, tmp_path / "aside"


def flip_in_line(root: Root) -> None:
    """Flip a bit of the cache's only line, where its JSON is."""
    index = root.archive / "crashes.index"
    data = bytearray(index.read_bytes())
    data[data.index(b'{"backend')] ^= 1
    index.write_bytes(data)


def test_line_with_a_flipped_bit_makes_no_second_crash(root: MakeRoot, tmp_path: Path) -> None:
    """crash.json is whole; of its line in the cache one byte of the JSON is not."""
    made, aside = two_parts(root, tmp_path)
    flip_in_line(made)
    put_back(made, aside)
    (second,) = collect(made)
    assert (len(made.crashes()), second["revision"]) == (1, 2)


def test_line_that_is_wrong_is_made_anew(root: MakeRoot, tmp_path: Path) -> None:
    """Once: not at each list and each status line for ever."""
    made, _ = two_parts(root, tmp_path)
    flip_in_line(made)
    archive = Archive(str(made.archive))
    with archive.lock():
        assert "damaged" not in archive.crash_summaries()[0]["title"]
    with archive.lock():
        assert "damaged" not in archive.remembered_crashes()[0]["title"]


def test_report_that_is_damaged_hides_no_other_crash(root: MakeRoot) -> None:
    """Its line is believed, and names the boot of what comes: that cannot grow it, and is told by itself."""
    made = root()
    boot_id = b"00000001-8888-4777-8666-555555555555"
    made.add_erst_crash(1, BUG_PART % boot_id)
    assert [c["boot"]["id"] for c in collect(made)] == [boot_id.decode()]
    (made.crashes()[0] / "crash.json").write_bytes(b"{")
    made.add_erst_crash(2, PANIC_PART % boot_id)
    assert [c["boot"]["id"] for c in collect(made)] == [boot_id.decode()]
    assert [made.load(f"harvests/{p.name}/analyzed.json")["failed"] for p in made.harvests()] == [None, None]


@pytest.mark.parametrize("known", [True, False])
def test_crash_that_was_removed_and_made_again_has_no_older_line(known: bool, root: MakeRoot, tmp_path: Path) -> None:
    """Its new line is lost in a power cut: the line of before it was removed must not count."""
    made, _ = two_parts(root, tmp_path)
    archive = Archive(str(made.archive))
    (crash_id,) = archive.crash_ids()
    report = archive.load_crash(crash_id)
    report["summary"]["boot"], report["summary"]["title"] = "another", "made anew"
    with archive.lock():
        if known:
            archive.remembered_crashes()
        archive.remove_crash(crash_id)
        Path(archive.crash_directory(crash_id)).mkdir()
        archive.write(archive.crash_directory(crash_id), {"crash.json": dump_json(report)})
    assert archive.remembered_crashes()[0]["boot"] == "another"


def test_deep_summary_is_no_traceback(root: MakeRoot, tmp_path: Path, pstored: Pstored) -> None:
    """Whoever changed it: list, and collect, go on."""
    made, _ = two_parts(root, tmp_path)
    path = made.crashes()[0] / "crash.json"
    report: dict[str, Any] = json.loads(path.read_bytes())
    report["summary"]["row"] = json.loads("[" * 700 + "]" * 700)
    path.write_text(json.dumps(report))
    done = pstored("list", root=made)
    assert "Traceback" not in done.stderr
    assert done.status == 0


def test_all_again_keeps_a_crash_whose_records_have_rotted(root: MakeRoot) -> None:
    """The report is then the only thing that still tells of it; that its records differ is known."""
    made = root()
    made.add_erst_crash(1, b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: once\n")
    (crash,) = collect(made)
    tar = made.harvests()[0] / "records.tar"
    data = bytearray(tar.read_bytes())
    at = data.index(b"Panic#1")
    end = data.index(b"once\n") + 5
    data[at:end] = bytes(end - at)
    tar.write_bytes(data)
    analyze_all(made)
    assert [p.name for p in made.crashes()] == [crash["id"]]


_TOLD = (
    b"<12>[    1.000000] pstored: boot %s\n"
    b"<1>[   20.000001] BUG: kernel NULL pointer dereference, address: 0\n"
    b"<4>[   20.000002] RIP: 0010:foo_fn+0x1/0x2\n"
)
BUG_PART = b"Oops#1 Part1\n" + _TOLD
PANIC_PART = b"Panic#2 Part1\n" + _TOLD + b"<0>[   77.000001] Kernel panic - not syncing: Fatal exception\n"


def test_all_again_keeps_the_length_of_a_loop_whose_beginning_was_pruned(root: MakeRoot) -> None:
    """The last crash of it was collected as an oops, and then as a panic."""
    made = root()
    boots = [f"{n:08x}-8888-4777-8666-555555555555" for n in range(1, 7)]
    wall = 1_795_500_000.0
    for n in range(4):
        made.add(f"dmesg-erst-{7600000000000000000 + 10 * n}", BUG_PART % boots[n].encode(), mtime_ns=int(wall * 1e9))
        if n == 3:  # collected while it lives on
            made.reboot(boots[n])
            collect(made, wall_s=wall)
        made.add(f"dmesg-erst-{7600000000000000001 + 10 * n}", PANIC_PART % boots[n].encode(), mtime_ns=int(wall * 1e9))
        made.reboot(boots[n + 1])
        collect(made, wall_s=wall + 100)
        wall += 200
    *earlier, _ = made.crashes()
    archive = Archive(str(made.archive))
    before = archive.crash_summaries()[-1]["row"]
    assert (len(earlier), before["count"]) == (3, 4)
    with archive.lock():
        for path in earlier:  # as the archive's limits do
            for harvest_id in made.load(f"crashes/{path.name}/crash.json")["collected"]["harvests"]:
                shutil.rmtree(archive.harvest_directory(harvest_id))
            archive.remove_crash(path.name)
    analyze_all(made)
    assert Archive(str(made.archive)).crash_summaries()[-1]["row"] == before
