# SPDX-License-Identifier: Apache-2.0
"""A machine that crashes at every boot, for as long as it likes: the archive stays bounded, and what matters in it."""

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

from fake_pstore.host import Host, write_host
from tests.conftest import BOOT_ID, Root, run_pstored
from tests.proof.conftest import Tally
from tests.proof.ends import quietly

BUG = b"Panic#1 Part1\n<12>[    1.000000] pstored: boot %s\n<0>[   %2d.000001] Kernel panic - not syncing: %s\n"
OFTEN, LATE, SELDOM = b"the same again", b"and the sink is away", (b"some odd thing", b"not the odd one")
CONFIG = """\
[archive]
allow_volatile = true
max_harvests = %d
[delivery]
per_minute = 0
repeat_first = 0
[file]
path = "%s"
"""


class Flood(NamedTuple):
    """How many, and of what."""

    boots: int
    kept: int
    """``max_harvests``."""
    away: int
    """So many at the end cannot be delivered; fewer than are kept."""


SHORT = Flood(boots=120, kept=30, away=10)
LONG = Flood(boots=10_000, kept=100, away=30)


def bug_of(number: int, flood: Flood) -> bytes:
    """What boot *number* died of: mostly the same; two others, of which each comes twice, long ago."""
    if number > flood.boots - flood.away:
        return LATE
    return SELDOM[number % 2] if 8 <= number < 12 else OFTEN


def size_of(path: Path) -> int:
    """Bytes on the disk, as du(1) counts them."""
    found = 0
    for directory, _, names in os.walk(path):
        found += sum(os.lstat(os.path.join(directory, name)).st_blocks * 512 for name in (*names, "."))
    return found


def cpu_of(function: Callable[[], object]) -> float:
    """Seconds of the processor that children take in it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    function()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(SHORT, id="short"),
        pytest.param(LONG, id="long", marks=pytest.mark.proof),
    ],
)
def test_crash_loop_fills_no_disk(flood: Flood, tmp_path: Path, tally: Tally) -> None:
    """First and latest of each bug, and what a sink is still to get, outlive all others; nothing gets slower."""
    write_host(tmp_path / "root", Host(boot_id=BOOT_ID, kernel="6.12.1", btime=1_795_400_000))
    root = Root(path=tmp_path / "root")
    sink = tmp_path / "sink"
    sink.mkdir()
    root.configure(CONFIG % (flood.kept, sink / "out.jsonl"))
    costs: list[float] = []
    sizes: list[int] = []
    list_s: dict[int, float] = {}
    began = time.monotonic()
    for number in range(1, flood.boots + 1):
        if number == flood.boots - flood.away + 1:
            sink.rename(tmp_path / "elsewhere")
        before = f"{number - 1:08x}-8888-4777-8666-555555555555"
        root.add_erst_crash(number, BUG % (before.encode(), number % 90 + 3, bug_of(number, flood)))
        done = None

        def collect() -> None:
            nonlocal done
            done = quietly(root, "collect")

        costs.append(cpu_of(collect))
        assert done is not None
        assert done.status == (75 if number > flood.boots - flood.away else 0), done
        assert root.names() == []
        assert ("crash loop: " in done.stdout) == (
            number >= 3 and len({bug_of(n, flood) for n in range(number - 2, number + 1)}) == 1
        )
        if number % 50 == 0:
            sizes.append(size_of(root.archive))
        if number in (flood.kept, flood.boots):
            list_s[number] = min(cpu_of(lambda: run_pstored("list", root=root)) for _ in range(5))
    seconds = time.monotonic() - began

    listed = json.loads(run_pstored("list", "--json", root=root).stdout)["crashes"]
    numbers = [int(c["boot"][:8], 16) + 1 for c in listed]
    wanted = {1, 8, 9, 10, 11, flood.boots - flood.away}
    wanted |= set(range(flood.boots - flood.away + 1, flood.boots + 1))
    assert wanted <= set(numbers)
    assert len(numbers) == len(root.harvests()) == flood.kept
    newest = set(range(flood.boots - flood.kept + 1, flood.boots + 1))
    assert len(newest - set(numbers)) == len(set(numbers) - newest)  # of what is like others, the newest stay
    assert listed[-1]["row"]["count"] == flood.away
    assert listed[-1 - flood.away]["row"]["count"] == flood.boots - flood.away - 11
    told = [json.loads(line)["crash"]["id"] for line in (tmp_path / "elsewhere/out.jsonl").read_bytes().splitlines()]
    assert len(set(told)) == len(told) == flood.boots - flood.away
    verified = run_pstored("verify", root=root)
    assert (verified.status, verified.stderr) == (0, "")

    full = sizes[flood.kept // 50 :]
    early, late = median(costs[flood.kept : flood.kept + 100]), median(costs[-100:])
    print(
        f"{flood.boots} boots, {flood.kept} kept, {seconds:.0f} s: disk {full[0] >> 10} KiB when full, "
        f"{max(sizes) >> 10} KiB at the most, {full[-1] >> 10} KiB in the end; "
        f"collect {median(costs[:50]) * 1000:.0f} ms at first, {early * 1000:.0f} ms when full, "
        f"{late * 1000:.0f} ms in the end; "
        f"list {list_s[flood.kept] * 1000:.0f} ms when full, {list_s[flood.boots] * 1000:.0f} ms in the end"
    )
    tally("harvests of a crash loop", flood.boots)
    assert max(full) < 1.2 * full[0] + (1 << 20)
