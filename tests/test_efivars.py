# SPDX-License-Identifier: Apache-2.0
"""Whether an erased EFI record is really gone, and whether its space came back."""

import os
from pathlib import Path
from typing import Any

import pytest

from fake_pstore.names import efi_id, efi_variable
from pstored import steps
from pstored.config import Config
from pstored.efivars import CRASH_GUID, CrashVariables
from pstored.harvest import Pass, harvest
from pstored.host import Host
from tests.conftest import MakeRoot, Root, can_mount, forked, mount, require

SECONDS = 1_795_407_522
EFIVARS = "sys/firmware/efi/efivars"
DATA = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: x\n"


def add_variable(root: Root, part: int, count: int = 1, *, compressed: bool = True) -> Path:
    """A crash variable as efivarfs shows it."""
    directory = root.path / EFIVARS
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{efi_variable(part, count, SECONDS, compressed=compressed)}-{CRASH_GUID}"
    path.write_bytes(b"\x07\x00\x00\x00" + DATA)
    return path


def add_record(root: Root, part: int, count: int = 1) -> str:
    """The record of that variable."""
    name = f"dmesg-efi_pstore-{efi_id(SECONDS, part, count)}"
    root.add(name, DATA + b"%d %d" % (part, count))
    return name


@pytest.mark.parametrize(("part", "count"), [(1, 1), (15, 2), (99, 999), (100, 1), (123, 7)])
@pytest.mark.parametrize("compressed", [True, False])
def test_still_there(root: MakeRoot, part: int, count: int, compressed: bool) -> None:
    """True while it can be read, False once it cannot; the id of part 100 and more runs over into the seconds."""
    made = root()
    path = add_variable(made, part, count, compressed=compressed)
    variables = CrashVariables(Host(str(made.path)))
    record_id = efi_id(SECONDS, part, count)
    assert variables.still_there(record_id) is True
    path.write_bytes(b"")  # as efivarfs has it: the name stays until it is mounted again, reading gives nothing
    assert variables.still_there(record_id) is False
    path.unlink()
    assert variables.still_there(record_id) is False


def test_unknown_is_none(root: MakeRoot) -> None:
    """No efivarfs, another's variable, a record without an id, an old kernel's bare part number: nobody knows."""
    made = root()
    record_id = efi_id(SECONDS, 1, 1)
    assert CrashVariables(Host(str(made.path))).still_there(record_id) is None
    add_variable(made, 2)
    directory = made.path / EFIVARS
    for name in (
        "BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c",
        f"dump-type0-x-{CRASH_GUID}",
        f"dump-type0-{CRASH_GUID}",
    ):
        (directory / name).write_bytes(b"\x07\x00\x00\x00rest")
    (directory / f"dump-type0-1-1-{SECONDS}-C-8be4df61-93ca-11d2-aa0d-00e098032b8c").write_bytes(b"not of ours")
    variables = CrashVariables(Host(str(made.path)))
    assert variables.still_there(record_id) is None
    assert variables.still_there(None) is None
    assert variables.still_there(1) is None
    assert variables.still_there(efi_id(SECONDS, 2, 1)) is True


def run(root: Root) -> Pass:
    """A pass in this process."""
    return harvest(Host(str(root.path)), Config())


def on_firmware(root: Root, *, gives_back: bool, really: bool = True, parts: int = 2, size: str = "1M") -> Pass:
    """A pass on a store whose variables lie in an efivarfs of their own; pstore's unlink removes them, or not."""
    require(can_mount(), "mount namespaces need root")
    (root.path / EFIVARS).mkdir(parents=True, exist_ok=True)

    def child() -> Any:
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", root.path / EFIVARS)
        paths = {}
        for part in range(1, parts + 1):
            paths[add_record(root, part)] = add_variable(root, part)

        def firmware(name: str) -> None:
            what, _, record = name.partition(" ")
            if what == "erase" and really:
                if not gives_back:
                    (root.path / EFIVARS / f"garbage-{record}").write_bytes(bytes(paths[record].stat().st_size))
                paths[record].unlink()

        steps.hook = firmware
        return run(root)

    done: Pass = forked(child, new_mounts=True)
    return done


def test_variable_and_space_are_gone(root: MakeRoot) -> None:
    """All as it should be: erased, no warning, and erased.json has the space."""
    made = root()
    done = on_firmware(made, gives_back=True)
    assert {str(e.outcome) for e in done.erasures} == {"erased"}
    assert (done.exit_status(), done.warnings) == (0, ())
    space = made.load(f"harvests/{done.harvest_id}/erased.json")["space"]
    assert space["efi_free_after"] > space["efi_free_before"]


def test_space_that_does_not_come_back_is_no_matter_while_there_is_much(root: MakeRoot) -> None:
    """OVMF gives none back before it is nearly full: noted, and nobody is alarmed."""
    made = root()
    done = on_firmware(made, gives_back=False)
    assert done.warnings == ()
    space = made.load(f"harvests/{done.harvest_id}/erased.json")["space"]
    assert space["efi_free_after"] <= space["efi_free_before"]


def test_space_that_does_not_come_back(root: MakeRoot) -> None:
    """Erased, but the room is still taken, and little is left: a warning, since the next crash may find none."""
    made = root()
    done = on_firmware(made, gives_back=False, size="64k")
    assert {str(e.outcome) for e in done.erasures} == {"erased"}
    assert len(done.warnings) == 1
    assert "has not given back the space of 2 erased variables" in done.warnings[0]
    space = made.load(f"harvests/{done.harvest_id}/erased.json")["space"]
    assert space["efi_free_after"] <= space["efi_free_before"]


def test_variable_that_the_firmware_keeps(root: MakeRoot) -> None:
    """pstore says erased, the firmware still has it: failed, exit 1; it will come back, and is then known."""
    made = root()
    done = on_firmware(made, gives_back=False, really=False)
    assert {str(e.outcome) for e in done.erasures} == {"failed"}
    assert all("firmware still has the variable" in e.why for e in done.erasures)
    assert done.exit_status() == 1
    assert made.names() == []
    for part in (1, 2):
        add_record(made, part)
    again = run(made)
    assert (again.archived, again.known) == ((), 2)


def test_no_efivarfs_is_no_trouble(root: MakeRoot) -> None:
    """Where efivarfs is not mounted, the erase counts as done."""
    made = root()
    name = add_record(made, 1)
    assert not os.path.exists(made.path / EFIVARS)
    done = run(made)
    assert [(e.name, str(e.outcome)) for e in done.erasures] == [(name, "erased")]
    assert done.warnings == ()
