# SPDX-License-Identifier: Apache-2.0
"""The archive's limits: what goes first, what goes last, and what stays."""

import contextlib
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fake_pstore.host import Host, write_host
from pstored.archive import Archive
from pstored.config import NOTHING, Config, Journal
from pstored.config import Archive as Limits
from pstored.delivery.outbox import Outbox
from pstored.delivery.outgoing import Item, Outgoing, State
from pstored.documents import dump_json
from pstored.ids import make_id
from pstored.quota import prune
from pstored.sinks.settings import File
from pstored.store import Store
from tests.conftest import BOOT_ID, MakeRoot, Pstored, Root, can_mount, forked, mount, require, run_pstored

SAME = b"Panic#1 Part1\n<0>[   %d.000001] Kernel panic - not syncing: the same\n"
DAY_NS = 86_400 * 10**9


def archive_of(root: Root, pstored: Pstored, number: int) -> Archive:
    """So many harvests, each with one crash; all of one signature."""
    for at in range(number):
        root.add_erst_crash(at, SAME % (100 + at))
        assert pstored("collect", root=root).status == 0
    archive = Archive(str(root.archive))
    assert len(archive.harvest_ids()) == len(archive.crash_summaries()) == number
    return archive


def pruned(
    archive: Archive,
    *,
    wall_ns: int | None = None,
    journal: bool = False,
    outgoing: Mapping[str, Any] = NOTHING,
    **limits: int,
) -> list[int]:
    """Which harvests go, by their number."""
    before = archive.harvest_ids()
    kept: dict[str, Any] = {"max_bytes": 0, "max_harvests": 0, **limits}
    config = Config(archive=Limits(**kept), journal=Journal(enabled=journal), outgoing=outgoing)
    with archive.lock():
        removed = prune(archive, config, store=Store("/nonexistent"), wall_ns=wall_ns)
    assert archive.harvest_ids() == [h for h in before if h not in removed]
    return sorted(before.index(h) for h in removed)


@pytest.fixture(scope="module")
def six_made(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Six crashes of one signature, made once."""
    path = tmp_path_factory.mktemp("six")
    write_host(path, Host(boot_id=BOOT_ID, kernel="6.12.1", btime=1_795_400_000))
    made = Root(path=path)
    archive_of(made, run_pstored, 6)
    return made


@pytest.fixture
def six(six_made: Root, tmp_path: Path) -> Archive:
    """Six crashes of one signature."""
    shutil.copytree(six_made.archive, tmp_path / "six")
    return Archive(str(tmp_path / "six"))


def test_no_limits_remove_nothing(six: Archive) -> None:
    """0 is no limit."""
    assert pruned(six) == []


def test_count_takes_the_oldest_but_keeps_the_first_of_its_kind(six: Archive) -> None:
    """The first crash of a signature goes last; the latest is the newest, which stays."""
    assert pruned(six, max_harvests=4) == [1, 2]
    assert len(six.crash_summaries()) == 4
    assert pruned(six, max_harvests=2) == [1, 2]
    assert pruned(six, max_harvests=1) == [0]


@pytest.mark.parametrize(("loose", "function"), [("a", None), (None, "f")])
def test_first_and_latest_of_each_signature_go_last(six: Archive, loose: str | None, function: str | None) -> None:
    """Of two bugs of one kind, both; of an older report, which has no signature, kind and function count."""
    for at in (1, 2, 3):
        crash = six.crash_summaries()[at]["id"]
        report = six.load_crash(crash)
        report["summary"].update(signature_loose=loose, function=function)
        Path(six.crash_directory(crash), "crash.json").write_bytes(dump_json(report))
    assert pruned(six, max_harvests=4) == [2, 4]  # of 0 4 5, and of 1 2 3
    assert pruned(six, max_harvests=3) == [0]


def test_what_is_still_in_the_store_stays(root: MakeRoot, pstored: Pstored) -> None:
    """A zone that is never erased, a backend that cannot: pruned, the record would be new again, and told once more."""
    made = root("console-only-crash", backend="ramoops")
    made.configure("[archive]\nmax_harvests = 1\n")
    assert pstored("collect", root=made).status == 0
    (first,) = made.harvests()
    (told,) = made.crashes()
    for number in (1, 2, 3):
        made.add_erst_crash(number, SAME % number)
        done = pstored("collect", root=made)
        assert done.status == 0
        assert told.name not in done.stdout
        assert first in made.harvests()
        assert len(made.harvests()) == 2
    made.add("console-ramoops-0", b"[    1.000000] another boot\n")  # its own has gone
    assert pstored("collect", root=made).status == 0
    assert first not in made.harvests()
    assert len(made.harvests()) == 1


def test_the_newest_always_stays(six: Archive) -> None:
    """However small the limits."""
    assert pruned(six, max_harvests=1, max_bytes=1, max_age_days=1, wall_ns=time.time_ns() + 999 * DAY_NS) == [
        0,
        1,
        2,
        3,
        4,
    ]


def sizes_of(archive: Archive) -> list[int]:
    """Bytes of each harvest with its crash."""
    sizes = []
    for harvest_id, crash in zip(archive.harvest_ids(), archive.crash_summaries(), strict=True):
        directories = (archive.harvest_directory(harvest_id), archive.crash_directory(crash["id"]))
        sizes.append(sum(e.stat().st_size for d in directories for e in os.scandir(d)))
    return sizes


def test_bytes(six: Archive) -> None:
    """As many go as must."""
    sizes = sizes_of(six)
    assert pruned(six, max_bytes=sum(sizes)) == []
    assert pruned(six, max_bytes=sum(sizes) - 1) == [1]
    assert pruned(six, max_bytes=sizes[0] + sizes[5]) == [1, 2, 3]


def test_sizes_are_remembered_as_long_as_they_are_true(six: Archive) -> None:
    """A file that came, grew or went counts; a cache that is wrong or gone costs only time."""
    index = Path(six.path, "sizes.index")
    assert pruned(six, max_bytes=sum(sizes_of(six))) == []  # it is a copy: each crash.json is looked at
    index.unlink()
    assert pruned(six, max_bytes=sum(sizes_of(six))) == []
    written = index.read_bytes()
    assert len(written.splitlines()) == 12
    assert pruned(six, max_bytes=sum(sizes_of(six))) == []
    assert index.read_bytes() == written
    crash_id = six.crash_summaries()[2]["id"]
    with six.lock():
        six.write(six.crash_directory(crash_id), {"delivered.json": b"x" * 500})
    limit = sum(sizes_of(six))
    assert pruned(six, max_bytes=2 * limit) == []
    assert index.read_bytes() == written  # far from the limit, nothing is looked at
    assert pruned(six, max_bytes=limit) == []
    assert len(index.read_bytes().splitlines()) == 13
    index.write_bytes(written.replace(b"\t3", b"\tx"))
    assert pruned(six, max_bytes=limit) == []
    index.unlink()
    assert pruned(six, max_bytes=limit - 1) == [1]


def test_crash_that_has_grown_is_measured_again(six: Archive) -> None:
    """However far from the limit it was: a boot that brings a dump with each harvest must not outgrow it unseen."""
    limit = 2 * sum(sizes_of(six))
    assert pruned(six, max_bytes=limit) == []
    crash_id = six.crash_summaries()[2]["id"]
    with six.lock():
        six.write(
            six.crash_directory(crash_id),
            {"dmesg.txt": bytes(limit), "crash.json": dump_json(six.load_crash(crash_id))},
        )
        six.add_crash_summary(crash_id)
    assert pruned(six, max_bytes=limit) == [1, 2]


def aged(archive: Archive, days: int) -> None:
    """Make the newest harvest younger than the others by so many days: its id, and what refers to it."""
    newest, crash = archive.harvest_ids()[-1], archive.crash_summaries()[-1]["id"]
    later = make_id(["later"], wall_ns=time.time_ns() + days * DAY_NS, after=None)
    os.rename(archive.harvest_directory(newest), archive.harvest_directory(later))
    report = Path(archive.crash_directory(crash), "crash.json")
    report.write_bytes(report.read_bytes().replace(newest.encode(), later.encode()))
    assert archive.crash_summaries()[-1]["harvests"] == [later]


def test_age_spares_what_is_valued(six: Archive) -> None:
    """Old ones go, but for the first of its kind and the newest."""
    aged(six, 12)
    ahead_ns = time.time_ns() + 999 * DAY_NS
    assert pruned(six, max_age_days=13, wall_ns=ahead_ns) == []
    assert pruned(six, max_age_days=11, wall_ns=ahead_ns) == [1, 2, 3, 4]


def test_clock_that_is_ahead_removes_nothing_by_age(six: Archive) -> None:
    """A clock years ahead of the newest harvest is not believed: age is measured against that."""
    assert pruned(six, max_age_days=10, wall_ns=time.time_ns() + 9999 * DAY_NS) == []


def test_clock_that_is_behind_the_newest_is_the_older(six: Archive) -> None:
    """A harvest of the future (the clock was wrong once) makes the others no older than they are."""
    aged(six, 9999)
    assert pruned(six, max_age_days=10) == []
    assert pruned(six, max_age_days=10, wall_ns=time.time_ns() + 11 * DAY_NS) == [1, 2, 3, 4]


def test_clock_in_1970_removes_nothing_by_age(six: Archive) -> None:
    """A board whose clock is wrong loses nothing."""
    assert pruned(six, max_age_days=1, wall_ns=0) == []


def test_groups_joined_by_a_shared_crash_go_together(six: Archive) -> None:
    """Crashes of harvests 0 and 1, 2 and 3, and then one of 1 and 2: all four harvests are one."""
    ids = six.harvest_ids()
    for crash, members in zip(six.crash_summaries(), ([0, 1], [2, 3], [1, 2]), strict=False):
        report = six.load_crash(crash["id"])
        report["summary"]["harvests"] = [ids[m] for m in members]
        Path(six.crash_directory(crash["id"]), "crash.json").write_bytes(dump_json(report))
    assert pruned(six, max_harvests=5) == [4]  # the first of its kind is in the four
    assert pruned(six, max_harvests=4) == [0, 1, 2, 3]
    assert len(six.crash_summaries()) == 1


def test_harvest_that_finds_no_room_prunes_and_tries_again(root: MakeRoot) -> None:
    """No room for the new records until the limits are lower: then collect makes some, and takes them; 73 before."""
    require(can_mount(), "mount namespaces need root")
    made = root()
    made.archive.mkdir()
    settings = "[archive]\nallow_volatile = true\n"

    def child() -> list[Any]:
        mount("-t", "tmpfs", "-o", "size=3M", "tmpfs", made.archive)
        made.configure(settings)
        for number, size in enumerate((1 << 20, 0)):
            made.add_erst_crash(number, SAME % number + os.urandom(size))
            assert run_pstored("harvest", root=made).status == 0
        with contextlib.suppress(OSError), open(made.archive / "hog", "wb", buffering=0) as f:
            while True:
                f.write(bytes(4096))
        name = made.add_erst_crash(2, SAME % 2)
        full = run_pstored("collect", root=made)
        left = made.names() == [name]
        made.configure(settings + "max_harvests = 1\n")
        return [full, left, run_pstored("collect", root=made), made.names(), len(made.harvests())]

    full, left, done, names, harvests = forked(child, new_mounts=True)
    assert (full.status, left) == (73, True)
    assert "No space left on device" in full.stderr
    assert names == []
    assert done.status == 0
    assert harvests == 1


def test_what_is_still_due_goes_last(six: Archive) -> None:
    """A crash that a sink is still to get outlives those that were delivered."""
    crash_id = six.crash_summaries()[2]["id"]
    with six.lock():
        Outbox(six).put("journal", crash_id, 1)
    assert pruned(six, max_harvests=3, journal=True) == [1, 3, 4]
    assert pruned(six, max_harvests=1, journal=True) == [0, 1]
    assert not list(Outbox(six).pending("journal"))


def test_what_an_outgoing_sink_is_still_to_get_goes_last(six: Archive) -> None:
    """As for the journal; what it has goes as any other."""
    ids = [s["id"] for s in six.crash_summaries()]
    outgoing = Outgoing(six, "file")
    with outgoing.lock(wait=False):
        for crash_id in ids:
            if crash_id != ids[2]:
                outgoing.put(Item(crash_id, 1), State.SENT, {})
    assert pruned(six, max_harvests=3, outgoing={"file": File()}) == [1, 3, 4]


def test_of_many_that_are_due_the_first_goes_last(six: Archive) -> None:
    """A crash loop while the sink is down: the first tells what it is, the others only how often."""
    assert pruned(six, max_harvests=2, outgoing={"file": File()}) == [1, 2, 3, 4]


def test_harvests_of_one_crash_go_together(root: MakeRoot, pstored: Pstored) -> None:
    """An oops harvested before its panic: both harvests and the crash go, or none."""
    made = root("oops-panic", backend="ramoops")
    panic = (made.store / "dmesg-ramoops-1").read_bytes()
    mtime_ns = (made.store / "dmesg-ramoops-1").stat().st_mtime_ns
    (made.store / "dmesg-ramoops-1").unlink()
    assert pstored("collect", root=made).status == 0
    made.add("dmesg-ramoops-1", panic, mtime_ns=mtime_ns)
    assert pstored("collect", root=made).status == 0
    assert (len(made.harvests()), len(made.crashes())) == (2, 1)
    made.add("dmesg-erst-7711219347287210001", SAME % 500)
    assert pstored("collect", root=made).status == 0
    archive = Archive(str(made.archive))
    assert pruned(archive, max_harvests=2) == [0, 1]
    assert len(archive.crash_summaries()) == 1
    assert pstored("verify", root=made).status == 0


def test_collect_says_what_it_removes(root: MakeRoot, pstored: Pstored) -> None:
    """A warning for each, and the rest verifies."""
    made = root()
    archive_of(made, pstored, 3)
    made.configure("[archive]\nmax_harvests = 2\n")
    made.add_erst_crash(9, SAME % 999)
    done = pstored("collect", root=made)
    assert done.status == 0
    assert done.stderr.count("over its limits") == 2
    assert len(made.harvests()) == len(made.crashes()) == 2
    assert pstored("verify", root=made).status == 0
