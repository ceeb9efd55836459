# SPDX-License-Identifier: Apache-2.0
"""How the commands grow with the archive: 10, 1,000, 10,000 crashes.  ``python tests/benchmarks/scale.py [N...]``."""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.processes import Sample, installed, many_crashes, median, records, run_timed

RUNS = 5


def a_new_crash(root: Path, pstored: str, n: int) -> Sample:
    """Collect one more, which the archive does not have."""
    records(root, 0)
    records(root, 1)
    store = root / "sys/fs/pstore"
    (path,) = store.iterdir()
    path.rename(store / f"dmesg-erst-{7711216860565350000 + (n << 32)}")
    return run_timed([pstored, "--root", str(root), "collect"])


def main(sizes: list[int]) -> int:
    """Print a line for each size."""
    with installed() as pstored:
        for size in sizes:
            root = Path(tempfile.mkdtemp(prefix="pstored-bench-"))
            try:
                many_crashes(root, pstored, size)
                figures = {
                    command: [run_timed([pstored, "--root", str(root), command]) for _ in range(RUNS)]
                    for command in ("list", "show")
                }
                figures["collect of a new one"] = [a_new_crash(root, pstored, n) for n in range(RUNS)]
            finally:
                shutil.rmtree(root)
            for what, samples in figures.items():
                cpu, wall, peak = (median(samples, field) for field in ("cpu_ms", "wall_ms", "peak_mib"))
                print(f"{size:6} crashes: {what:20} {wall:7.0f} ms wall {cpu:7.0f} ms CPU {peak:6.1f} MiB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main([int(word) for word in sys.argv[1:]] or [10, 1000, 10_000]))
