# SPDX-License-Identifier: Apache-2.0
"""A real kernel crashes far away, and ``pstored netconsole`` here has its last words: those of its serial line."""

from pathlib import Path

import pytest

from pstored.logs import Log
from tests import readers
from tests.conftest import Root
from tests.test_netconsole import crashes, listening

from .conftest import Found
from .test_vm import directory
from .vm import Machine, Start

pytestmark = pytest.mark.vm
__all__ = ["directory"]

STAMP = (
    "echo '<12>pstored: boot '$(cat /proc/sys/kernel/random/boot_id) >/dev/kmsg; cat /proc/sys/kernel/random/boot_id\n"
    "sleep 1\n"
)
"""What netpoll cannot send at once it leaves to a worker, which a panic stops: then nothing of a boot came."""


@pytest.mark.parametrize(("kernel", "extended"), [("6.1", ""), ("6.12", "+")], ids=["6.1-plain", "6.12-extended"])
def test_crash_of_another_machine(kernel: str, extended: str, directory: Path, found: Found) -> None:
    """Two boots panic: two crashes, of their sender, not of this machine, each line as on the serial console."""
    # panic=1: or else QEMU ends before what is in its network's queue is on the way
    machine = Machine(directory=directory / "machine", kernel=kernel, disk=False, network=True, arguments="panic=1")
    root = Root(path=directory / "root")
    root.path.mkdir()
    with listening(root) as listener:
        target = f"netconsole={extended}6665@10.0.2.15/eth0,{listener.port}@10.0.2.2/52:55:0a:00:02:02"
        start = Start("crash", STAMP, load=["virtio_net", f"netconsole {target}"])
        crashed = [machine.crash(start), machine.crash(start)]
        listener.wait_for(lambda: len(crashes(root)) == 2, "second crash")
        assert listener.stop() == 0
    taken = crashes(root)
    lines = 0
    for vm, crash in zip(crashed, taken, strict=True):
        assert (crash["title"], crash["severity"]) == ("Kernel panic: sysrq triggered crash", "panic")
        assert crash["sender"]["address"] == "127.0.0.1"
        assert (crash["boot"]["id"], crash["boot"]["confidence"]) == (vm.log.strip(), "low")
        assert crash["complete"], crash["notes"]
        received = Log((root.archive / "crashes" / crash["id"] / "console.txt").read_bytes())
        (serial,), _ = readers.read("serial", vm.serial)
        shown = Log(serial.data)
        assert [e.strict for e in received.events] == [e.strict for e in shown.events]
        # of what the kernel has said since the target was there, every line has come
        assert received.span is not None
        wanted = {line for line in shown.distinctive if line[0] >= received.span[0]}
        assert wanted - received.distinctive == set()
        lines += len(wanted)
    found(f"2 crashes, {lines} lines as on the serial console")
