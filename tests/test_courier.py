# SPDX-License-Identifier: Apache-2.0
"""A round to one outgoing sink: in order, not too often, nothing lost, whatever fails and whenever it is killed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pstored import steps
from pstored.archive import Archive
from pstored.config import Config
from pstored.delivery.courier import MOST_WAIT_S, PATIENCE, Round, Survey, missing, survey
from pstored.delivery.dispatch import pack
from pstored.delivery.outgoing import Health, Item, Outgoing, State
from pstored.delivery.payload import Reporter, Wanted
from pstored.errors import SinkError
from pstored.sinks.base import OutgoingSink
from pstored.sinks.file import FileSink
from pstored.sinks.settings import Delivery, File, Text
from tests.conftest import MakeRoot, Root
from tests.outgoing import START_S, ScriptedSink, copy_crashes, crash_id, down, lines, names, revise

SINK = "test"
LATER = START_S + 1_000_000.0
"""When rounds begin, if nothing else is said: every window is over."""
REPORTER = Reporter("0", "m" * 32, None, "board", "armv7l", "6.12", "os", "1", "OS 1", "b1", None, None)
WANTED = Wanted(Text.NONE, 0, True, ())


class Bench:
    """An archive, a sink, and a clock that a test sets."""

    def __init__(self, archive: Archive, **delivery: int) -> None:
        self.archive = archive
        self.config = Config(outgoing={"delivery": Delivery(**delivery)})  # type: ignore[arg-type]  # numbers only
        self.now = LATER
        self.outgoing = Outgoing(archive, SINK)
        self.made = 0
        """How often a sink was asked for."""

    def round(self, sink: OutgoingSink, *, chance: float = 1.0) -> list[str]:
        """One round; gives the crashes that arrived."""
        with self.outgoing.lock(wait=False) as mine:
            assert mine
            one = Round(self.archive, self.config, SINK, clock=lambda: self.now, chance=lambda: chance)

            def make() -> OutgoingSink:
                self.made += 1
                return sink

            run = one.run(make, lambda w: pack(self.archive, w, WANTED, REPORTER))
            return [waiting.item.crash_id for waiting, _ in run]

    def survey(self) -> Survey:
        """How things stand."""
        return survey(self.archive, self.config, SINK, self.now)

    def states(self) -> dict[Item, State]:
        """What is noted."""
        return self.outgoing.entries()


@pytest.fixture
def crashed(root: MakeRoot) -> Root:
    """A tree with one crash."""
    return root("panic", backend="efi_pstore")


@pytest.fixture
def five(crashed: Root) -> Bench:
    """Five crashes, none like another."""
    return Bench(copy_crashes(crashed, 5))


IDS = [crash_id(n) for n in range(5)]


def test_all_arrive_oldest_first_and_once(five: Bench) -> None:
    """Then nothing is due, and the sink is not even made."""
    sink = ScriptedSink()
    assert five.survey().due == LATER
    assert five.round(sink) == IDS
    assert sink.names() == IDS
    assert (five.survey().due, five.survey().waiting, five.made) == (None, (), 1)
    assert five.round(sink) == []
    assert five.made == 1
    assert set(five.states().values()) == {State.SENT}


def test_uid_is_the_same_each_time_and_differs_between_boards(five: Bench) -> None:
    """What arrives twice can be told; two boards with the same records are two crashes."""
    first, second = ScriptedSink(), ScriptedSink()
    five.round(first)
    shutil.rmtree(five.outgoing.directory)
    five.round(second)
    assert [p.uid for p in first.got] == [p.uid for p in second.got]
    shutil.rmtree(five.outgoing.directory)
    waiting = five.survey().waiting[0]
    other = pack(five.archive, waiting, WANTED, REPORTER._replace(machine_id="n" * 32))
    assert other.uid != first.got[0].uid
    assert other.uid.partition("@")[0] == first.got[0].uid.partition("@")[0]


def test_a_sink_that_is_down_is_left_alone_ever_longer(five: Bench) -> None:
    """A minute, two, four, ... up to an hour; noted on disk; in between it is not asked."""
    sink = ScriptedSink(down)
    waits = []
    for _ in range(9):
        five.round(sink)
        health = five.survey().health
        assert health.next is not None
        waits.append(health.next - five.now)
        asked = len(sink.asked)
        five.now = health.next - 1
        five.round(sink)
        assert len(sink.asked) == asked
        five.now = health.next
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert five.survey().health == Health(9, five.now, "down", failed=9)
    sink.script = lambda *_: None
    assert five.round(sink) == IDS
    assert five.survey().health == Health(failed=9)


@pytest.mark.parametrize(("chance", "wait_s"), [(0.0, 30), (0.5, 45), (1.0, 60)])
def test_chance_spreads_a_fleet_that_comes_back_together(five: Bench, chance: float, wait_s: int) -> None:
    """Between half and all of the time."""
    five.round(ScriptedSink(down), chance=chance)
    assert five.survey().due == LATER + wait_s


def test_the_sinks_own_word_on_when_counts(five: Bench) -> None:
    """Retry-After: no sooner than that; but nobody is left alone for more than a day."""
    five.round(ScriptedSink(lambda *_: SinkError("busy", after_s=600)))
    assert five.survey().due == LATER + 600
    five.now = LATER + 600
    five.round(ScriptedSink(lambda *_: SinkError("busy", after_s=1e9)))
    assert five.survey().due == five.now + MOST_WAIT_S


def test_a_clock_that_went_back_holds_up_nothing(five: Bench) -> None:
    """A time on the disk that lies further ahead than we ever wait is not believed."""
    five.round(ScriptedSink(down))
    five.now = 1000.0
    assert five.survey().due == 1000.0
    assert five.round(ScriptedSink()) == IDS


def test_order_is_kept_however_long_it_is_down(five: Bench) -> None:
    """Not even after many rounds, in which the second is asked, too, is anything told out of order."""
    sink = ScriptedSink(down)
    for _ in range(3 * PATIENCE):
        five.round(sink)
        five.now += 7200
    assert set(sink.asked) == set(IDS[:2])
    assert five.round(ScriptedSink()) == IDS


def test_a_crash_that_always_fails_is_passed_over(five: Bench) -> None:
    """After some tries, once the next one arrives; it is tried again by itself, ever later."""
    bad = IDS[0]
    sink = ScriptedSink(lambda name, _: SinkError("too hot") if name == bad else None)
    for _ in range(PATIENCE):
        assert five.round(sink) == []
        five.now += 7200
    assert five.round(sink) == IDS[1:]
    (waiting,) = five.survey().open()
    assert (waiting.item.crash_id, waiting.attempts, waiting.error) == (bad, PATIENCE + 1, "too hot")
    assert waiting.next == five.now + 60 * 2**PATIENCE
    assert five.survey().due == waiting.next
    five.now += 60 * 2**PATIENCE
    assert five.round(ScriptedSink()) == [bad]


def test_refused_for_good_is_set_aside_and_holds_up_nobody(five: Bench) -> None:
    """With its reason; not tried again; not due."""
    sink = ScriptedSink(lambda name, _: SinkError("too large", retry=False) if name == IDS[1] else None)
    assert five.round(sink) == [IDS[0], *IDS[2:]]
    seen = five.survey()
    assert [(w.item.crash_id, w.state, w.error) for w in seen.waiting] == [(IDS[1], State.REFUSED, "too large")]
    assert (seen.open(), seen.due, seen.health) == ([], None, Health())
    assert five.round(sink) == []


def test_a_sink_that_refuses_everything_is_not_given_everything(five: Bench) -> None:
    """Its credentials are wrong, say: one is set aside, and the rest waits for somebody to mend that."""
    sink = ScriptedSink(lambda *_: SinkError("who are you", retry=False, pause=True))
    five.round(sink)
    assert sink.asked == IDS[:1]
    assert five.survey().health == Health(1, LATER + 60, "who are you", failed=1)
    assert len(five.survey().open()) == 4


def test_no_more_than_so_many_a_minute(crashed: Root) -> None:
    """The rest is due a minute later; that is no failure."""
    bench = Bench(copy_crashes(crashed, 5), per_minute=2)
    sink = ScriptedSink()
    assert bench.round(sink) == IDS[:2]
    assert (bench.survey().due, bench.survey().health.failures) == (LATER + 60, 0)
    assert bench.round(sink) == []
    bench.now += 60
    assert bench.round(sink) == IDS[2:4]
    bench.now += 60
    assert bench.round(sink) == IDS[4:]
    assert bench.survey().due is None


def test_a_month_off_the_net(crashed: Root) -> None:
    """A crash every six hours, and no way out: all arrive in order when there is one, at the rate that is allowed."""
    bench = Bench(copy_crashes(crashed, 120, every_s=6 * 3600))
    off, on = ScriptedSink(down), ScriptedSink()
    for day in range(30):
        bench.now = START_S + day * 86400.0
        bench.round(off)
    minutes = 0
    bench.now = START_S + 30 * 86400.0
    while bench.survey().due is not None:
        bench.round(on)
        bench.now = bench.survey().due or 0.0
        minutes += 1
    assert on.names() == [crash_id(n, 6 * 3600) for n in range(120)]
    assert minutes == 2
    assert len(off.asked) < 60


def test_a_crash_loop_is_counted(crashed: Root) -> None:
    """A thousand crashes in a row are a dozen messages, and their numbers add up; each stands for other crashes."""
    bench = Bench(copy_crashes(crashed, 1000, signature=lambda _: "loop"))
    sink = ScriptedSink()
    bench.round(sink)
    assert [p.stands_for for p in sink.got] == [1, 1, 1, 997]
    assert sink.got[-1].uid.startswith(f"{crash_id(999)}.1x997@")
    assert (sink.got[-1].first, sink.got[-1].last) == ("2026-11-30T00:56:20Z", "2026-11-30T17:32:20Z")
    assert sink.got[-1].crash["id"] == crash_id(999)
    assert (bench.survey().waiting, missing(bench.archive, SINK)) == ((), set())


def test_what_a_message_stands_for_does_not_change_between_tries(crashed: Root) -> None:
    """Else the number would be told twice, or not at all: it is made up, durably, before it is sent."""
    archive = copy_crashes(crashed, 8, signature=lambda _: "loop")
    bench = Bench(archive)
    bench.now = float(START_S + 400)
    sink = ScriptedSink(lambda name, _: None if name < crash_id(3) else SinkError("down"))
    bench.round(sink)
    for number in (8, 9):
        shutil.copytree(archive.crash_directory(crash_id(7)), archive.crash_directory(crash_id(number)))
        path = Path(archive.crash_directory(crash_id(number)), "crash.json")
        path.write_text(path.read_text().replace(crash_id(7), crash_id(number)))
    bench.now = LATER
    sink.script = lambda *_: None
    bench.round(sink)
    assert names(sink.got) == [
        *(f"{crash_id(n)}.1" for n in range(3)),
        f"{crash_id(7)}.1x5",
        f"{crash_id(9)}.1x2",
    ]


def test_a_later_revision_is_sent_too(five: Bench, crashed: Root) -> None:
    """Under another uid; what was noted of the older one goes."""
    sink = ScriptedSink()
    five.round(sink)
    revise(crashed, IDS[2], 2)
    assert five.survey().open()[0].item == Item(IDS[2], 2)
    assert five.round(sink) == [IDS[2]]
    assert names(sink.got)[-1] == f"{IDS[2]}.2"
    assert Item(IDS[2], 1) not in five.states()
    assert len(five.states()) == 5


def test_what_is_no_more_in_the_archive_is_forgotten(five: Bench) -> None:
    """And not sent; but an archive that shows nothing at all is one that is not mounted."""
    five.round(ScriptedSink(down))
    shutil.rmtree(five.archive.crash_directory(IDS[0]))
    five.now += 60
    assert five.round(ScriptedSink()) == IDS[1:]
    assert {item.crash_id for item in five.states()} == set(IDS[1:])
    shutil.rmtree(five.archive.crashes)
    five.round(ScriptedSink())
    assert len(five.states()) == 4


def test_a_report_that_cannot_be_read_holds_up_nobody(five: Bench) -> None:
    """It waits by itself, and goes out once it is made again."""
    path = Path(five.archive.crash_directory(IDS[0]), "crash.json")
    whole = path.read_bytes()
    with five.archive.lock():
        five.archive.crash_summaries()
    state = path.stat()
    path.write_bytes(b"x" * len(whole))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # as the cache has it
    assert five.round(ScriptedSink()) == IDS[1:]
    assert "cannot read" in str(five.survey().open()[0].error)
    path.write_bytes(whole)
    five.now += 3600
    assert five.round(ScriptedSink()) == IDS[:1]


def test_a_sink_that_breaks_is_as_one_that_is_down(five: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever it raises: noted with its name, its trace in the log."""
    five.round(ScriptedSink(lambda *_: ZeroDivisionError("oh")))
    assert five.survey().health.failures == 1
    assert "ZeroDivisionError: oh" in str(five.survey().health.error)
    assert "Traceback" in capfd.readouterr().err


def test_a_sink_that_cannot_be_made_is_tried_later(five: Bench) -> None:
    """Its table lacks something, say: the reason is noted, nothing is set aside."""
    with five.outgoing.lock(wait=False):
        one = Round(five.archive, five.config, SINK, clock=lambda: five.now, chance=lambda: 1.0)

        def fails() -> OutgoingSink:
            raise SinkError("no url")

        assert list(one.run(fails, lambda w: pack(five.archive, w, WANTED, REPORTER))) == []
    assert five.survey().health == Health(1, LATER + 60, "no url", failed=1)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"failures": "x", "next": [], "error": 1}', b"\xff"])
def test_damaged_notes_hold_up_nothing(five: Bench, data: bytes) -> None:
    """As if nothing were noted, but for what the name says; also where somebody put a pipe, or a link."""
    five.round(ScriptedSink(down))
    directory = Path(five.outgoing.directory)
    for path in directory.iterdir():
        path.write_bytes(data)
    os.mkfifo(directory / f"{IDS[1]}.1.failed")
    (directory / f"{IDS[2]}.1.failed").symlink_to("/etc/shadow")
    for name in ("README", f"{IDS[3]}.1.unheard", "x.1.sent"):
        (directory / name).touch()
    assert five.round(ScriptedSink()) == IDS
    assert five.survey().open() == []


def test_somebody_else_who_delivers_is_left_alone(five: Bench) -> None:
    """One at a time, and nobody waits."""
    with five.outgoing.lock(wait=False) as mine, Outgoing(five.archive, SINK).lock(wait=False) as other:
        assert (mine, other) == (True, False)


@pytest.mark.parametrize("target", ["lines", "directory"])
def test_killed_at_every_step_of_a_round(crashed: Root, tmp_path: Path, target: str) -> None:
    """Then once more: every crash is there once, under its uid; no line is torn, no litter left, nothing is due."""
    archive = copy_crashes(crashed, 6, signature=lambda n: "loop" if n > 1 else None)
    wanted = [f"{crash_id(n)}.1" for n in range(5)] + [f"{crash_id(5)}.1"]
    killed = 0
    for at in range(1, 500):
        place = tmp_path / f"at{at}"
        place.mkdir()
        path = place / "out"
        if target == "directory":
            path.mkdir()
        bench = Bench(archive)
        shutil.rmtree(archive.outgoing, ignore_errors=True)
        status = run_killed(lambda p=path, b=bench: b.round(FileSink(File(path=str(p)))), at)  # type: ignore[misc]
        bench.round(FileSink(File(path=str(path))))
        found = [lines(path)] if target == "lines" else [lines(p) for p in sorted(path.iterdir())]
        assert [one["uid"].partition("@")[0] for some in found for one in some] == wanted
        assert bench.survey().waiting == ()
        assert not list(Path(archive.outgoing).rglob(".new-*"))
        if status == 0:
            break
        killed += 1
    assert killed > 40


def run_killed(function: Callable[[], object], at: int) -> int:
    """Run a function in a child that ends at step *at*; gives its exit status."""
    child = os.fork()
    if child == 0:
        passed = 0

        def hook(name: str) -> None:
            nonlocal passed
            passed += 1
            if passed == at:
                os._exit(99)

        steps.hook = hook
        try:
            function()
            os._exit(0)
        finally:
            os._exit(98)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_full_disk_for_the_notes_is_said(five: Bench, own_mounts: Callable[[Any], Any]) -> None:
    """Nothing is given to the sink that could not be noted before; what was and could not be is sent again."""
    from tests.conftest import mount

    def child() -> tuple[str, list[str]]:
        """On a disk with room for a few files."""
        os.makedirs(five.archive.outgoing)
        mount("-t", "tmpfs", "-o", "size=64k,nr_inodes=4", "none", five.archive.outgoing)
        sink = ScriptedSink()
        try:
            five.round(sink)
        except Exception as e:  # noqa: BLE001 - whatever it is, the test looks at it
            return f"{type(e).__name__}: {e}", sink.names()
        return "", sink.names()

    said, got = own_mounts(child)
    assert said.startswith("DiskError: cannot write to")
    assert "No space left" in said
    assert got
