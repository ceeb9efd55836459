# SPDX-License-Identifier: Apache-2.0
"""What the running system says of itself; what is not there is None, what is nonsense too."""

from pathlib import Path
from typing import Any

import pytest

from pstored.host import MAX_FACT, Host, free_bytes, mounts, volatile_reason
from tests.conftest import BOOT_ID, MakeRoot, can_mount, forked, mount, require


def test_facts_of_a_tree(root: MakeRoot) -> None:
    """All of them, from below the root, the clock as given."""
    made = root(kernel="6.12.1", btime=1, backend="ramoops", cmdline="quiet panic=1", uptime_s=12.5, tainted=4096)
    facts = Host(str(made.path), clock_ns=lambda: 42).facts()
    assert facts.boot_id == BOOT_ID
    assert facts.kernel_release == "6.12.1"
    assert facts.cmdline == "quiet panic=1"
    assert (facts.uptime_s, facts.wall_ns) == (12.5, 42)
    assert (facts.oops_count, facts.tainted) == (0, 4096)
    assert facts.backend == "ramoops"
    assert facts.machine_id is not None
    assert facts.kernel_version is not None


def test_facts_of_nothing(tmp_path: Path) -> None:
    """An empty tree: all None but the clock; no pstore backend is None, too."""
    facts = Host(str(tmp_path), clock_ns=lambda: 7).facts()
    assert set(facts._replace(wall_ns=0)) == {None, 0}
    (tmp_path / "sys/module/pstore/parameters").mkdir(parents=True)
    (tmp_path / "sys/module/pstore/parameters/backend").write_text("(null)\n")
    assert Host(str(tmp_path)).facts().backend is None
    assert Host(str(tmp_path)).pstore_parameters() == {"pstore.backend": "(null)"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{BOOT_ID}\n", BOOT_ID),
        (BOOT_ID.upper(), BOOT_ID),
        ("", None),
        ("rubbish", None),
        (BOOT_ID.replace("-", ""), None),
        (f"{BOOT_ID} {BOOT_ID}", None),
    ],
)
def test_boot_id(root: MakeRoot, text: str, expected: str | None) -> None:
    """Lower case with dashes, or none: never half of one."""
    made = root()
    made.write("proc/sys/kernel/random/boot_id", text)
    assert Host(str(made.path)).boot_id() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0\n", 0), ("17", 17), ("", None), ("-1", None), ("1.5", None), ("\u0663", None), ("9" * 30, None), ("x", None)],
)
def test_numbers(root: MakeRoot, text: str, expected: int | None) -> None:
    """Decimal digits of a sane length only."""
    made = root()
    made.write("sys/kernel/oops_count", text)
    made.write("proc/sys/kernel/tainted", text)
    facts = Host(str(made.path)).facts()
    assert facts.oops_count == facts.tainted == expected


@pytest.mark.parametrize(
    ("oops_count", "tainted", "expected"),
    [
        ("0", "0", False),
        ("0", "128", True),
        ("3", "0", True),
        ("3", "128", True),
        ("0", "127", False),
        ("0", None, False),
        ("x", "0", False),
        (None, "0", False),
        (None, "127", False),
        (None, "128", True),
        (None, "255", True),
        (None, None, None),
        ("", "", None),
    ],
)
def test_oops_happened(root: MakeRoot, oops_count: str | None, tainted: str | None, expected: bool | None) -> None:
    """The count or bit 7 of the taint mask, whichever says so first; unknown only if neither can be read."""
    made = root()
    for path, text in (("sys/kernel/oops_count", oops_count), ("proc/sys/kernel/tainted", tainted)):
        (made.path / path).unlink()
        if text is not None:
            made.write(path, text)
    assert Host(str(made.path)).oops_happened() is expected


def test_large_and_strange_files_are_read_in_bounds(root: MakeRoot) -> None:
    """No more than 64 KiB, whatever stands there; bytes that are no UTF-8 do no harm."""
    made = root()
    (made.path / "proc/cmdline").write_bytes(b"\xff" * (2 * MAX_FACT))
    facts = Host(str(made.path)).facts()
    assert facts.cmdline == "\ufffd" * MAX_FACT
    (made.path / "proc/cmdline").unlink()
    (made.path / "proc/cmdline").mkdir()
    assert Host(str(made.path)).facts().cmdline is None


def test_pstore_parameters(root: MakeRoot) -> None:
    """Those of pstore and its backends, and printk's."""
    made = root(kernel="6.1.1", btime=1, backend="ramoops")
    made.write("sys/module/ramoops/parameters/ecc", "1\n")
    made.write("sys/module/printk/parameters/always_kmsg_dump", "N\n")
    assert Host(str(made.path)).pstore_parameters() == {
        "pstore.backend": "ramoops",
        "ramoops.ecc": "1",
        "printk.always_kmsg_dump": "N",
    }


def test_this_systems_mounts() -> None:
    """The root is one of them, with a device and a type."""
    rootfs = [m for m in mounts() if m.point == "/"][-1]
    assert ":" in rootfs.device
    assert rootfs.type


def test_what_does_not_survive_a_reboot(tmp_path: Path) -> None:
    """tmpfs, ramfs and an overlay on one are said to be volatile, by the nearest parent there is; a disk is not."""
    require(can_mount(), "mount namespaces need root")
    for name in ("tmp fs", "ram", "lower", "merged", "disk", "point"):
        (tmp_path / name).mkdir()

    def child() -> list[Any]:
        mount("-t", "tmpfs", "tmpfs", tmp_path / "tmp fs")
        mount("-t", "ramfs", "ramfs", tmp_path / "ram")
        (tmp_path / "tmp fs/deep").mkdir()
        mount("--bind", tmp_path / "disk", tmp_path / "point")  # under the tmpfs: what lies below is not what counts
        mount("-t", "tmpfs", "tmpfs", tmp_path / "point")
        for name in ("upper", "work"):
            (tmp_path / "point" / name).mkdir()
        options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/point/upper,workdir={tmp_path}/point/work"
        mount("-t", "overlay", "-o", options, "overlay", tmp_path / "merged")
        names = ("tmp fs", "tmp fs/deep", "tmp fs/not/there/yet", "ram", "merged", "disk", "disk/not/there")
        return [volatile_reason(str(tmp_path / name)) for name in names]

    found = forked(child, new_mounts=True)
    assert all(reason is not None and "tmpfs" in reason for reason in found[:3])
    assert "ramfs" in str(found[3])
    assert "overlay on a tmpfs" in str(found[4])
    if not {"tmpfs", "overlay"} & {m.type for m in mounts() if str(tmp_path).startswith(m.point) and m.point != "/"}:
        assert found[5:] == [None, None]


def test_mount_over_a_mount(tmp_path: Path) -> None:
    """What counts is the mount that is seen, not what lies under it."""
    require(can_mount(), "mount namespaces need root")
    (tmp_path / "disk").mkdir()
    (tmp_path / "at").mkdir()

    def child() -> list[Any]:
        mount("-t", "tmpfs", "tmpfs", tmp_path / "at")
        first = volatile_reason(str(tmp_path / "at"))
        mount("--bind", tmp_path / "disk", tmp_path / "at")
        return [first, volatile_reason(str(tmp_path / "at")), volatile_reason(str(tmp_path / "disk"))]

    first, over, disk = forked(child, new_mounts=True)
    assert first is not None
    assert over == disk


def test_free_bytes(tmp_path: Path) -> None:
    """Of a real file system; None where there is none."""
    assert (free_bytes(str(tmp_path)) or 0) > 0
    assert free_bytes(str(tmp_path / "none")) is None
    assert free_bytes("/proc") is None  # no blocks, as efivarfs before it told


def test_crash_kernel(root: MakeRoot) -> None:
    """Known by /proc/vmcore."""
    made = root()
    assert not Host(str(made.path)).is_crash_kernel()
    made.write("proc/vmcore", "")
    assert Host(str(made.path)).is_crash_kernel()
