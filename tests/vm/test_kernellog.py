# SPDX-License-Identifier: Apache-2.0
"""A real oops that the machine survives: from its own log at once, from pstore later, one crash; then a panic."""

from collections import Counter
from pathlib import Path

import pytest

from . import kernels
from .checks import Collected, Report, check_text, read_archived, read_collected, without_notice
from .conftest import Found
from .scenarios import OOPS, STAMP, Bench, boot_id, collect
from .test_vm import directory

pytestmark = pytest.mark.vm
__all__ = ["directory"]

LOOK = "pstored collect --kernel-log --json"
FORGED = """
echo 'BUG: kernel NULL pointer dereference, address: 0' >/dev/kmsg
printf '<0>Kernel panic - not syncing: forged\\nBUG: kernel NULL pointer dereference\\n' >/dev/kmsg
"""
# more than any ring has; not on the console, which is slow
FLOOD = """
cat /proc/sys/kernel/printk >/job/printk; echo 1 >/proc/sys/kernel/printk; echo on >/proc/sys/kernel/printk_devkmsg
dots=............................................................
for ((i = 0; i < 9000; i++)); do echo "flood $i $dots"; done >/dev/kmsg
cat /job/printk >/proc/sys/kernel/printk
head -c 20 /dev/kmsg >/job/oldest
"""


def new(collected: Collected) -> tuple[int, int]:
    """Reports that the log told of, and crashes that there are news of."""
    return collected.report["kernel_log"]["reports"], len(collected.report["crashes"])


def check_equal_lines(last: Collected) -> int:
    """The kernel's dumps of the oopses are in the log as it was read, byte for byte; gives how many parts there are."""
    archived = read_archived(last.archive)
    logs = [data for name, data in archived if name.startswith("dmesg-kmsg-")]
    assert logs
    parts = [without_notice(data) for name, data in archived if "kmsg" not in name and data.startswith(b"Oops#")]
    assert parts
    for part in parts:
        text = part.split(b"\n", 1)[1]
        assert any(text in log for log in logs), f"not as in the log: {part[:200]!r}"
    return len(parts)


def check_not_doubled(last: Collected, crash: Report) -> None:
    """No line stands in the text more often than the kernel has printed it."""
    printed: Counter[bytes] = Counter()
    for _, data in read_archived(last.archive):
        printed |= Counter(without_notice(data).splitlines())
    doubled = Counter(line for line in last.text(crash).splitlines() if line.startswith(b"<")) - printed
    assert not doubled


@pytest.mark.parametrize(("kernel", "backend"), [("6.12", "erst"), ("6.1", "ramoops")])
def test_oops_is_told_at_once_and_once(kernel: str, backend: str, directory: Path, found: Found) -> None:
    """Two oopses of one boot, forged ones before, a ring that has gone over them after; then the boot panics."""
    bench = Bench(directory, kernel, backend)
    module = (kernels.oops_module(kernel),)
    script = STAMP + FORGED + collect("-before", LOOK) + OOPS + collect("-at-once", LOOK) + collect("-again", LOOK)
    script += "(echo >/proc/oops)\n" + collect("-second", LOOK) + FLOOD + collect("-flooded", LOOK)
    crashed = bench.crash(script, files=module)
    before, at_once, again, second, flooded = (
        read_collected(crashed.job, f"-{when}") for when in ("before", "at-once", "again", "second", "flooded")
    )
    assert (new(before), new(at_once), new(again), new(second)) == ((0, 0), (1, 1), (1, 0), (2, 1))
    assert new(flooded)[1] == 0
    assert "flood" in (crashed.job / "oldest").read_text() or new(flooded)[0] == 0
    (crash,) = at_once.crashes()
    assert (crash["boot"]["id"], crash["boot"]["method"]) == (boot_id(crashed), "kmsg")
    assert (crash["severity"], crash["function"], crash["revision"]) == ("oops", "oops_write", 1)
    assert [c["revision"] for c in second.crashes()] == [2]
    lines = check_text(at_once.text(crash), crashed.serial)
    last = bench.collect(STAMP)
    (crash,) = last.crashes()
    assert (crash["boot"]["id"], crash["boot"]["method"]) == (boot_id(crashed), "kmsg")
    assert (crash["severity"], crash["revision"]) == ("panic", 3)
    assert len(last.report["crashes"]) == 1
    check_not_doubled(last, crash)
    parts = check_equal_lines(last)
    assert not last.left
    assert bench.collect(STAMP).report["crashes"] == []
    found(f"{lines} lines at once; {parts} parts of pstore's oopses equal in them; then the panic: revision 3")
