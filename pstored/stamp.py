# SPDX-License-Identifier: Apache-2.0
"""The stamp: a line in the kernel log, and in pmsg, that names the running boot, for whoever collects after it.

Written once a boot, as early as pstored runs.  /dev/kmsg: Documentation/ABI/testing/dev-kmsg; /dev/pmsg0: write-only,
there with CONFIG_PSTORE_PMSG.
"""

import os

from pstored.boots import stamp_line
from pstored.host import Host

MARK = "/run/pstored/stamped"
"""Holds the boot id once it has been stamped; /run does not survive the boot."""


def stamp(host: Host, prefix: str) -> list[str]:
    """Stamp the running boot, unless it is; gives the devices that took the line, or have it from an earlier call."""
    boot_id = host.boot_id()
    if boot_id is None:
        return []
    marked = (host.read(MARK) or "").split("\n")
    if marked[0] == boot_id:
        return marked[1:]
    took = [device for device in ("/dev/kmsg", "/dev/pmsg0") if _write(host.path(device), stamp_line(prefix, boot_id))]
    if took:
        path = host.path(MARK)
        try:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            with open(path, "w", encoding="ascii") as f:
                f.write("\n".join([boot_id, *took]) + "\n")
        except OSError:
            pass  # then it is stamped again: no harm but a second line
    return took


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
