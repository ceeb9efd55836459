# SPDX-License-Identifier: Apache-2.0
"""Disks as they are: that read and write in pieces, are full, or say that they have written and have not."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Done, forked, mount, require
from tests.proof import strace, workers
from tests.proof.conftest import Prepared, Tally
from tests.proof.ends import differences, quietly, wrong_end, wrong_words
from tests.proof.shortio import can_filter, run_short
from tests.proof.strace import Point, of_each_kind
from tests.proof.world import copy, lost, read_bundle, remove

KIB = 1024
ROOM = 4 * 1024
"""KiB; a collect of the world takes less than a tenth of it."""


@pytest.mark.parametrize("most", [4000, 61, pytest.param(2, marks=pytest.mark.proof)])
def test_reads_and_writes_that_do_less(prepared: Prepared, most: int, tally: Tally) -> None:
    """Every read and write of store, archive, /proc and /etc comes to less than was asked for: all is the same."""
    require(can_filter(), "the filter knows the calls of x86_64 and aarch64 only")
    world = copy(prepared.world, prepared.scratch / "short")
    words = strace.command(world.root.path, "collect")
    top = str(world.root.path)
    with workers.journald() as beside:
        done, counts = beside(lambda: run_short(words, top, most=most, environment=strace.ENVIRONMENT, cwd="."))
        assert (done.status, done.stderr) == (0, "")
        assert counts.short == counts.calls > 1000
        assert not beside(lambda: wrong_end(world, (), differences, prepared.wanted))
    tally("reads and writes that did less than was asked for", counts.short)


@pytest.mark.parametrize("way", ["short", pytest.param("whole", marks=pytest.mark.proof)])
def test_disk_that_lies(prepared: Prepared, way: str, tally: Tally) -> None:
    """A write of a bundle that the kernel says it made, and did not, is noticed in time: nothing is erased.

    The next run says of that bundle that it is damaged, and archives all anew.  Of zeros nobody misses those that are
    followed by a seek: what was not written reads as zeros, too.
    """
    writes = [p for p in prepared.points if p.call in ("write", "pwrite64") and "/.new-harvest/" in p.text]
    writes = of_each_kind(writes) if way == "short" else writes
    assert len(writes) >= 2
    found = workers.in_parallel(lambda point: lie(prepared, point), writes, scratch=prepared.scratch)
    wrong = [f"{point}: {problems}" for point, problems in zip(writes, found, strict=True) if problems]
    assert not wrong, "\n".join(wrong)
    tally("writes of a bundle that were pretended", len(writes))


def lie(prepared: Prepared, point: Point) -> list[str]:
    """Pretend one write; gives what is wrong then."""
    world = copy(prepared.world, prepared.scratch / "lied")
    words = strace.command(world.root.path, "collect")
    count = point.text.rpartition("= ")[2]
    try:
        with workers.journald() as beside:
            done = beside(lambda: strace.inject(words, point, f"retval={count}"))
            kept = {name: (world.root.store / name).read_bytes() for name in world.root.names()}
            again = beside(lambda: quietly(world.root, "collect"))
            if done.status == 0 and ' "\\0\\0' in point.text:
                (bundle,) = world.root.harvests()
                return [] if dict(read_bundle(bundle)) == world.records else ["it is not noticed"]
            damaged, newest = world.root.harvests()
            problems = [] if done.status == 73 and "does not read back as written" in done.stderr else [done.stderr]
            problems += [] if kept == world.records else ["something is erased"]
            problems += [] if damaged.name in again.stderr else [again.stderr]
            problems += [] if dict(read_bundle(newest)) == world.records else ["not all is archived anew"]
            crashes = [world.root.load(f"crashes/{path.name}/crash.json") for path in world.root.crashes()]
            boots = sorted(str(crash["boot"]["id"]) for crash in crashes)
            problems += [] if boots == sorted(b.boot_id for b in world.root.boots) else [f"crashes of {boots}"]
    finally:
        remove(world)
    return problems


# -- full


def on_tmpfs(archive: Path, _image: Path, free: int) -> Callable[[], object]:
    """Mount a tmpfs with so many KiB free; gives what makes room."""
    mount("-t", "tmpfs", "-o", f"size={max(free, 4)}k", "tmpfs", archive)
    return lambda: mount("-o", f"remount,size={ROOM}k", archive)


def on_ext4(archive: Path, image: Path, free: int) -> Callable[[], object]:
    """Mount an ext4 with so many KiB free; gives what makes room."""
    with open(image, "wb") as f:
        f.truncate(2 * ROOM * KIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0", image], check=True)
    mount("-o", "loop", image, archive)
    hog = archive / "hog"
    with open(hog, "wb") as f:
        os.posix_fallocate(f.fileno(), 0, os.statvfs(archive).f_bavail * os.statvfs(archive).f_bsize - free * KIB)
    return hog.unlink


@pytest.mark.parametrize("make", [on_tmpfs, on_ext4])
@pytest.mark.parametrize("step", [40, pytest.param(4, marks=pytest.mark.proof)])
def test_full_disk(
    prepared: Prepared, make: Callable[[Path, Path, int], Callable[[], object]], step: int, tally: Tally
) -> None:
    """However little room there is: what is not archived is not erased, it is said, and all is done when there is."""
    require(make is on_tmpfs or os.access("/dev/loop-control", os.W_OK), "there are no loop devices")

    def fill(free: int) -> tuple[Done, list[str]]:
        return forked(lambda: filled(prepared, make, free), new_mounts=True)

    sizes = list(range(4, 360, step))
    found = workers.in_parallel(fill, sizes, scratch=prepared.scratch)
    assert not [f"{free} KiB: {problems}" for free, (_, problems) in zip(sizes, found, strict=True) if problems]
    assert {done.status for done, _ in found} == {0, 73}  # some were too small, and some were not
    tally("sizes of a full disk", len(sizes))


def filled(
    prepared: Prepared, make: Callable[[Path, Path, int], Callable[[], object]], free: int
) -> tuple[Done, list[str]]:
    """A collect with so many KiB free, and one with room; gives the first, and what is wrong."""
    world = copy(prepared.world, prepared.scratch / "full")
    world.root.archive.mkdir()
    make_room = make(world.root.archive, prepared.scratch / "image", free)
    with workers.journald() as beside:
        done = beside(lambda: strace.run(strace.command(world.root.path, "collect")))
        problems = [f"lost: {gone}"] if (gone := lost(world)) else []
        problems += wrong_words(done, "ENOSPC")
        make_room()
        (world.root.archive / "lost+found").rmdir() if make is on_ext4 else None
        problems += beside(lambda: wrong_end(world, ("collect",), differences, prepared.wanted))
    subprocess.run(["umount", world.root.archive], check=True)
    remove(world)
    return done, problems
