# SPDX-License-Identifier: Apache-2.0
"""Whole processes against each other, in turn, as ratios: ``make bench``.

What each row must not exceed is the budget of the design; a miss is printed as one, and is the exit status.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from fake_pstore.capture import load, populate_root

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once, not at every start
RUNS = int(os.environ.get("BENCH_RUNS", "15"))
PSTORED = str(Path(sys.executable).with_name("pstored"))
SYSTEMD_PSTORE = "/lib/systemd/systemd-pstore"
PANIC = "x86_64-6.1deb-efi"
BARE = [sys.executable, "-c", "pass"]


class Sample(NamedTuple):
    """One run of a process."""

    wall_ms: float
    cpu_ms: float


class Contender(NamedTuple):
    """A command, and what must be made ready, uncounted, before each run."""

    name: str
    prepare: Callable[[Path], Sequence[str]]


def run_once(contender: Contender) -> Sample:
    """Prepare a fresh directory, and time one run in it."""
    with tempfile.TemporaryDirectory(prefix="pstored-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        command = contender.prepare(Path(name))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"{contender.name} failed: {done.stderr.decode()}")
        return Sample(wall * 1e3, (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1e3)


def measure(contenders: Sequence[Contender]) -> dict[str, list[Sample]]:
    """Run all in turn, many times; the first round is not counted."""
    samples: dict[str, list[Sample]] = {c.name: [] for c in contenders}
    for turn in range(RUNS + 1):
        for contender in contenders:
            sample = run_once(contender)
            if turn:
                samples[contender.name].append(sample)
    return samples


def median(samples: list[Sample], field: str) -> float:
    """The median of one field, milliseconds."""
    return statistics.median(float(getattr(s, field)) for s in samples)


def a_panic(root: Path) -> Path:
    """A tree with the records of one real EFI panic."""
    populate_root(root, load(PANIC))
    return root


def a_thousand_crashes(root: Path) -> Path:
    """An archive with 1,000 crashes: one real crash, copied under other ids, index and all."""
    a_panic(root)
    subprocess.run([PSTORED, "--root", str(root), "collect"], check=True, stdout=subprocess.DEVNULL)
    crashes = root / "var/lib/pstored/crashes"
    (first,) = crashes.iterdir()
    text = (first / "crash.json").read_text()
    for n in range(999):
        name = f"20260101T{n // 60 % 24:02}{n % 60:02}{n // 1440:02}Z-{n:012x}"
        (crashes / name).mkdir()
        (crashes / name / "crash.json").write_text(text.replace(first.name, name))
    subprocess.run([PSTORED, "--root", str(root), "list"], check=True, stdout=subprocess.DEVNULL)  # makes the index
    return root


class Row(NamedTuple):
    """One line of the result."""

    what: str
    figure: str
    budget: str
    met: bool


def harvest_rows(samples: dict[str, list[Sample]]) -> list[Row]:
    """Wall time of the harvest against its peers."""
    harvest, bare = median(samples["harvest"], "wall_ms"), median(samples["bare"], "wall_ms")
    rows = [
        Row("harvest of an EFI panic / python -c pass", f"{harvest / bare:.2f}", "2.5", harvest / bare <= 2.5),
    ]
    if "systemd-pstore" in samples:
        peer = median(samples["systemd-pstore"], "wall_ms")
        rows.append(Row("the same / systemd-pstore", f"{harvest / peer:.2f}", "4", harvest / peer <= 4))
    rows.append(Row("harvest, wall", f"{harvest:.0f} ms", "", True))
    return rows


def collect_row(samples: dict[str, list[Sample]]) -> Row:
    """CPU of all three stages; the budget is 300 ms where a bare interpreter takes 11 ms."""
    cpu, bare = median(samples["collect"], "cpu_ms"), median(samples["bare"], "cpu_ms")
    budget = 300 / 11 * bare
    return Row("collect of the same, CPU", f"{cpu:.0f} ms", f"{budget:.0f} ms ({300 / 11:.0f} x bare)", cpu <= budget)


def list_row(samples: dict[str, list[Sample]]) -> Row:
    """Wall time of a list of 1,000 crashes; the 40 ms of the budget are for where a bare interpreter takes 11 ms."""
    listing, bare = median(samples["list"], "wall_ms"), median(samples["bare"], "wall_ms")
    budget = 2 * bare + 40
    return Row(
        "list of 1,000 crashes, wall", f"{listing:.0f} ms", f"{budget:.0f} ms (2 x bare + 40)", listing <= budget
    )


def main() -> int:
    """Measure, print the table, give 1 if a budget is missed."""
    scale = Path(tempfile.mkdtemp(prefix="pstored-bench-scale-"))
    try:
        a_thousand_crashes(scale)
        contenders = [
            Contender("bare", lambda _: BARE),
            Contender("harvest", lambda root: [PSTORED, "--root", str(a_panic(root)), "harvest"]),
            Contender("collect", lambda root: [PSTORED, "--root", str(a_panic(root)), "collect"]),
            Contender("list", lambda _: [PSTORED, "--root", str(scale), "list"]),
        ]
        if os.path.exists(SYSTEMD_PSTORE):
            contenders.append(
                Contender(
                    "systemd-pstore",
                    lambda root: [SYSTEMD_PSTORE, str(a_panic(root) / "sys/fs/pstore"), str(root / "var/lib/pstore")],
                )
            )
        else:
            print(f"{SYSTEMD_PSTORE} is not here: not compared (Debian: apt-get install systemd)")
        samples = measure(contenders)
    finally:
        shutil.rmtree(scale)
    rows = [*harvest_rows(samples), collect_row(samples), list_row(samples)]
    print(f"medians of {RUNS} runs, in turn; bare interpreter {median(samples['bare'], 'wall_ms'):.0f} ms wall")
    for row in rows:
        budget = f"budget {row.budget}" if row.budget else ""
        print(f"{row.what:42} {row.figure:>8}   {budget:32} {'' if row.met else 'MISSED'}")
    return int(not all(row.met for row in rows))


if __name__ == "__main__":
    sys.exit(main())
