# SPDX-License-Identifier: Apache-2.0
"""The budgets of a collection, as ratios between whole processes that run in turn: ``make bench``.

What each row must not exceed is the budget of the design; a miss is printed as one, and is the exit status.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.processes import (
    BARE,
    RUNS,
    STORES,
    Contender,
    Sample,
    a_panic,
    installed,
    many_crashes,
    measure,
    median,
    records,
)

SYSTEMD_PSTORE = "/lib/systemd/systemd-pstore"
FLUSHES = 6
"""Most in a harvest, whatever it takes."""


class Row(NamedTuple):
    """One line of the result."""

    what: str
    figure: str
    budget: str = ""
    met: bool = True

    def show(self) -> None:
        """Print it."""
        budget = f"budget {self.budget}" if self.budget else ""
        print(f"{self.what:58} {self.figure:>9}   {budget:30} {'' if self.met else 'MISSED'}".rstrip(), flush=True)


def peer(root: Path, *, sync: bool) -> Sequence[str]:
    """systemd-pstore on the same files; with *sync* the flush that it lacks."""
    words = [SYSTEMD_PSTORE, str(root / "sys/fs/pstore"), str(root / "var/lib/pstore")]
    return ["sh", "-c", '"$0" "$1" "$2" && exec sync', *words] if sync else words


def harvest_rows(pstored: str) -> list[Row]:
    """Wall time of the harvest against its peers, for each store."""
    return [row for name in STORES for row in _compare(name, measure(_contenders(name, pstored)))]


def _contenders(name: str, pstored: str) -> list[Contender]:
    make = STORES[name]
    found = [
        Contender("bare", lambda _: BARE),
        Contender("harvest", lambda root: [pstored, "--root", str(make(root)), "harvest"]),
    ]
    if os.path.exists(SYSTEMD_PSTORE):
        found += [
            Contender("peer", lambda root: peer(make(root), sync=False)),
            Contender("peer and sync", lambda root: peer(make(root), sync=True)),
        ]
    return found


def _compare(name: str, samples: dict[str, list[Sample]]) -> list[Row]:
    wall = {who: median(of, "wall_ms") for who, of in samples.items()}
    is_real = name == "a real panic"
    ratio = wall["harvest"] / wall["bare"]
    rows = [
        Row(f"harvest of {name}, wall", f"{wall['harvest']:.0f} ms"),
        Row(f"harvest of {name}, CPU", f"{median(samples['harvest'], 'cpu_ms'):.0f} ms"),
        Row("  / python3 -c pass", f"{ratio:.2f}", "2.5" if is_real else "", not is_real or ratio <= 2.5),
    ]
    if "peer" in wall:
        ratio = wall["harvest"] / wall["peer"]
        rows += [
            Row("  / systemd-pstore", f"{ratio:.2f}", "4" if is_real else "", not is_real or ratio <= 4),
            Row("  / systemd-pstore and sync", f"{wall['harvest'] / wall['peer and sync']:.2f}"),
        ]
    return rows


def other_rows(pstored: str, scale: Path) -> list[Row]:
    """All three stages, and the list; the budgets are for where a bare interpreter takes 11 ms."""
    samples = measure(
        [
            Contender("bare", lambda _: BARE),
            Contender("collect", lambda root: [pstored, "--root", str(a_panic(root)), "collect"]),
            Contender("list", lambda _: [pstored, "--root", str(scale), "list"]),
        ]
    )
    cpu, budget = median(samples["collect"], "cpu_ms"), 300 / 11 * median(samples["bare"], "cpu_ms")
    listing, most = median(samples["list"], "wall_ms"), 2 * median(samples["bare"], "wall_ms") + 40
    return [
        Row("python3 -c pass, wall", f"{median(samples['bare'], 'wall_ms'):.0f} ms"),
        Row("collect of a real panic, CPU", f"{cpu:.0f} ms", f"{budget:.0f} ms (27 x bare)", cpu <= budget),
        Row("list of 1,000 crashes, wall", f"{listing:.0f} ms", f"{most:.0f} ms (2 x bare + 40)", listing <= most),
    ]


def flush_rows(pstored: str) -> list[Row]:
    """Flushes of a harvest, the first of an archive and later ones, as strace(1) sees them."""
    if shutil.which("strace") is None:
        print("strace is not here: flushes are not counted (Debian: apt-get install strace)")
        return []
    rows = []
    for number in (1, 1000):
        with tempfile.TemporaryDirectory(prefix="pstored-bench-") as name:
            for time in ("first", "second"):
                root = records(Path(name), number if time == "first" else number + 1)
                count = _flushes([pstored, "--root", str(root), "harvest"])
                what = f"flushes of the {time} harvest, {number if time == 'first' else 1} new records"
                rows.append(Row(what, str(count), str(FLUSHES), count <= FLUSHES))
    return rows


def _flushes(command: Sequence[str]) -> int:
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=fsync,fdatasync,syncfs,sync", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    return len(re.findall(r"(?m)\b(?:f(?:data)?sync|sync(?:fs)?)\(", done.stderr))


def main() -> int:
    """Measure, print the table, give 1 if a budget is missed."""
    scale = Path(tempfile.mkdtemp(prefix="pstored-bench-scale-"))
    print(f"medians of {RUNS} runs, in turn")
    try:
        with installed() as pstored:
            many_crashes(scale, pstored, 1000)
            rows = [*other_rows(pstored, scale), *flush_rows(pstored), *harvest_rows(pstored)]
    finally:
        shutil.rmtree(scale)
    for row in rows:
        row.show()
    return int(not all(row.met for row in rows))


if __name__ == "__main__":
    sys.exit(main())
