# SPDX-License-Identifier: Apache-2.0
"""The stamp: a line in the kernel log, and in pmsg, that names the running boot, for whoever collects after it.

Written once a boot and device, as early as pstored runs.  /dev/kmsg: Documentation/ABI/testing/dev-kmsg; /dev/pmsg0:
write-only, there with CONFIG_PSTORE_PMSG as soon as a backend with a pmsg zone is.
"""

from __future__ import annotations

import os

from pstored.host import Host
from pstored.lean import NamedTuple

DEVICES = ("/dev/kmsg", "/dev/pmsg0")
MARK = "/run/pstored/stamped"
"""Holds the boot id and the uptime, then each device that has the line; /run does not survive the boot."""


def stamp_line(prefix: str, boot_id: str) -> bytes:
    """What is written to a device: level notice, facility user, so that the kernel marks it as none of its own."""
    return f"<13>{prefix}{boot_id}\n".encode()


class Stamp(NamedTuple):
    """Where and when the running boot was stamped."""

    devices: tuple[str, ...] = ()
    """Those that have the line."""
    uptime_s: float | None = None
    """Seconds since the boot began when the first of them took it; None if none did, or that is not known."""


UNSTAMPED = Stamp()


def stamp(host: Host, prefix: str) -> Stamp:
    """Stamp the running boot where it is not, and tell what has the line, from now or from an earlier call.

    Never in the kdump kernel: there pmsg is the crashed boot's, and the line would name the wrong one.
    """
    boot_id = host.boot_id()
    if boot_id is None or host.is_crash_kernel():
        return UNSTAMPED
    before = _read_mark(host, boot_id)
    line = stamp_line(prefix, boot_id)
    took = [device for device in DEVICES if device not in before.devices and _write(host.path(device), line)]
    if not took:
        return before
    after = Stamp((*before.devices, *took), before.uptime_s if before.devices else host.uptime_s())
    path = host.path(MARK)
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(path, "w", encoding="ascii") as f:
            f.write("\n".join([f"{boot_id} {after.uptime_s}", *after.devices]) + "\n")
    except OSError:
        pass  # then it is stamped again: no harm but a second line
    return after


def _read_mark(host: Host, boot_id: str) -> Stamp:
    first, *devices = (host.read(MARK) or "").split("\n")
    marked, _, uptime = first.partition(" ")
    if marked != boot_id:
        return UNSTAMPED
    try:
        uptime_s = float(uptime)
    except ValueError:
        uptime_s = None
    return Stamp(tuple(device for device in devices if device in DEVICES), uptime_s)


def _write(path: str, line: bytes) -> bool:
    try:
        # never created: a plain file there would be no device
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(fd, line) == len(line)
    except OSError:
        return False
    finally:
        os.close(fd)
