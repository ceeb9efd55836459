# SPDX-License-Identifier: Apache-2.0
"""What the running system says of itself: boot, kernel, clock, pstore's parameters, what the archive's disk is.

Every path is below ``root``; what is not there is None.
"""

from __future__ import annotations

import os
import time

from pstored.lean import TYPE_CHECKING, NamedTuple, suppress

if TYPE_CHECKING:
    from collections.abc import Callable

_HEX = frozenset("0123456789abcdef")
_OCTAL = frozenset("01234567")
BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"

TAINT_DIE = 1 << 7
"""``D`` in the taint mask: an oops has happened (Documentation/admin-guide/tainted-kernels.rst)."""

MAX_FACT = 64 * 1024
"""No file read here is longer, but for /proc/self/mountinfo, which is read whole."""


OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")


def is_boot_id(text: str) -> bool:
    """Whether it has the form of a boot id, in small letters: random(4), boot_id."""
    groups = text.split("-")
    return [len(group) for group in groups] == [8, 4, 4, 4, 12] and _HEX.issuperset("".join(groups))


class Facts(NamedTuple):
    """The running system at one moment."""

    boot_id: str | None
    machine_id: str | None
    kernel_release: str | None
    kernel_version: str | None
    """As ``uname -v``: build number and date."""
    cmdline: str | None
    uptime_s: float | None
    """Seconds since this boot began, time asleep included."""
    wall_ns: int
    """Nanoseconds since 1970 by this system's clock, right or wrong."""
    oops_count: int | None
    """Oopses since this boot; /sys/kernel/oops_count is there since Linux 6.2 and in later 6.1, 5.15, 5.10."""
    tainted: int | None
    backend: str | None
    """The active pstore backend; None if there is none, or the kernel has no pstore."""
    os_version: str | None = None
    """os-release(5): VERSION_ID."""
    os_build: str | None = None
    """Its BUILD_ID, or IMAGE_VERSION: what an update replaces."""


class Host:
    """Reads facts below *root*."""

    def __init__(self, root: str = "/", *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.root = root
        self._clock_ns = clock_ns

    def path(self, absolute: str) -> str:
        """Where *absolute* (``/proc/...``) is below the root."""
        return os.path.join(self.root, absolute.lstrip("/"))

    def read(self, absolute: str) -> str | None:
        """A small file's text without its last newline; None if it cannot be read."""
        try:
            fd = os.open(self.path(absolute), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            text = b""
            while (room := MAX_FACT - len(text)) and (piece := os.read(fd, room)):
                text += piece
        except OSError:
            return None
        finally:
            os.close(fd)
        return text.decode(errors="replace").rstrip("\n")

    def _number(self, absolute: str) -> int | None:
        text = (self.read(absolute) or "").strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    def boot_id(self) -> str | None:
        """The running boot's id, lower case with dashes."""
        text = (self.read(BOOT_ID_FILE) or "").strip().lower()
        return text if is_boot_id(text) else None

    def uptime_s(self) -> float | None:
        """From /proc/uptime."""
        first = (self.read("/proc/uptime") or "").split(" ")[0]
        try:
            return float(first)
        except ValueError:
            return None

    def oops_happened(self) -> bool | None:
        """Whether this boot has seen an oops; None if the kernel does not say."""
        count = self._number("/sys/kernel/oops_count")
        tainted = self._number("/proc/sys/kernel/tainted")
        if count is None and tainted is None:
            return None
        # both: an oops taints before it writes its dump, and is counted after (kernel/panic.c, arch's oops_end())
        return bool(count) or bool((tainted or 0) & TAINT_DIE)

    def facts(self) -> Facts:
        """All of it, read now."""
        backend = self.read("/sys/module/pstore/parameters/backend")
        release = self.os_release()
        return Facts(
            boot_id=self.boot_id(),
            machine_id=self.read("/etc/machine-id") or None,
            kernel_release=self.read("/proc/sys/kernel/osrelease"),
            kernel_version=self.read("/proc/sys/kernel/version"),
            cmdline=self.read("/proc/cmdline"),
            uptime_s=self.uptime_s(),
            wall_ns=self._clock_ns(),
            oops_count=self._number("/sys/kernel/oops_count"),
            tainted=self._number("/proc/sys/kernel/tainted"),
            backend=None if backend in (None, "", "(null)") else backend,
            os_version=release.get("VERSION_ID"),
            os_build=os_build(release),
        )

    def os_release(self) -> dict[str, str]:
        """os-release(5): shell assignments, without expansion; what is none is left out."""
        text = next((text for path in OS_RELEASE if (text := self.read(path)) is not None), "")
        found = {}
        for line in text.splitlines():
            name, equals, value = line.strip().partition("=")
            if not equals or name.startswith("#"):
                continue
            if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]:
                value = value[1:-1]
            if value:
                found[name] = value
        return found

    def pstore_parameters(self) -> dict[str, str]:
        """What sysfs shows of pstore and its backends, e.g. ``{"ramoops.ecc": "1"}`` (kernel-formats 1.8)."""
        found = {}
        for module in ("pstore", "ramoops", "efi_pstore", "pstore_blk", "mtdoops"):
            directory = f"/sys/module/{module}/parameters"
            with suppress(OSError):
                for name in sorted(os.listdir(self.path(directory))):
                    if (value := self.read(f"{directory}/{name}")) is not None:
                        found[f"{module}.{name}"] = value
        if (value := self.read("/sys/module/printk/parameters/always_kmsg_dump")) is not None:
            found["printk.always_kmsg_dump"] = value
        return found

    def is_crash_kernel(self) -> bool:
        """Whether this is the kdump kernel, where nothing must be harvested (kernel-formats 11.4)."""
        return os.path.exists(self.path("/proc/vmcore"))


def os_build(release: dict[str, str]) -> str | None:
    """Which build of the system an os-release(5) is of; None if it does not say."""
    return release.get("BUILD_ID") or release.get("IMAGE_VERSION")


class Mount(NamedTuple):
    """One line of mountinfo, as far as it matters here."""

    device: str
    """``major:minor``."""
    point: str
    type: str
    options: str
    """Those of the super block."""


def mounts() -> list[Mount]:
    """The mounts of this process, from /proc/self/mountinfo (proc(5)); empty if it cannot be read."""
    try:
        return _read_mounts()
    except OSError:
        return []


def _read_mounts() -> list[Mount]:
    """As :func:`mounts`; raises what keeps the file from being read, if it is there."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
            lines = f.read().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        before, dash, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if dash and len(left) > 4 and len(right) > 2:
            found.append(Mount(left[2], _unescape(left[4]), right[0], right[-1]))
    return found


def _unescape(point: str) -> str:
    """Blanks, tabs, newlines and backslashes stand in mountinfo as octal numbers of three digits (seq_path())."""
    first, *rest = point.split("\\")
    return first + "".join(
        chr(int(part[:3], 8)) + part[3:] if _OCTAL.issuperset(part[:3]) and len(part) > 2 else "\\" + part
        for part in rest
    )


def volatile_reason(path: str) -> str | None:
    """Why what is written to the directory *path* would not survive a reboot; None if it would.

    Looks at the mount that holds the nearest existing parent.
    """
    try:
        return _volatile_reason(path)
    except OSError as e:
        return f"the mounts cannot be read, so it may be in memory: {e.strerror}"


def _volatile_reason(path: str) -> str | None:
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    all_mounts = _read_mounts()
    mount = next((m for m in reversed(all_mounts) if m.device == number), None)
    if mount is None:
        return None
    if mount.type in ("tmpfs", "ramfs", "rootfs"):
        return f"{mount.point!r} is a {mount.type}, which is gone after a reboot"
    if mount.type == "overlay":
        upper = next((o[9:] for o in mount.options.split(",") if o.startswith("upperdir=")), None)
        if upper is None:
            return None
        under = max(
            # of several mounts on one point the last is on top
            (m for m in reversed(all_mounts) if (upper + "/").startswith(m.point.rstrip("/") + "/")),
            key=lambda m: len(m.point),
            default=None,
        )
        if under is not None and under.type in ("tmpfs", "ramfs", "rootfs"):
            return f"{mount.point!r} is an overlay on a {under.type}, which is gone after a reboot"
    return None


def free_bytes(path: str) -> int | None:
    """Free bytes of the file system at *path*; None if it does not say (efivarfs before Linux 6.x shows no blocks)."""
    with suppress(OSError):
        state = os.statvfs(path)
        return state.f_bavail * state.f_frsize if state.f_blocks else None
    return None
