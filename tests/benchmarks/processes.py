# SPDX-License-Identifier: Apache-2.0
"""Whole processes, timed: the program as it is installed, and the stores that it is given."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fake_pstore.capture import load, populate_root
from fake_pstore.tree import write_record

REPOSITORY = Path(__file__).parents[2]
RUNS = int(os.environ.get("BENCH_RUNS", "15"))
PANIC = "x86_64-6.1deb-efi"
PYTHON = shutil.which("/usr/bin/python3") or sys._base_executable  # type: ignore[attr-defined]
"""What runs the program where it is installed."""
LEDGER = 999
"""So many boots it keeps, but for the running one."""
BARE = [PYTHON, "-c", "pass"]


class Sample(NamedTuple):
    """One run of a process."""

    wall_ms: float
    cpu_ms: float
    peak_mib: float
    """Of its memory, file pages included (getrusage(2), ru_maxrss)."""


class Contender(NamedTuple):
    """A command, and what must be made ready, uncounted, before each run."""

    name: str
    prepare: Callable[[Path], Sequence[str]]


@contextmanager
def installed() -> Iterator[str]:
    """The program, as ``make install`` leaves it: ``pstored``'s path.  It is gone at the end."""
    prefix = tempfile.mkdtemp(prefix="pstored-bench-")
    try:
        command = ["make", "-C", str(REPOSITORY), "--silent", "install", f"PREFIX={prefix}", f"PYTHON={PYTHON}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield f"{prefix}/bin/pstored"
    finally:
        shutil.rmtree(prefix)


def run_timed(command: Sequence[str], *, before: Callable[[], None] | None = None) -> Sample:
    """One run; *before* is called in the child."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=before)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {said.decode()}")
    return Sample(wall * 1e3, (used.ru_utime + used.ru_stime) * 1e3, used.ru_maxrss / 1024)


def run_once(contender: Contender) -> Sample:
    """Prepare a fresh directory, and time one run in it."""
    with tempfile.TemporaryDirectory(prefix="pstored-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        return run_timed(contender.prepare(Path(name)))


def measure(contenders: Sequence[Contender], runs: int = RUNS) -> dict[str, list[Sample]]:
    """Run all in turn, many times; the first round is not counted."""
    samples: dict[str, list[Sample]] = {c.name: [] for c in contenders}
    for turn in range(runs + 1):
        for contender in contenders:
            sample = run_once(contender)
            if turn:
                samples[contender.name].append(sample)
    return samples


def median(samples: list[Sample], field: str) -> float:
    """The median of one field."""
    return statistics.median(float(getattr(s, field)) for s in samples)


# -- stores


def a_panic(root: Path) -> Path:
    """A tree with the records of one real EFI panic."""
    populate_root(root, load(PANIC))
    return root


def records(root: Path, number: int) -> Path:
    """The same tree with so many records, each of the size of a real one, and none like another."""
    a_panic(root)
    store = root / "sys/fs/pstore"
    real = next(path.read_bytes() for path in sorted(store.iterdir()))
    body = real.partition(b"\n")[2]
    for path in store.iterdir():
        path.unlink()
    for n in range(number):
        name = f"dmesg-erst-{7711216860565340160 + n}"
        write_record(store / name, b"Panic#1 Part%d\n" % (n + 1) + body, 1_795_408_410_000_000_000)
    return root


def a_console(root: Path, size: int = 2 << 20) -> Path:
    """The same tree with one long console, of a log without a report."""
    records(root, 0)
    lines = b"".join(b"[%12.6f] usb 1-1: new high-speed USB device number 2\n" % (n / 1000) for n in range(size // 64))
    write_record(root / "sys/fs/pstore/console-ramoops-0", lines, 1_795_408_410_000_000_000)
    return root


STORES: dict[str, Callable[[Path], Path]] = {
    "1 record": lambda root: records(root, 1),
    "a real panic": a_panic,
    "63 records": lambda root: records(root, 63),
    "1,000 records": lambda root: records(root, 1000),
    "a console of 2 MiB": a_console,
}
"""What a harvest is given, by name."""


# -- archives


def a_crash_archived(root: Path, pstored: str) -> Path:
    """A tree whose archive has one crash, kept for ever, and whose store is empty."""
    a_panic(root)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/pstored.conf").write_text(f"[archive]\nmax_harvests = 0\nmax_bytes = {1 << 40}\n")
    subprocess.run([pstored, "--root", str(root), "collect"], check=True, stdout=subprocess.DEVNULL)
    return root


def many_crashes(root: Path, pstored: str, number: int) -> Path:
    """The same with so many: copies of the one under other ids and of other boots, with harvests, ledger and all."""
    a_crash_archived(root, pstored)
    archive = root / "var/lib/pstored"
    (first,) = (path.name for path in (archive / "crashes").iterdir())
    ledger = (archive / "boots.jsonl").read_bytes()
    running = json.loads(ledger)
    lines = []
    for n in range(number - 1):
        name = f"20260101T{n // 3600 % 24:02}{n // 60 % 60:02}{n % 60:02}Z-{n:012x}"
        other = f"{n:08x}{running['boot_id'][8:]}"
        lines.append(json.dumps(running | {"boot_id": other, "witnesses": [[False, "ledger: it has noted none"]]}))
        for kind in ("crashes", "harvests"):
            (archive / kind / name).mkdir()
            for path in (archive / kind / first).iterdir():
                data = path.read_bytes().replace(first.encode(), name.encode())
                (archive / kind / name / path.name).write_bytes(data)
        report = archive / "crashes" / name / "crash.json"
        crash = json.loads(report.read_bytes())
        crash["boot"] |= {"id": other, "method": "stamp", "confidence": "certain"}
        crash["summary"] |= {"boot": other, "method": "stamp", "confidence": "certain"}
        report.write_text(json.dumps(crash, indent=2))
    (archive / "boots.jsonl").write_bytes("\n".join([*lines[-LEDGER:], ""]).encode() + ledger)
    subprocess.run([pstored, "--root", str(root), "collect"], check=True, stdout=subprocess.DEVNULL)  # makes the caches
    return root
