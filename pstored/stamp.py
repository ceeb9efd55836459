# SPDX-License-Identifier: Apache-2.0
"""The stamp: a line in the kernel log, and in pmsg, that names the running boot, for whoever collects after it.

Written once a boot and device, as early as pstored runs.  /dev/kmsg: Documentation/ABI/testing/dev-kmsg; /dev/pmsg0:
write-only, there with CONFIG_PSTORE_PMSG as soon as a backend with a pmsg zone is.
"""

import os

from pstored.host import Host

DEVICES = ("/dev/kmsg", "/dev/pmsg0")
MARK = "/run/pstored/stamped"
"""Holds the boot id, and then each device that has the line; /run does not survive the boot."""


def stamp_line(prefix: str, boot_id: str) -> bytes:
    """What is written to a device: level notice, facility user, so that the kernel marks it as none of its own."""
    return f"<13>{prefix}{boot_id}\n".encode()


def stamp(host: Host, prefix: str) -> list[str]:
    """Stamp the running boot where it is not; gives the devices that took the line, now or in an earlier call.

    Never in the kdump kernel: there pmsg is the crashed boot's, and the line would name the wrong one.
    """
    boot_id = host.boot_id()
    if boot_id is None or host.is_crash_kernel():
        return []
    marked = (host.read(MARK) or "").split("\n")
    has = [device for device in DEVICES if marked[0] == boot_id and device in marked[1:]]
    line = stamp_line(prefix, boot_id)
    took = [device for device in DEVICES if device not in has and _write(host.path(device), line)]
    if took:
        path = host.path(MARK)
        try:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            with open(path, "w", encoding="ascii") as f:
                f.write("\n".join([boot_id, *has, *took]) + "\n")
        except OSError:
            pass  # then it is stamped again: no harm but a second line
    return [device for device in DEVICES if device in has or device in took]


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
