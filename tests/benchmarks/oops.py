# SPDX-License-Identifier: Apache-2.0
"""How fast logs are read, in MB of text a second of CPU: ``python tests/benchmarks/oops.py [LOG...]``.

The budgets: text without a report 100 MB/s, reports and nothing else 10 MB/s.  A miss is printed as one, and is the
exit status.  Other processes on the same cores slow this down, too: run it on a quiet machine.

No two reports are equal: addresses, offsets, registers and most functions of a trace are each report's own, so that
nothing is gained by remembering what was read before.  Real logs repeat themselves more than that.
"""

import re
import sys
import time
from pathlib import Path
from random import Random
from string import ascii_lowercase

sys.path.insert(0, str(Path(__file__).parents[2]))

from pstored.oops import analyze
from tests.test_oops_dialects import DIALECTS

RUNS = 7
SIZE = 16_000_000
BOOT = (
    "Linux version 6.1.192 (builder@host) (gcc 12.2.0, GNU ld 2.40) #1 SMP PREEMPT_DYNAMIC Mon Nov 23 04:07:06 2026",
    "Command line: console=ttyS0 root=/dev/mmcblk0p2 ro quiet panic=10 ramoops.ecc=1",
    "BIOS-e820: [mem 0x0000000000100000-0x000000001dffffff] usable",
    "ACPI: RSDP 0x00000000000F59D0 000014 (v00 BOCHS )",
    "pci 0000:00:1f.2: BAR 5 [mem 0xfebd1000-0xfebd1fff]: assigned",
    "usb 1-1: New USB device found, idVendor=0627, idProduct=0001, bcdDevice= 0.00",
    "EXT4-fs (mmcblk0p2): mounted filesystem with ordered data mode. Quota mode: none.",
    "systemd[1]: Started Journal Service.",
    'audit: type=1400 audit(1795408410.250:2): apparmor="STATUS" operation="profile_load" profile="unconfined"',
    "gauge 1-0042: registered as gauge0, range 0 to 4095",
)


def clean() -> bytes:
    """A console that tells of no crash, as long as SIZE."""
    lines = [f"<6>[{n / 1000:12.6f}] {BOOT[n % len(BOOT)]}\n" for n in range(SIZE // 80)]
    return "".join(lines).encode()[:SIZE]


FRAMES = 24
"""Of a usual trace; those of the dialects are short."""
_NUMBER = re.compile(r"(?<=0x)[0-9a-f]{1,16}|\b[0-9a-f]{8,16}\b")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(?=\+0x|\)? from )")


def crashes() -> bytes:
    """Reports of every architecture, and nothing else."""
    size = SIZE // 8
    random = Random(1)
    reports: list[str] = []
    while sum(map(len, reports)) < size:
        reports += (vary(lengthen(dialect.text, random), random) for dialect in DIALECTS.values())
    return "".join(reports).encode()[:size]


def lengthen(report: str, random: Random) -> str:
    """The same report with a trace as long as they are: its last frame but one, again and again, of other functions."""

    def another(name: re.Match[str]) -> str:
        return "".join(random.choice(ascii_lowercase) if letter.isalpha() else letter for letter in name[0])

    lines = report.splitlines(keepends=True)
    frames = [n for n, line in enumerate(lines) if "+0x" in line]
    at = frames[-2]
    more = [_FUNCTION.sub(another, lines[at]) for _ in range(FRAMES)]
    return "".join(lines[:at] + more + lines[at + 1 :])


def vary(report: str, random: Random) -> str:
    """The same report with other numbers of the same length."""
    return _NUMBER.sub(lambda number: f"{random.getrandbits(64):016x}"[: len(number[0])], report)


def measure(name: str, text: bytes, budget: float | None) -> bool:
    """Print the best of some runs; whether it is within the budget."""
    best = float("inf")
    for _ in range(RUNS):
        start = time.process_time()
        events = analyze(text)
        best = min(best, time.process_time() - start)
    rate = len(text) / 1e6 / best
    missed = budget is not None and rate < budget
    print(f"{name:30} {rate:7.1f} MB/s {len(events):7} events{f'  budget {budget}: MISSED' if missed else ''}")
    return not missed


def main() -> int:
    """Both texts, or the given logs."""
    logs = [Path(name) for name in sys.argv[1:]]
    if logs:
        return 0 if all(measure(log.name[:30], log.read_bytes(), None) for log in logs) else 1
    return 0 if all([measure("without a report", clean(), 100), measure("reports", crashes(), 10)]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
