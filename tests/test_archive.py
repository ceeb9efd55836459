# SPDX-License-Identifier: Apache-2.0
"""The archive: ids, caches that heal, and reading what others may have damaged."""

import errno
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored import durable, steps
from pstored.archive import STRAGGLERS, Archive, Receipt
from pstored.crashes.report import Report
from pstored.documents import dump_json, seal
from pstored.errors import ArchiveError, DiskError, NotFoundError
from pstored.ids import is_id, make_id
from pstored.index import Index
from pstored.summary import _FIELDS, DAMAGED
from tests.conftest import MakeRoot, Pstored, Root, forked, require

ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}")
PANIC = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: %s\n"


@given(
    wall_ns=st.integers(min_value=-(10**20), max_value=10**21),
    before_ns=st.integers(min_value=-(10**20), max_value=10**21),
    digests=st.lists(st.text(), max_size=3),
)
def test_ids_have_one_form_and_always_rise(wall_ns: int, before_ns: int, digests: list[str]) -> None:
    """Whatever the clock says, an id has its form and sorts behind the one before it."""
    before = make_id(["x"], wall_ns=before_ns, after=None)
    made = make_id(digests, wall_ns=wall_ns, after=before)
    assert ID.fullmatch(before)
    assert ID.fullmatch(made)
    assert made > before or before.startswith("99991231T2359")


def test_id_at_the_end_of_time_and_months() -> None:
    """One second after the newest, over the ends of minutes and years; the same input gives the same id."""
    assert make_id([], wall_ns=0, after="20261231T235959Z-0123456789ab").startswith("20270101T000000Z-")
    assert make_id(["a"], wall_ns=5, after=None) == make_id(["a"], wall_ns=5, after=None)
    assert make_id(["a"], wall_ns=5, after=None) != make_id(["b"], wall_ns=5, after=None)


def collected(root: Root, pstored: Pstored, number: int = 3) -> Archive:
    """An archive with so many crashes, one a harvest."""
    for at in range(number):
        root.add_erst_crash(at, PANIC % b"%d" % at)
        assert pstored("collect", root=root).status == 0
    return Archive(str(root.archive))


def test_find_crash(root: MakeRoot, pstored: Pstored) -> None:
    """By id, by its beginning or its digest's, by place from the end; never one of several."""
    archive = collected(root(), pstored)
    ids = [s["id"] for s in archive.crash_summaries()]
    assert len(ids) == 3
    for crash_id in ids:
        assert archive.find_crash(crash_id) == crash_id
        assert archive.find_crash(crash_id.split("-")[1]) == crash_id
        assert archive.find_crash(crash_id[:16]) == crash_id
    assert [archive.find_crash(f"-{n}") for n in (1, 2, 3)] == ids[::-1]
    for wanted in ("-4", "-0", "", "zzz", "-", "--1", "20", "-" + "1" * 9, "-" + "1" * 30):
        with pytest.raises(NotFoundError):
            archive.find_crash(wanted)


@pytest.mark.parametrize(
    "cache",
    [
        b"",
        b"\x00" * 4096,
        b'{"id": "20261123T045102Z-0123456789ab", "revision": 1}\n',
        b'{"id": "%b"}\n',
        b'{"id": "%b", "broken": \n{"id": "%b", "to',
        b"[" * 100_000 + b"}\n",
    ],
)
def test_crash_cache_heals(root: MakeRoot, pstored: Pstored, cache: bytes) -> None:
    """Whatever stands in crashes.index, the list is that of the crashes."""
    made = root()
    archive = collected(made, pstored, 2)
    summaries = archive.crash_summaries()
    (made.archive / "crashes.index").write_bytes(cache.replace(b"%b", summaries[0]["id"].encode()))
    assert Archive(str(made.archive)).crash_summaries() == summaries
    (made.archive / "crashes.index").unlink()
    assert Archive(str(made.archive)).crash_summaries() == summaries
    assert pstored("list", root=made).status == 0


def test_harvest_cache_heals(root: MakeRoot, pstored: Pstored) -> None:
    """Lost, torn, or of a harvest that is gone: the keys are those of the harvests."""
    made = root()
    archive = collected(made, pstored, 2)
    keys = archive.known_keys()
    assert sorted(keys.values()) == [[path.name] for path in made.harvests()]
    index = made.archive / "harvests.index"
    whole = index.read_bytes()
    for data in (
        b"",
        whole[:50],
        whole[: len(whole) // 2 + 3],
        whole[: len(whole) // 4] + whole[len(whole) // 2 :],
        whole.replace(b":", b"\0"),
        whole + b"20261123T045102Z-0123456789ab\tx\t20261123T045102Z-0123456789ab\n",
        b'{"id": "20261123T045102Z-0123456789ab", "keys": ["x"]}\n' + whole,  # as it was at first
    ):
        index.write_bytes(data)
        assert Archive(str(made.archive)).known_keys() == keys


def test_crashes_are_looked_for_once_while_the_lock_is_held(root: MakeRoot, pstored: Pstored) -> None:
    """Then nobody else writes; what is added and removed counts at once, and others' work again afterwards."""
    made = root()
    archive = collected(made, pstored, 3)
    ids = [s["id"] for s in archive.crash_summaries()]
    with archive.lock():
        assert [s["id"] for s in archive.crash_summaries()] == ids
        archive.remove_crash(ids[0])
        (made.archive / "crashes.index").unlink()
        shutil.rmtree(archive.crash_directory(ids[1]))
        assert [s["id"] for s in archive.crash_summaries()] == ids[1:]
        report = archive.load_crash(ids[2])
        report["summary"]["title"] = "made anew"
        archive.write(archive.crash_directory(ids[2]), {"crash.json": dump_json(report)})
        archive.add_crash_summary(ids[2])
        assert [s["title"] for s in archive.crash_summaries()][1:] == ["made anew"]
    assert [s["id"] for s in archive.crash_summaries()] == ids[2:]


def test_report_that_calls_itself_another_crash_is_its_own(root: MakeRoot, pstored: Pstored) -> None:
    """Whatever id stands in the summary of a report that somebody has changed: no other crash's line is its."""
    made = root()
    archive = collected(made, pstored, 2)
    mine, other = archive.crash_summaries()
    report = made.crashes()[0] / "crash.json"
    document = json.loads(report.read_bytes())
    for name in (other["id"], 7, "a\0b", None):
        document["summary"] |= {"id": name, "title": "another"}
        report.write_bytes(dump_json(document))
        listed = archive.crash_summaries()
        assert [(s["id"], s["title"]) for s in listed] == [(mine["id"], "another"), (other["id"], other["title"])]
        assert archive.crash_summaries() == listed


def test_receipt_that_is_none_costs_its_harvest_and_no_other(root: MakeRoot, pstored: Pstored) -> None:
    """A harvest.json that somebody has changed: its records count as not archived, and the next pass is done."""
    made = root()
    archive = collected(made, pstored, 2)
    first, second = made.harvests()
    document = json.loads((first / "harvest.json").read_bytes())
    (made.archive / "harvests.index").unlink()
    for field, value in (("key", []), ("name", {}), ("size", "9"), ("mtime_ns", None), ("error", 1)):
        records = [r | {field: value} for r in document["records"]]
        (first / "harvest.json").write_bytes(dump_json(document | {"records": records}))
        with pytest.raises(ArchiveError, match="no receipt"):
            archive.load_harvest(first.name)
        assert set(*archive.known_keys().values()) == {second.name}
        assert pstored("harvest", root=made).status == 0


def test_report_that_was_written_before_the_disk_failed_counts(root: MakeRoot, pstored: Pstored) -> None:
    """While the lock is held, too: the flush of a directory fails when its files have their names."""
    made = root()
    archive = collected(made, pstored, 2)
    crash_id = archive.crash_ids()[0]
    report = archive.load_crash(crash_id)
    report["summary"]["title"] = "made anew"

    def child() -> list[str]:
        def hook(name: str) -> None:
            if name == f"fsync {archive.crash_directory(crash_id)}":
                raise OSError(errno.EIO, "the disk fails")

        with archive.lock():
            archive.crash_summaries()
            steps.hook = hook
            with pytest.raises(DiskError):
                archive.write(archive.crash_directory(crash_id), {"crash.json": dump_json(report)})
            return [s["title"] for s in archive.crash_summaries()]

    assert forked(child)[0] == "made anew"


def test_crash_that_goes_while_it_is_listed_is_not_damaged(root: MakeRoot, pstored: Pstored) -> None:
    """Readers take no lock: between the directory and the report the archive's limits may have taken it."""
    made = root()
    archive = collected(made, pstored, 2)
    gone, stays = archive.crash_ids()
    shutil.rmtree(archive.crash_directory(gone))
    with archive.lock():
        assert [s["id"] for s in archive.crash_summaries()] == [stays]
        archive.add_crash_summary(gone)
        assert [s["id"] for s in archive.crash_summaries()] == [stays]


def test_harvest_that_cannot_be_looked_at_is_not_passed_over(root: MakeRoot, pstored: Pstored) -> None:
    """Else it would never be analyzed, and nobody would be told."""
    made = root()
    archive = collected(made, pstored, 1)
    (path,) = made.harvests()
    (made.archive / "harvests" / make_id(["link"], wall_ns=0, after=path.name)).symlink_to(path)
    assert list(archive.newest_harvests()) == [path.name]

    def child() -> None:
        os.chmod(made.archive / "harvests", 0o444)  # names can be listed, and nothing else
        os.setgid(65534)
        os.setuid(65534)
        with pytest.raises(DiskError, match=r"cannot look at .*Permission denied"):
            list(archive.newest_harvests())

    for parent in [made.archive, *made.archive.parents]:
        os.chmod(parent, os.stat(parent).st_mode | 0o55)
    require(os.geteuid() == 0, "another user needs root")
    forked(child)


def test_lock_keeps_others_out_and_clears_litter(tmp_path: Path) -> None:
    """A second writer waits; what killed runs left, wherever our temporary names are made, is gone inside."""
    archive = Archive(str(tmp_path / "a"))
    with archive.lock():
        pass
    crash = tmp_path / "a/crashes/20261123T045102Z-0123456789ab"
    harvest = tmp_path / "a/harvests/20261123T045102Z-0123456789ab"
    for directory in (crash, harvest, tmp_path / "a/harvests/.new-harvest", tmp_path / "a/crashes/.new-gone"):
        directory.mkdir(parents=True)
    for directory in (
        tmp_path / "a",
        tmp_path / "a/harvests",
        tmp_path / "a/harvests/.new-harvest",
    ):
        (directory / ".new-x").write_bytes(b"1")
    with archive.lock():
        assert list((tmp_path / "a").rglob(".new-*")) == []

        def second() -> bool:
            import fcntl

            fd = os.open(archive.path, os.O_RDONLY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

        assert forked(second)
    assert crash.exists()
    assert harvest.exists()


def test_unanalyzed(tmp_path: Path) -> None:
    """Every harvest without an analysis, oldest first, also one in the middle."""
    archive = Archive(str(tmp_path))
    ids = [f"2026112{n}T045102Z-0123456789ab" for n in range(4)]
    for number, harvest_id in enumerate(ids):
        durable.make_directory(archive.harvest_directory(harvest_id))
        if number == 0:
            archive.write(archive.harvest_directory(harvest_id), {"analyzed.json": b"{}"})
    assert archive.unanalyzed() == ids[1:]


@pytest.mark.parametrize(
    "data", [b"{}", b'{"records": 1}', b'{"records": [1]}', b'{"records": [{"name": "x"}]}', b"rubbish"]
)
def test_harvest_that_is_none(tmp_path: Path, data: bytes) -> None:
    """An ArchiveError that names the file."""
    archive = Archive(str(tmp_path))
    directory = Path(archive.harvest_directory("20261123T045102Z-0123456789ab"))
    directory.mkdir(parents=True)
    (directory / "harvest.json").write_bytes(data)
    (directory / "erased.json").write_bytes(data)
    (directory / "records.tar").write_bytes(data)
    with pytest.raises(ArchiveError, match=r"harvest\.json"):
        archive.load_harvest(directory.name)
    assert set(archive.load_erased(directory.name)) <= {"x"}
    with pytest.raises(ArchiveError, match=r"records\.tar"):
        list(archive.read_records(directory.name))


def test_receipt_fields_are_the_format() -> None:
    """harvest.json is a public interface: a field that goes, or changes its name, needs a new schema."""
    assert Receipt._fields == ("name", "size", "sha256", "content_sha256", "key", "mtime_ns", "error")


def test_verify_names_what_is_damaged(root: MakeRoot, pstored: Pstored) -> None:
    """Sound: 0. A record, a text, a report or a receipt that is not as written: 1, and named."""
    made = root()
    collected(made, pstored, 4)
    assert pstored("verify", root=made).status == 0
    one, two, three, _ = made.harvests()
    (one / "records.tar").write_bytes((one / "records.tar").read_bytes().replace(b"Kernel panic", b"Kernel picnic"))
    (two / "records.tar").unlink()
    (three / "harvest.json").write_bytes(b"{}")
    (made.crashes()[3] / "dmesg.txt").write_bytes(b"something else")
    (made.crashes()[2] / "crash.json").write_bytes(b"rubbish")
    done = pstored("verify", "--json", root=made)
    assert done.status == 1
    problems = "\n".join(done.json["problems"])
    for directory in (one, two, three, made.crashes()[3], made.crashes()[2]):
        assert directory.name in problems


def test_verify_names_crashes_that_are_missing(root: MakeRoot, pstored: Pstored) -> None:
    """A crash whose directory is gone: named, with what to do; doing it makes verify content."""
    made = root()
    collected(made, pstored, 2)
    gone = made.crashes()[0]
    shutil.rmtree(gone)
    done = pstored("verify", "--json", root=made)
    assert done.status == 1
    assert done.json["problems"] == [f"crash {gone.name} is missing; `pstored analyze --all` makes it again"]
    assert pstored("analyze", "--all", root=made).status == 0
    assert gone.is_dir()
    assert pstored("verify", root=made).status == 0


@pytest.mark.parametrize(
    "data", [b"", b"rubbish", b"{}", b"[]", b'{"summary": 1}', b'{"summary": {}}', b'{"files": 1}']
)
def test_report_that_is_damaged_is_a_row_and_a_problem(root: MakeRoot, pstored: Pstored, data: bytes) -> None:
    """`list` shows a row that says so, `verify` names it, the next crash is collected, and analysis makes it again."""
    made = root()
    collected(made, pstored, 2)
    damaged, sound = made.crashes()
    (damaged / "crash.json").write_bytes(data)
    for arguments in (("list",), ("list", "--json")):
        done = pstored(*arguments, root=made)
        assert (done.status, done.stderr) == (0, "")
        assert "report is damaged" in done.stdout
    assert [s["id"] for s in done.json["crashes"]] == [damaged.name, sound.name]
    verified = pstored("verify", "--json", root=made)
    assert "Traceback" not in verified.stderr
    assert verified.status == 1
    assert any(damaged.name in problem for problem in verified.json["problems"])
    shown = pstored("show", damaged.name, root=made)
    assert (shown.status, "Traceback" in shown.stderr) == (73, False)
    made.add_erst_crash(7, PANIC % b"the next")
    assert pstored("collect", root=made).status == 0
    assert len(made.crashes()) == 3
    assert pstored("analyze", "--all", root=made).status == 0
    assert "damaged" not in pstored("list", root=made).stdout
    assert pstored("verify", root=made).status == 0


@pytest.mark.parametrize("field", sorted(_FIELDS))
def test_summary_with_a_value_that_is_none_of_ours_is_damaged(root: MakeRoot, pstored: Pstored, field: str) -> None:
    """Of any field: it is read by the list, the history of boots and the sinks, and must not end them."""
    made = root()
    archive = collected(made, pstored, 1)
    report = made.crashes()[0] / "crash.json"
    document = json.loads(report.read_bytes())
    values: list[object] = [{}, [7], 7.5]
    for value in values:
        document["summary"][field] = value
        report.write_bytes(dump_json(document))
        assert ["report is damaged" in s["title"] for s in archive.crash_summaries()] == [True]


def test_boot_that_is_none_does_not_end_collect(root: MakeRoot, pstored: Pstored) -> None:
    """In the summary of a report that somebody has changed: what comes is collected and listed."""
    made = root()
    collected(made, pstored, 1)
    report = made.crashes()[0] / "crash.json"
    document = json.loads(report.read_bytes())
    document["summary"]["boot"] = {}
    report.write_bytes(dump_json(document))
    made.add_erst_crash(7, PANIC % b"the next")
    assert pstored("collect", root=made).status == 0
    assert len(made.crashes()) == 2
    assert pstored("boots", root=made).status == 0


def test_stale_line_of_the_crash_index_is_replaced(root: MakeRoot, pstored: Pstored) -> None:
    """Lines are not flushed, so an older may come back: the state of crash.json in it tells."""
    made = root()
    archive = collected(made, pstored, 2)
    summaries = archive.crash_summaries()
    report = made.crashes()[0] / "crash.json"
    state = report.stat()
    assert summaries[0].state == f"{state.st_mtime_ns}-{state.st_size}-{state.st_ino}"
    index = made.archive / "crashes.index"
    old = index.read_bytes()
    changed = json.loads(report.read_bytes())
    changed["summary"]["title"] = "made anew"
    (made.archive / "new").write_bytes(dump_json(changed))
    (made.archive / "new").rename(report)
    assert [s["title"] for s in archive.crash_summaries()] == ["made anew", summaries[1]["title"]]
    assert index.read_bytes() == old  # a reader, which others do not wait for, writes nothing
    with archive.lock():
        assert archive.crash_summaries()[0]["title"] == "made anew"
    assert b"made anew" in index.read_bytes().splitlines()[-1]
    index.write_bytes(old)
    assert archive.crash_summaries()[0]["title"] == "made anew"


def test_crashes_are_remembered_without_a_look_at_each(root: MakeRoot, pstored: Pstored) -> None:
    """As we wrote them: a collect opens no old crash; a look at one tells whether somebody has changed it."""
    made = root()
    archive = collected(made, pstored, 3)
    summaries = archive.crash_summaries()
    reports = [path / "crash.json" for path in made.crashes()]
    reports[0].write_bytes(reports[0].read_bytes().replace(b"Kernel panic", b"by hand"))
    reports[1].write_bytes(b"{")
    reports[2].unlink()
    remembered = archive.remembered_crashes()
    assert [s["title"] for s in remembered] == [s["title"] for s in summaries]
    assert remembered == summaries
    assert ["by hand" in archive.look_again(s)["title"] for s in remembered] == [True, False, False]
    assert [archive.look_again(s)["harvests"] != [] for s in remembered] == [True, False, False]
    with archive.lock():
        assert [archive.look_again(s) for s in remembered] == archive.crash_summaries()
        assert archive.remembered_crashes() == archive.crash_summaries()


@pytest.mark.parametrize("rest", ["{}", "[]", "{", '{"title": 7}', "," * 9, "[" * 100_000])
def test_line_that_is_wrong_where_it_is_decoded(root: MakeRoot, pstored: Pstored, rest: str) -> None:
    """Of another version, since its sum is right: told as damaged, and that is all."""
    made = root()
    archive = collected(made, pstored, 2)
    summaries = archive.crash_summaries()
    index = made.archive / "crashes.index"
    words = [line.split("\t")[:-2] for line in index.read_text().splitlines()]
    index.unlink()
    Index(str(index)).add(*([*line, rest] for line in words))
    assert [s["boot"] for s in archive.remembered_crashes()] == [s["boot"] for s in summaries]
    for remembered, summary in zip(archive.remembered_crashes(), summaries, strict=True):
        assert (remembered["title"], remembered["harvests"]) == (DAMAGED["title"], [])
        assert remembered["id"] == summary["id"]


def test_replaced_report_has_no_line_until_the_next(root: MakeRoot, pstored: Pstored) -> None:
    """Durably, before it is replaced: whatever a power cut takes of what is not flushed, no older line is believed."""
    made = root()
    archive = collected(made, pstored, 2)
    crash_id = archive.crash_ids()[0]
    report = archive.load_crash(crash_id)
    report["summary"]["title"] = "made anew"
    directory = archive.crash_directory(crash_id)

    def child() -> tuple[list[str], list[str]]:
        done: list[str] = []
        steps.hook = done.append
        with archive.lock():
            before = [s["id"] for s in archive.remembered_crashes()]
            archive.write(directory, {"crash.json": dump_json(report)})
        return before, done

    before, done = forked(child)
    assert before == archive.crash_ids()
    index = str(made.archive / "crashes.index")
    at = [done.index(f"{step} {path}") for step, path in (("append", index), ("fsync", index))]
    at += [done.index(f"fsync {made.archive}"), done.index(f"rename {directory}/crash.json")]
    assert at == sorted(at)
    assert archive.remembered_crashes()[0]["title"] == "made anew"  # though its line was never written


def test_reports_of_before_there_were_signatures_are_listed_shown_and_made_anew(
    root: MakeRoot, pstored: Pstored
) -> None:
    """An old archive goes on working: nothing in it is called damaged, and what it lacks is null."""
    made = root("lab-erst")
    assert pstored("collect", root=made).status == 0
    new = [path.read_bytes() for path in sorted(made.archive.glob("crashes/*/crash.json"))]
    for path in made.crashes():
        document = json.loads((path / "crash.json").read_bytes())
        for key in ("event", "other_events"):
            del document[key]
        for key in ("signature", "signature_loose"):
            del document["summary"][key]
        (path / "crash.json").write_bytes(dump_json(seal({k: v for k, v in document.items() if k != "digest"})))
        Report.model_validate(document)
    for cached in (False, True):
        listed = pstored("list", "--json", root=made)
        assert [(s["signature"], s["signature_loose"]) for s in listed.json["crashes"]] == [(None, None)] * len(new)
        assert "damaged" not in listed.stdout, cached
    assert pstored("verify", root=made).status == 0
    assert pstored("show", "-1", root=made).status == 0
    assert pstored("collect", root=made).status == 0
    assert pstored("analyze", "--all", root=made).status == 0
    assert [path.read_bytes() for path in sorted(made.archive.glob("crashes/*/crash.json"))] == new


def test_harvest_whose_analysis_fails(root: MakeRoot, pstored: Pstored) -> None:
    """Noted in analyzed.json, exit 1, the next harvest is analyzed all the same; `analyze --all` tries again."""
    made = root()
    made.add_erst_crash(1, PANIC % b"one")
    assert pstored("harvest", root=made).status == 0
    (bundle,) = made.harvests()
    whole = (bundle / "records.tar").read_bytes()
    (bundle / "records.tar").write_bytes(b"rubbish")
    made.add_erst_crash(2, PANIC % b"two")
    done = pstored("collect", root=made)
    assert done.status == 1
    assert f"warning: harvest {bundle.name} cannot be analyzed, its records are archived: " in done.stderr
    assert "records.tar" in json.loads((bundle / "analyzed.json").read_bytes())["failed"]
    assert json.loads((made.harvests()[1] / "analyzed.json").read_bytes())["failed"] is None
    assert len(made.crashes()) == 1
    again = pstored("analyze", "--all", "--json", root=made)
    assert (again.status, len(again.json["failures"])) == (1, 1)
    assert len(made.crashes()) == 1
    (bundle / "records.tar").write_bytes(whole)
    assert pstored("analyze", "--all", root=made).status == 0
    assert json.loads((bundle / "analyzed.json").read_bytes())["failed"] is None
    assert len(made.crashes()) == 2


def test_harvest_that_cannot_be_read_now_is_analyzed_later(root: MakeRoot, pstored: Pstored) -> None:
    """A disk that fails is no record that is damaged: exit 73, others are analyzed, and the next run tries again."""
    made = root()
    made.add_erst_crash(1, PANIC % b"one")
    assert pstored("harvest", root=made).status == 0
    (bundle,) = made.harvests()
    (bundle / "records.tar").rename(bundle / "aside")
    (bundle / "records.tar").mkdir()
    made.add_erst_crash(2, PANIC % b"two")
    done = pstored("collect", root=made)
    assert done.status == 73
    assert f"warning: harvest {bundle.name} cannot be analyzed, its records are archived: cannot read " in done.stderr
    assert "records.tar': Is a directory; the next run tries again" in done.stderr
    assert not (bundle / "analyzed.json").exists()
    assert len(made.crashes()) == 1
    (bundle / "records.tar").rmdir()
    (bundle / "aside").rename(bundle / "records.tar")
    assert pstored("collect", root=made).status == 0
    assert len(made.crashes()) == 2
    assert pstored("verify", root=made).status == 0


def test_stragglers_are_looked_for_among_the_newest(tmp_path: Path) -> None:
    """A harvest that was passed over is tried again, but not for ever: that would be a look at all of them."""
    archive = Archive(str(tmp_path))
    ids = [f"20261123T{n:06d}Z-0123456789ab" for n in range(STRAGGLERS + 3)]
    for harvest_id in ids:
        durable.make_directory(archive.harvest_directory(harvest_id))
        if harvest_id not in (ids[1], ids[5]):
            archive.write(archive.harvest_directory(harvest_id), {"analyzed.json": b"{}"})
    assert archive.unanalyzed() == [ids[5]]


def test_report_that_cannot_be_read_now_is_not_damaged_for_ever(root: MakeRoot, pstored: Pstored) -> None:
    """The list says so as long as it is so: that is not kept in the cache."""
    made = root()
    collected(made, pstored, 1)
    report = made.crashes()[0] / "crash.json"
    report.rename(report.with_name("aside"))
    report.mkdir()
    assert "is damaged" in pstored("list", root=made).stdout
    report.rmdir()
    report.with_name("aside").rename(report)
    assert "Kernel panic" in pstored("list", root=made).stdout


def test_exported_records_have_their_exact_times(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """As in records.tar: decimals that any tar reads, to the nanosecond."""
    made = root()
    made.add("dmesg-efi-1", PANIC % b"x", mtime_ns=1_795_000_000_123_456_789)
    assert pstored("collect", root=made).status == 0
    assert pstored("export", "-1", "-o", str(tmp_path / "e.tar"), root=made).status == 0
    subprocess.run(["tar", "-xf", tmp_path / "e.tar", "-C", tmp_path], check=True)
    (record,) = (tmp_path / made.crashes()[0].name).rglob("dmesg-efi-1")
    assert record.stat().st_mtime_ns == 1_795_000_000_123_456_789


def test_entry_of_a_crash_that_is_no_more_goes_with_it(root: MakeRoot, pstored: Pstored) -> None:
    """What the analysis of all no longer finds is not due either: nobody could ever deliver it."""
    made = root()
    made.configure("[journal]\nenabled = true\n")
    made.add_erst_crash(1, PANIC % b"x")
    pstored("collect", root=made)
    (crash,) = made.crashes()
    stale = crash.parent / f"{crash.name[:-1]}{'0' if crash.name[-1] != '0' else '1'}"
    shutil.copytree(crash, stale)
    entry = made.archive / "outbox/journal" / f"{stale.name}.json"
    shutil.copy(made.archive / "outbox/journal" / f"{crash.name}.json", entry)
    pstored("analyze", "--all", root=made)
    assert not stale.exists()
    assert not entry.exists()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "20261123T063707Z",
        "20261123T063707Z-a1e203f3e72",
        "20261123T063707Z-a1e203f3e7222",
        "20261123T063707Z-A1E203F3E722",
        "20261123 063707Z-a1e203f3e722",
        "2026112\u0663T063707Z-a1e203f3e722",
        "../../etc/passwd-a1e203f3e722",
        ".new-20261123T063707Z-a1e203f3e722",
    ],
)
def test_what_is_no_id(name: str) -> None:
    """Of nothing in the archive, and no way out of it."""
    assert is_id("20261123T063707Z-a1e203f3e722")
    assert not is_id(name)
