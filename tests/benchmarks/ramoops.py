# SPDX-License-Identifier: Apache-2.0
"""How fast raw memory is read, in MB a second of CPU: ``python tests/benchmarks/ramoops.py``.

The budget: a clean zone of ramoops with ECC is checked at 20 MB/s, without a C extension.  A miss is printed as one,
and is the exit status.
"""

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fake_pstore.ramoops import SIGNATURE, parity
from pstored.parse.reedsolomon import BLOCK, corrector
from pstored.readers.memory import Held
from pstored.readers.ramoops_layout import find_headers
from pstored.readers.ramoops_zone import HEADER, Zone, read_zone, room

RUNS = 7
ECC = 16
ZONE = 4 << 20
MEMORY = 64 << 20


def clean_zone() -> bytes:
    """A full console zone of 4 MiB, with parity."""
    space = room(ZONE, ECC)
    block = random.Random(1).randbytes(BLOCK)
    data = (block * (space // BLOCK + 1))[:space]
    whole, rest = divmod(space, BLOCK)
    checks = parity(block, ECC) * whole + (parity(data[-rest:], ECC) if rest else b"")
    header = b"".join(word.to_bytes(4, "little") for word in (SIGNATURE, space, space))
    assert len(header) == HEADER
    return header + data + checks + parity(header, ECC)


def measure(name: str, size: int, job: Callable[[], object], budget: float | None) -> bool:
    """Print the best of some runs; whether it is within the budget."""
    best = float("inf")
    for _ in range(RUNS):
        began = time.process_time()
        job()
        best = min(best, time.process_time() - began)
    rate = size / best / 1e6
    missed = budget is not None and rate < budget
    print(f"{name}: {rate:.0f} MB/s" + (f" (budget {budget:.0f}{': MISSED' if missed else ''})" if budget else ""))
    return not missed


def main() -> int:
    """Both jobs; 1 if a budget is missed."""
    zone = Held(clean_zone())
    correct = corrector(ECC)
    good = measure(
        "ECC of a clean zone", ZONE, lambda: read_zone(zone, Zone("console", 0, 0, ZONE), ECC, "little", correct), 20
    )
    memory = Held(random.Random(2).randbytes(MEMORY))
    measure("a dump of memory, searched for regions", MEMORY, lambda: list(find_headers(memory)), None)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
