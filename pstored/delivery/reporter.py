# SPDX-License-Identifier: Apache-2.0
"""Who sends: what the running system says of itself to those who get its crashes."""

import os

from pstored import __version__
from pstored.delivery.payload import Reporter
from pstored.host import Host, os_build

_DMI = "/sys/class/dmi/id/"
_DEVICE_TREE = "/sys/firmware/devicetree/base/"
_NOT_SET = frozenset(("", "None", "To Be Filled By O.E.M.", "Default string", "System manufacturer", "Not Specified"))
"""What vendors leave in DMI."""


def read_reporter(host: Host) -> Reporter:
    """Read it from *host*."""
    release = host.os_release()
    compatible = _device_tree(host, "compatible")
    return Reporter(
        version=__version__,
        machine_id=(host.read("/etc/machine-id") or "").strip() or None,
        boot_id=host.boot_id(),
        hostname=(host.read("/proc/sys/kernel/hostname") or host.read("/etc/hostname") or "").strip() or None,
        architecture=os.uname().machine,
        kernel=host.read("/proc/sys/kernel/osrelease"),
        os_id=release.get("ID"),
        os_version=release.get("VERSION_ID"),
        os_name=release.get("PRETTY_NAME"),
        os_build=os_build(release),
        vendor=_dmi(host, "sys_vendor") or (compatible.partition(",")[0] if compatible else None),
        model=_dmi(host, "product_name") or _device_tree(host, "model"),
    )


def _dmi(host: Host, name: str) -> str | None:
    text = (host.read(_DMI + name) or "").strip()
    return None if text in _NOT_SET else text


def _device_tree(host: Host, name: str) -> str | None:
    """A string of the device tree's root; the first of a list."""
    return (host.read(_DEVICE_TREE + name) or "").partition("\0")[0].strip() or None
