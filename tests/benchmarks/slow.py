# SPDX-License-Identifier: Apache-2.0
"""A small, slow board: a harvest and a collection with a tenth of one core and 64 MiB.

``python tests/benchmarks/slow.py``, as root, where the control groups of the CPU and of memory can be written to
(either version, cgroups(7)).  Memory is that of the processes and of what they have in the page cache.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.processes import STORES, installed, run_timed

CGROUPS = Path("/sys/fs/cgroup")
SHARE = 0.1
"""Of one core."""
PERIOD_US = 100_000
MEMORY = 64 << 20


@contextmanager
def small_board() -> Iterator[tuple[Callable[[], None], Callable[[], int]]]:
    """Gives what puts a process on it, and what tells how often its memory was at the limit."""
    quota = str(int(PERIOD_US * SHARE))
    if (CGROUPS / "cgroup.controllers").exists():
        settings = {"": {"cpu.max": f"{quota} {PERIOD_US}", "memory.max": str(MEMORY), "memory.swap.max": "0"}}
    else:
        settings = {
            "cpu": {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": quota},
            "memory": {"memory.limit_in_bytes": str(MEMORY)},
        }
    groups = [CGROUPS / controller / f"pstored-bench-{os.getpid()}" for controller in settings]
    try:
        for group, files in zip(groups, settings.values(), strict=True):
            group.mkdir()
            for name, value in files.items():
                (group / name).write_text(value)

        def join() -> None:
            for group in groups:
                (group / "cgroup.procs").write_text(str(os.getpid()))

        def failures() -> int:
            counter = groups[-1] / "memory.failcnt"
            if counter.exists():
                return int(counter.read_text())
            return int(dict(line.split() for line in (groups[-1] / "memory.events").open())["max"])

        yield join, failures
    finally:
        for group in groups:
            if group.exists():
                group.rmdir()


def measure(pstored: str, command: str, prepare: Callable[[Path], Path]) -> str:
    """One run on the board, in words."""
    with small_board() as (join, failures), tempfile.TemporaryDirectory(prefix="pstored-bench-") as directory:
        root = prepare(Path(directory))
        sample = run_timed([pstored, "--root", str(root), command], before=join)
        left = len(list((root / "sys/fs/pstore").iterdir()))
        return (
            f"{sample.wall_ms / 1e3:.1f} s wall, {sample.cpu_ms:.0f} ms CPU, {sample.peak_mib:.0f} MiB; "
            f"memory at its limit {failures()} times; {left} records left in the store"
        )


def main() -> int:
    """Print a line for each store and command."""
    with installed() as pstored:
        for name, prepare in STORES.items():
            for command in ("harvest", "collect"):
                print(f"{command} of {name}: {measure(pstored, command, prepare)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
