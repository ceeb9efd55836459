# SPDX-License-Identifier: Apache-2.0
"""Others at work: a second collect, the daemon, another program that takes the records, a kernel that changes them."""

import mmap
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Root, can_mount, forked, require
from tests.fuse_pstore import FuseFile, fuse_store
from tests.proof import strace, workers
from tests.proof.conftest import Prepared, Tally
from tests.proof.ends import differences, end_of, wrong_end
from tests.proof.world import archived, copy, lost, remove
from tests.test_watch import Daemon

PANIC = b"Panic#1 Part1\n<0>[   77.%06d] Kernel panic - not syncing: number %d\n"


def at_once(*commands: list[str]) -> list[tuple[int, str]]:
    """Run commands side by side; gives their statuses, and what they said."""
    started = [
        subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=strace.ENVIRONMENT
        )
        for words in commands
    ]
    said = [process.communicate(timeout=120)[1].decode(errors="backslashreplace") for process in started]
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


@pytest.mark.parametrize("rounds", [8, pytest.param(300, marks=pytest.mark.proof)])
def test_collects_at_once(prepared: Prepared, rounds: int, tally: Tally) -> None:
    """Two that start together, and a third a moment later: all succeed, and do together what one would have done."""

    def collide(number: int) -> list[str]:
        world = copy(prepared.world, prepared.scratch / "collided")
        words = strace.command(world.root.path, "collect")
        late = ["sh", "-c", f'sleep {number % 20 * 0.02}; exec "$@"', "sh", *words]
        with workers.journald() as beside:
            ran = beside(lambda: at_once(words, words, late))
            problems = [said for status, said in ran if status or "Traceback" in said]
            problems += beside(lambda: wrong_end(world, (), differences, prepared.wanted))
        remove(world)
        return problems

    found = workers.in_parallel(collide, range(rounds), scratch=prepared.scratch)
    assert not [problems for problems in found if problems]
    tally("times that three collects ran at once", rounds)


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.proof)])
def test_collects_while_the_daemon_works(prepared: Prepared, rounds: int, tally: Tally) -> None:
    """Both are woken by every new record, and each record is archived, and told, once."""

    def work() -> tuple[int, list[str]]:
        world = copy(prepared.world, prepared.scratch / "watched")
        root = world.root
        daemon = Daemon(root)
        problems: list[str] = []
        records = dict(world.records)
        try:
            daemon.wait_for("READY=1")
            for number in range(rounds):
                text = PANIC % (number, number)
                records[root.add_erst_crash(number, text)] = text
                daemon.hup()
                problems += [said for status, said in at_once(strace.command(root.path, "collect")) if status]
                daemon.rest()  # it waits for a service manager that does not listen
            status = daemon.end()
        finally:
            if daemon.process.poll() is None:
                daemon.process.kill()
        end, found = end_of(world._replace(records=records), ("collect",))
        problems += found
        problems += ["a traceback"] if "Traceback" in daemon.said() else []
        problems += ["not archived once each"] if end.state.archived != archived(root) else []
        names = sorted(a.name for a in end.state.archived)
        problems += [] if names == sorted(records) else [f"archived: {names}"]
        problems += [] if len(end.state.crashes) == rounds + len(root.boots) else [f"{len(end.state.crashes)} crashes"]
        problems += [] if len(end.told) == len(end.state.crashes) else [f"told: {end.told}"]
        return status, problems

    with workers.journald() as beside:
        assert beside(work) == (0, [])
    tally("collects beside a daemon that collects", rounds)


def test_somebody_else_takes_the_records(prepared: Prepared, tally: Tally) -> None:
    """A program that moves records out while we collect: each is in the archive, or with it, whole."""

    def share(number: int) -> list[str]:
        world = copy(prepared.world, prepared.scratch / "shared")
        rival = prepared.scratch / "rival"
        rival.mkdir()
        words = strace.command(world.root.path, "collect")
        each = f"for f in {world.root.store}/*; do mv $f {rival}/ 2>/dev/null; sleep 0.002; done"
        take = f"sleep {0.05 + number * 0.02}; {each}"
        with workers.journald() as beside:
            ran = beside(lambda: at_once(["sh", "-c", take], words))[1]
            problems = [ran[1]] if ran[0] not in (0, 1) or "Traceback" in ran[1] else []
            theirs = {path.name: path.read_bytes() for path in rival.iterdir()}
            gone = [name for name in lost(world) if theirs.get(name) != world.records[name]]
            problems += [f"lost: {gone}"] if gone else []
            problems += beside(lambda: end_of(world, ("collect",)))[1]
        remove(world)
        subprocess.run(["rm", "-r", rival], check=True)
        return problems

    moments = range(20)
    found = workers.in_parallel(share, moments, scratch=prepared.scratch)
    assert not [problems for problems in found if problems]
    tally("times that records were taken by somebody else half way", len(moments))


# -- a kernel that changes them


class Slot:
    """A record that is another one from its Nth opening on; how often it is opened is seen by all processes."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = mmap.mmap(-1, mmap.PAGESIZE)
        self.old, self.new = PANIC % (1, 1), PANIC % (2, 2)
        self.file = FuseFile(data=self.old, on_open=self.change)

    def change(self) -> None:
        """Called before each open is answered."""
        self.count[0] += 1
        if self.count[0] == self.at:
            self.file.data = self.new
            self.file.mtime_s += 60

    def last(self) -> bytes:
        """What it was in the end."""
        return self.new if self.count[0] >= self.at else self.old


@pytest.mark.parametrize("at", range(1, 6))
def test_record_that_changes_between_two_reads(at: int, tmp_path: Path, tally: Tally) -> None:
    """Whenever the slot gets a newer crash: it is erased only as what the archive has."""
    require(can_mount() and os.path.exists("/dev/fuse"), "needs root and /dev/fuse")
    root = Root(path=tmp_path)
    root.reboot()
    root.store.mkdir(parents=True)
    slot = Slot(at)

    def collect() -> tuple[list[str], list[int]]:
        with fuse_store(root.store, {b"dmesg-efi_pstore-179500000001001": slot.file}):
            done = [strace.run(strace.command(tmp_path, "collect")) for _ in range(3)]
            return root.names(), [one.status for one in done]

    left, statuses = forked(collect, new_mounts=True)
    assert left == []
    assert statuses[1:] == [0, 0]
    kept = [a.data for a in archived(root)]
    assert slot.last() in kept
    assert len(kept) == len(set(kept)) <= 2
    assert len(root.crashes()) == len(kept)
    tally("moments at which a record changed", 1)
