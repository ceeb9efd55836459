# SPDX-License-Identifier: Apache-2.0
"""How the commands grow with the archive: 10, 1,000, 10,000 crashes.  ``python tests/benchmarks/scale.py [N...]``."""

import re
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.processes import Sample, installed, many_crashes, median, records, run_timed

RUNS = 5


def a_new_crash(root: Path, pstored: str, n: int) -> Sample:
    """Collect one more, which the archive does not have: all its lines are of other times than another boot's."""
    records(root, 1)
    (path,) = (root / "sys/fs/pstore").iterdir()
    time = b".77%04d]" % n
    path.write_bytes(re.sub(rb"\.\d{6}\]", time, path.read_bytes()))
    path.rename(path.with_name(f"dmesg-erst-{7711216860565350000 + (n << 32)}"))
    sample = run_timed([pstored, "--root", str(root), "collect"])
    newest = max((root / "var/lib/pstored/crashes").iterdir())
    if time not in (newest / "dmesg.txt").read_bytes():
        raise SystemExit(f"{newest} is not the new crash")
    return sample


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
