# SPDX-License-Identifier: Apache-2.0
"""The delivery: one sink after the other, oldest crash first, and nothing lost on the way."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from fake_pstore.host import Host, write_host
from pstored import deliver as module
from pstored import host
from pstored.archive import Archive
from pstored.config import Config, Journal
from pstored.deliver import Delivery, deliver
from pstored.errors import SinkError
from pstored.sinks.journal import fields
from tests.conftest import BOOT_ID, ChildFailedError, MakeRoot, Pstored, Root, forked, run_pstored

CONFIG = Config(journal=Journal(enabled=True))
PANIC = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: number %d\n"


class ListSink:
    """Keeps what it is given; fails as told."""

    def __init__(self, failures: dict[int, SinkError | None]) -> None:
        self.calls = 0
        self.failures = failures
        self.got: list[tuple[str, bytes, str]] = []

    def deliver(self, crash: dict[str, Any], *, text: bytes, report_path: str) -> dict[str, Any] | None:
        """Take one crash."""
        self.calls += 1
        failure = self.failures.get(self.calls)
        if failure is not None:
            raise failure
        if self.calls in self.failures:
            return None
        self.got.append((crash["id"], text, report_path))
        return {"number": self.calls}


@pytest.fixture(scope="module")
def three_made(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Three crashes, all due, made once: there is no journald in a tree."""
    path = tmp_path_factory.mktemp("three")
    write_host(path, Host(boot_id=BOOT_ID, kernel="6.12.1", btime=1_795_400_000))
    made = Root(path=path)
    for number in range(3):
        made.add_erst_crash(number, PANIC % number)
        assert run_pstored("collect", root=made).status == 0
    made.configure("[journal]\nenabled = true\nrestore = false\n")
    assert run_pstored("analyze", "--all", root=made).status == 0
    assert len(list((made.archive / "outbox/journal").iterdir())) == 3
    return made


@pytest.fixture
def three(three_made: Root, tmp_path: Path) -> Root:
    """Three crashes, all due."""
    shutil.copytree(three_made.path, tmp_path / "three")
    return Root(path=tmp_path / "three")


def run(
    root: Root, failures: dict[int, SinkError | None] | None = None
) -> tuple[Delivery, list[tuple[str, bytes, str]]]:
    """A delivery to a ListSink."""

    def child() -> tuple[Delivery, list[tuple[str, bytes, str]]]:
        sink = ListSink(failures or {})
        module.SINKS["journal"] = lambda *_: sink
        archive = Archive(str(root.archive))
        with archive.lock():
            return deliver(host.Host(str(root.path)), archive, CONFIG), sink.got

    return forked(child)


def ids(root: Root) -> list[str]:
    """The crashes, oldest first."""
    return [path.name for path in root.crashes()]


def test_all_are_delivered_oldest_first(three: Root) -> None:
    """With their text and where the report is; then nothing is due."""
    delivery, got = run(three)
    assert [crash_id for crash_id, _, _ in got] == ids(three)
    for number, (crash_id, text, path) in enumerate(got):
        assert b"number %d" % number in text
        assert path == str(three.archive / "crashes" / crash_id / "crash.json")
    assert delivery.exit_status() == 0
    again, got = run(three)
    assert (again, got) == (Delivery((), ()), [])


def test_sink_that_is_down_delays_the_rest(three: Root) -> None:
    """The first is delivered, the second fails, the third is not even tried; exit 75; later all are there, once."""
    delivery, got = run(three, {2: SinkError("down")})
    assert [crash_id for crash_id, _, _ in got] == ids(three)[:1]
    assert [e.crash_id for e in delivery.pending] == ids(three)[1:]
    assert delivery.exit_status() == 75
    delivery, got = run(three)
    assert sorted(crash_id for crash_id, _, _ in got) == ids(three)[1:]
    assert delivery.exit_status() == 0


def test_a_crash_whose_time_has_not_come_waits_in_silence(three: Root) -> None:
    """Nothing is wrong, nobody is held up; it is tried at the next delivery."""
    delivery, got = run(three, {1: None})
    assert [crash_id for crash_id, _, _ in got] == ids(three)[1:]
    assert (delivery.pending, delivery.exit_status()) == ((), 0)
    _, got = run(three)
    assert [crash_id for crash_id, _, _ in got] == ids(three)[:1]


def test_a_crash_that_always_fails_holds_up_nobody_for_ever(three: Root) -> None:
    """What has failed least often is tried first."""
    first, second, third = ids(three)
    run(three, {1: SinkError("this one")})
    _, got = run(three, {3: SinkError("this one")})
    assert [crash_id for crash_id, _, _ in got] == [second, third]
    _, got = run(three)
    assert [crash_id for crash_id, _, _ in got] == [first]


def test_refused_crash_is_kept_and_holds_up_nobody(three: Root) -> None:
    """Refused for good: said, not tried again, and the others are delivered; that alone is no exit 75."""
    delivery, got = run(three, {1: SinkError("too large", retry=False)})
    assert [crash_id for crash_id, _, _ in got] == ids(three)[1:]
    assert [(e.crash_id, e.refused) for e in delivery.pending] == [(ids(three)[0], True)]
    assert delivery.exit_status() == 0
    delivery, got = run(three)
    assert got == []
    assert [e.error for e in delivery.pending] == ["too large"]


@pytest.mark.parametrize("data", [None, b"", b"rubbish", b"{}", b'{"id": "x"}'])
def test_crash_that_cannot_be_read_holds_up_nobody(three: Root, data: bytes | None) -> None:
    """A report that is gone or damaged is set aside, with a hint; the others are delivered; made again, it is due."""
    report = three.crashes()[0] / "crash.json"
    report.unlink() if data is None else report.write_bytes(data)
    delivery, got = run_reading(three)
    assert got == ids(three)[1:]
    assert [(e.crash_id, e.refused) for e in delivery.pending] == [(ids(three)[0], True)]
    assert "`pstored analyze --all` makes it again" in str(delivery.pending[0].error)
    assert delivery.exit_status() == 0
    again, got = run_reading(three)
    assert (got, again.delivered) == ([], ())
    assert [(e.refused, e.attempts) for e in again.pending] == [(True, 1)]  # set aside: not tried again
    said = run_pstored("deliver", root=three)
    assert (said.status, said.stderr.count("warning: ")) == (0, 1)
    run_pstored("analyze", "--all", root=three)
    delivery, got = run_reading(three)
    assert got[:1] == ids(three)[:1]
    assert delivery.pending == ()


@pytest.mark.parametrize("name", ["crash.json", "delivered.json"])
def test_crash_that_cannot_be_read_now_is_tried_again(three: Root, name: str) -> None:
    """A disk that fails is no damage: nothing is set aside, and no receipt of another sink forgotten."""
    file = three.crashes()[0] / name
    file.rename(file.with_name("aside")) if file.exists() else file.with_name("aside").write_bytes(RECEIPTS)
    file.mkdir()
    if name == "crash.json":
        delivery, got = run_reading(three)
        assert (got, [e.refused for e in delivery.pending]) == ([], [False] * 3)
        assert delivery.exit_status() == 75
    else:
        with pytest.raises(ChildFailedError, match="DiskError"):
            run_reading(three)
    file.rmdir()
    file.with_name("aside").rename(file)
    delivery, got = run_reading(three)
    assert sorted(got) == ids(three)
    delivered = three.load(f"crashes/{ids(three)[0]}/delivered.json")["sinks"]
    assert delivered.keys() == {"journal"} | ({"other"} if name == "delivered.json" else set())


RECEIPTS = b'{"schema": 1, "sinks": {"other": {"revision": 1, "receipt": {}}}}'


def test_outbox_that_cannot_be_listed_is_not_empty(three: Root) -> None:
    """Else a collect would say that all is done."""
    three.configure("[journal]\nenabled = true\n")
    outbox = three.archive / "outbox/journal"
    outbox.rename(outbox.with_name("aside"))
    outbox.touch()
    done = run_pstored("deliver", root=three)
    assert done.status == 73
    assert f"error: cannot list '{outbox}': Not a directory" in done.stderr


def run_reading(root: Root) -> tuple[Delivery, list[str]]:
    """A delivery to a sink that looks into the crash; with the ids it took."""

    def child() -> tuple[Delivery, list[str]]:
        sink = ReadingSink({})
        module.SINKS["journal"] = lambda *_: sink
        archive = Archive(str(root.archive))
        with archive.lock():
            return deliver(host.Host(str(root.path)), archive, CONFIG), [crash_id for crash_id, _, _ in sink.got]

    return forked(child)


class ReadingSink(ListSink):
    """Needs what every sink needs of a crash."""

    def deliver(self, crash: dict[str, Any], *, text: bytes, report_path: str) -> dict[str, Any] | None:
        """Take one crash."""
        fields(crash, text=text, report_path=report_path, cap=100)
        return super().deliver(crash, text=text, report_path=report_path)


def test_hint_is_kept_with_the_error_and_said_once(three: Root) -> None:
    """What to do stands in the entry; three crashes that wait for one reason are one warning."""
    delivery, _ = run(three, {1: SinkError("down", hint="start it")})
    assert delivery.pending[0].error == "down (start it)"
    entry = three.load(f"outbox/journal/{ids(three)[0]}.json")
    assert (entry["error"], entry["attempts"], entry["refused"]) == ("down (start it)", 1, False)


def test_journal_is_off_below_a_root(root: MakeRoot, pstored: Pstored) -> None:
    """--root is another system: nothing is put into this host's journal unless configured."""
    made = root("panic", backend="efi_pstore")
    done = pstored("collect", "--json", root=made)
    assert done.status == 0
    assert done.json["delivery"] == {"delivered": [], "pending": []}
    assert not (made.archive / "outbox").exists()
