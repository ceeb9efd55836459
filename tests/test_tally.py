# SPDX-License-Identifier: Apache-2.0
"""Metrics of an archive: what they say, and that counters never go back, whatever is removed or killed."""

import json
import shutil
from pathlib import Path

import pytest

from pstored.archive import Archive
from pstored.config import Config
from pstored.delivery.dispatch import give_metrics
from pstored.delivery.metrics import ENDS, REASONS, Family
from pstored.delivery.outgoing import Health, Outgoing
from pstored.delivery.tally import FILE, measure
from pstored.host import Host
from pstored.sinks.settings import File
from tests.conftest import MakeRoot, Root
from tests.outgoing import ScriptedSink, copy_crashes, crash_id, revise
from tests.test_courier import run_killed

CONFIG = Config(outgoing={"file": File()})


@pytest.fixture
def crashed(root: MakeRoot) -> Root:
    """A tree with one crash."""
    return root("panic", backend="efi_pstore")


@pytest.fixture
def three(crashed: Root) -> Archive:
    """Three crashes."""
    return copy_crashes(crashed, 3)


def measured(root: Root, archive: Archive) -> dict[str, Family]:
    """The families by name."""
    with Outgoing(archive, "file").lock(wait=False):
        return {family.name: family for family in measure(Host(str(root.path)), archive, CONFIG, "file")}


def counts(family: Family) -> dict[str, float]:
    """Of a family with one label, what is more than nothing."""
    return {next(iter(labels.values())): number for labels, number in family.samples if number}


def panics(families: dict[str, Family]) -> float:
    """How many crashes there were; they are panics."""
    found = counts(families["pstored_crashes_total"])
    assert set(found) <= {"panic"}
    return found.get("panic", 0)


def value(families: dict[str, Family], name: str) -> float:
    """Of a family with one sample."""
    ((_, found),) = families[name].samples
    return found


def test_what_is_there_is_measured(crashed: Root, three: Archive) -> None:
    """All families, with what the archive and the sinks are like."""
    crashed.write("sys/module/pstore/parameters/backend", "ramoops\n")
    with Outgoing(three, "file").lock(wait=False):
        Outgoing(three, "file").set_health(Health(2, 5.0, "down", 7))
    found = measured(crashed, three)
    ((labels, one),) = found["pstored_build_info"].samples
    assert (labels["backend"], one) == ("ramoops", 1)
    assert panics(found) == 3
    size = sum(
        p.stat().st_size for d in ("harvests", "crashes") for p in (crashed.archive / d).rglob("*") if p.is_file()
    )
    assert value(found, "pstored_archive_bytes") == size
    assert value(found, "pstored_archive_limit_bytes") == Config().archive.max_bytes
    assert found["pstored_sink_pending"].samples == (({"sink": "file"}, 3),)
    assert found["pstored_sink_failures_total"].samples == (({"sink": "file"}, 7),)
    wall = crashed.load(f"crashes/{crash_id(2)}/crash.json")["time"]["wall"]
    assert value(found, "pstored_last_crash_timestamp_seconds") > 1.7e9, wall
    assert [f for f in found.values() if f.is_counter != f.name.endswith("_total")] == []


def test_a_crash_that_goes_stays_counted(crashed: Root, three: Archive) -> None:
    """The archive forgets, the counter does not; a later revision is no other crash."""
    assert panics(measured(crashed, three)) == 3
    revise(crashed, crash_id(1), 2)
    shutil.rmtree(three.crash_directory(crash_id(0)))
    found = measured(crashed, three)
    assert panics(found) == 3
    assert found["pstored_sink_pending"].samples == (({"sink": "file"}, 2),)
    start = found["pstored_crashes_total"].start_ns
    assert measured(crashed, three)["pstored_crashes_total"].start_ns == start


def test_killed_at_every_step_a_crash_is_counted_once(crashed: Root, three: Archive) -> None:
    """Before or after: never twice, and in the end all."""
    for at in range(1, 50):
        shutil.rmtree(three.outgoing, ignore_errors=True)
        status = run_killed(lambda: measured(crashed, three), at)
        assert panics(measured(crashed, three)) == 3
        if status == 0:
            break
    assert at > 5


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"start_ns": 1, "crashes": {"panic": "x"}, "ecc_corrected_bytes": 0, "known": []}']
)
def test_counters_that_are_damaged_begin_anew(crashed: Root, three: Archive, data: bytes) -> None:
    """With a start of their own, so that who adds them up sees that they did."""
    first = measured(crashed, three)["pstored_crashes_total"].start_ns
    Path(Outgoing(three, "file").directory, FILE).write_bytes(data)
    found = measured(crashed, three)["pstored_crashes_total"]
    assert counts(found) == {"panic": 3}
    assert found.start_ns > first


def test_corrected_bytes_are_added_up(crashed: Root, three: Archive) -> None:
    """Of all records, once; a report that cannot be read has none."""
    path = crashed.archive / "crashes" / crash_id(0) / "crash.json"
    crash = json.loads(path.read_bytes())
    crash["records"][0]["ecc"] = {"corrected_bytes": 5, "unrecoverable_blocks": 0}
    path.write_text(json.dumps(crash))
    assert value(measured(crashed, three), "pstored_ecc_corrected_bytes_total") == 5
    assert value(measured(crashed, three), "pstored_ecc_corrected_bytes_total") == 5


def test_an_empty_archive_has_numbers_too(root: MakeRoot) -> None:
    """None, and no newest crash."""
    made = root()
    archive = Archive(str(made.archive))
    with archive.lock():
        pass
    found = measured(made, archive)
    assert counts(found["pstored_crashes_total"]) == counts(found["pstored_boots_total"]) == {}
    assert [sample[0]["reason"] for sample in found["pstored_crashes_total"].samples] == sorted(REASONS)
    assert [sample[0]["end"] for sample in found["pstored_boots_total"].samples] == sorted(ENDS)
    assert found["pstored_last_crash_timestamp_seconds"].samples == ()
    assert value(found, "pstored_records") == 0


def test_a_sink_gets_metrics_daily_and_when_they_have_changed(crashed: Root, three: Archive) -> None:
    """A board on which nothing happens still says, once a day, that it is alive; and once a boot."""
    sink = ScriptedSink()

    def given(day: str) -> int:
        with Outgoing(three, "file").lock(wait=False):
            give_metrics(Host(str(crashed.path)), three, CONFIG, "file", lambda: sink, day=day)
        return len(sink.measured)

    assert [given(day) for day in ("2026-11-27", "2026-11-27", "2026-11-28", "2026-11-28")] == [1, 1, 2, 2]
    assert sink.measured[0] == sink.measured[1]
    crashed.reboot()
    assert given("2026-11-28") == 3
    shutil.rmtree(three.crash_directory(crash_id(0)))
    assert given("2026-11-28") == 4


def test_counters_of_a_version_that_counted_no_boots_go_on(crashed: Root, three: Archive) -> None:
    """What it counted stands, and since when."""
    measured(crashed, three)
    path = Path(Outgoing(three, "file").directory, FILE)
    old = json.loads(path.read_bytes())
    old["crashes"]["panic"] = 70
    path.write_text(json.dumps({key: old[key] for key in ("start_ns", "crashes", "ecc_corrected_bytes", "known")}))
    found = measured(crashed, three)
    assert panics(found) == 70
    assert found["pstored_crashes_total"].start_ns == old["start_ns"]
