# SPDX-License-Identifier: Apache-2.0
"""Kernels that crash with kdump loaded: a crash kernel saves their memory, and this checkout reads the log in it."""

import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pstored.intake.sources import open_source
from pstored.readers import load
from pstored.readers.model import Options, Salvaged

from .checks import Collected, check_boots, check_nothing_new, check_text, read_collected
from .scenarios import STAMP, Bench, Scenario, boot_id, collect
from .vm import Vm, load_crash_kernel

CRASH_KERNEL = "crashkernel=160M"
DUMP = "makedumpfile --message-level 0 -d 31"
"""Of the kernel's memory only what is the kernel's, and not free: what the distributions save."""
# /proc/vmcore itself, read in the crash kernel; and what other programs read in it
READ_HERE = f"""
cd /
export PYTHONPATH={Path(__file__).resolve().parents[2]} LC_ALL=C.UTF-8
{sys.executable} -c '
from pstored.readers.kdump.vmcore import READER
from pstored.readers.model import Options
from pstored.intake.sources import open_source
vmcore = open_source("/proc/vmcore")
assert READER.recognize(vmcore)
(log,) = READER.read(vmcore, Options())
open("/job/log.vmcore", "wb").write(log.data)
' || exit 1
{Path(sys.executable).parent}/pstored collect >/job/collected 2>&1
makedumpfile --dump-dmesg /proc/vmcore /job/dmesg.202611230418 >/dev/null || exit 1
vmcore-dmesg /proc/vmcore >/job/vmcore-dmesg.txt || exit 1
"""
# as kdump-tools does it on Debian
SAVE_DEBIAN = f"""
stamp=$(date +%Y%m%d%H%M)
mkdir -p /var/crash/$stamp
cp /job/dmesg.202611230418 /var/crash/$stamp/dmesg.$stamp
{DUMP} -F -c /proc/vmcore >/var/crash/$stamp/dump.$stamp || exit 1
cp /var/crash/$stamp/dump.$stamp /job/form-flattened
"""
# as kdump-utils does it on Fedora
SAVE_FEDORA = f"""
directory=/var/crash/127.0.0.1-$(date +%Y-%m-%d-%H:%M:%S)
mkdir -p $directory
cp /job/vmcore-dmesg.txt $directory/
{DUMP} -l /proc/vmcore $directory/vmcore-incomplete || exit 1
mv $directory/vmcore-incomplete $directory/vmcore
cp $directory/vmcore /job/form-lzo
"""
# the other forms that there are
SAVE_FORMS = f"""
{DUMP} -E /proc/vmcore /job/form-elf || exit 1
{DUMP} /proc/vmcore /job/form-plain || exit 1
{DUMP} -F -E /proc/vmcore >/job/form-flattened-elf || exit 1
"""
LIST = "(cd /var/crash && find . -type f -exec sha256sum {} + | sort) >/job/"


def crash(bench: Bench, capture: str, *, arguments: str = "") -> Vm:
    """Crash with kdump loaded, and let the crash kernel do *capture*."""
    bench.machine.arguments = f"{CRASH_KERNEL} {arguments}"
    script = STAMP + load_crash_kernel(bench.kernel)
    vm = bench.machine.crash(bench.start("crash", script, capture=capture + LIST + "saved\n"))
    if not (vm.job / "captured").exists() or (vm.job / "captured").read_text().strip() != "0":
        raise vm.lost(f"saved no memory:\n{(vm.job / 'capture.log').read_text(errors='replace')[-2000:]}\n")
    assert "this is the kdump kernel" in (vm.job / "collected").read_text()
    return vm


def log_in(path: Path, kind: str = "vmcore") -> Salvaged:
    """What a reader finds in a file that a crash kernel has written."""
    source = open_source(str(path))
    reader = load(kind)
    assert reader.recognize(source), path
    (found,) = reader.read(source, Options())
    source.close()
    assert isinstance(found, Salvaged), (path, found)
    assert not found.damage, (path, found.damage)
    return found


def check_forms(vm: Vm) -> list[str]:
    """Every form of the dump gives the same log; other programs find the same lines in it.  Gives the forms."""
    log = (vm.job / "log.vmcore").read_bytes()
    forms = sorted(path for path in vm.job.iterdir() if path.name.startswith("form-"))
    for path in forms:
        assert log_in(path).data == log, path
        path.unlink()
    without_levels = re.sub(rb"(?m)^<\d+>", b"", log)
    for name in ("dmesg.202611230418", "vmcore-dmesg.txt"):
        assert log_in(vm.job / name, "vmcore-dmesg").data == without_levels, name
    # makedumpfile's own words, untouched but for the lines that it puts below a first one
    theirs = (vm.job / "dmesg.202611230418").read_bytes().splitlines()
    ours = without_levels.splitlines()
    assert [line for line in theirs if line.startswith(b"[")] == [
        our for our, line in zip(ours, theirs, strict=True) if line.startswith(b"[")
    ]
    return [path.name.removeprefix("form-") for path in forms]


def collect_twice(bench: Bench, crashed: Vm) -> Collected:
    """Collect; what kdump has saved is as it was then, and another run finds nothing new."""
    collected = bench.collect(after=LIST + "still\n" + collect("-again"))
    assert (collected.job / "still").read_text() == (crashed.job / "saved").read_text()
    check_nothing_new(read_collected(collected.job, "-again"), crashes=1)
    return collected


def kdump_and_pstore_are_one_crash(directory: Path, kernel: str) -> str:
    """ramoops and kdump have both the panic: one crash, both sources, one text; nothing below /var/crash changes."""
    bench = Bench(directory, kernel, "ramoops")
    capture = READ_HERE + SAVE_DEBIAN + SAVE_FORMS
    crashed = crash(bench, capture, arguments="crash_kexec_post_notifiers")
    forms = check_forms(crashed)
    collected = collect_twice(bench, crashed)
    check_boots(collected, [boot_id(crashed)])
    assert collected.status == 0, collected.said
    (report,) = collected.crashes()
    backends = sorted({record["name"].split("-")[1] for record in report["records"]})
    assert backends == ["kdump", "ramoops"], report["records"]
    assert report["severity"] == "panic"
    assert report["complete"], report["dumps"]
    lines = check_text(collected.text(report), crashed.serial)
    assert lines == (crashed.job / "log.vmcore").read_bytes().count(b"\n")
    assert any("the memory dump is /var/crash/" in note for note in report["notes"]), report["notes"]
    return f"one crash from {' and '.join(backends)}, {lines} lines; the same log in {', '.join(forms)}, /proc/vmcore"


def kdump_alone_is_collected(directory: Path, kernel: str) -> str:
    """As kdump is by default, pstore gets nothing: the crash is told from the dump, whose ring is not in the image."""
    bench = Bench(directory, kernel, "ramoops")
    crashed = crash(bench, READ_HERE + SAVE_FEDORA, arguments="log_buf_len=1M")
    forms = check_forms(crashed)
    collected = collect_twice(bench, crashed)
    assert not collected.listed
    check_boots(collected, [boot_id(crashed)])
    (report,) = collected.crashes()
    assert [record["name"].split("-")[1] for record in report["records"]] == ["kdump"]
    lines = check_text(collected.text(report), crashed.serial)
    return f"nothing in pstore; {lines} lines out of {', '.join(forms)} and /proc/vmcore, as on the console"


def _table() -> Iterator[Scenario]:
    def line(name: str, function: Callable[..., str], **arguments: Any) -> Scenario:
        return Scenario(name, functools.partial(function, **arguments))

    yield line("10-kdump-6.1", kdump_and_pstore_are_one_crash, kernel="6.1")
    yield line("10-kdump-6.12", kdump_alone_is_collected, kernel="6.12")


KDUMP_SCENARIOS = tuple(_table())
