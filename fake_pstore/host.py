# SPDX-License-Identifier: Apache-2.0
"""The few files outside pstorefs that tell which system, kernel and boot is looking at the records."""

import os
from dataclasses import dataclass
from pathlib import Path

PSTORE = "sys/fs/pstore"
"""Where the kernel has pstorefs mounted, relative to the root."""

MACHINE_ID = "5d0c1b1e0f6a4c1f9e1d3a5b7c9d0e2f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The boot that looks at the records, as /proc and /sys show it."""

    boot_id: str
    """As in /proc/sys/kernel/random/boot_id: lower-case UUID with hyphens."""
    kernel: str
    """Release, ``uname -r``."""
    btime: int
    """Unix seconds when this boot began, the ``btime`` of /proc/stat."""
    backend: str | None = None
    """None where no backend has registered: the parameter then reads ``(null)``."""
    banner: str | None = None
    """The whole ``Linux version ...`` line; None makes one up."""
    cmdline: str = ""
    uptime_s: float = 8.0
    machine_id: str = MACHINE_ID
    oops_count: int = 0
    """Oopses of this boot; /sys/kernel/oops_count is there since Linux v6.2."""
    tainted: int = 0


def banner(kernel: str, *, version: str = "#1 SMP Mon Nov  2 09:12:44 UTC 2026") -> str:
    """A ``Linux version`` line as /proc/version and the start of the kernel log have it, without newline."""
    return f"Linux version {kernel} (builder@fake) (gcc (GCC) 14.2.0, GNU ld (GNU Binutils) 2.43) {version}"


def write_host(root: Path, host: Host) -> None:
    """Write the files of *host* below *root*, and the empty directories that a system has.

    No ``dev/kmsg``: what a program writes there would stay in a plain file and prove nothing.
    """
    text = host.banner or banner(host.kernel)
    files = {
        "proc/sys/kernel/random/boot_id": f"{host.boot_id}\n",
        "proc/sys/kernel/osrelease": f"{host.kernel}\n",
        "proc/sys/kernel/version": f"#{text.partition(' #')[2]}\n",
        "proc/sys/kernel/tainted": f"{host.tainted}\n",
        "proc/version": f"{text}\n",
        "proc/uptime": f"{host.uptime_s:.2f} {host.uptime_s * 1.9:.2f}\n",
        "proc/stat": f"cpu  63 0 211 917 12 0 4 0 0 0\nctxt 20345\nbtime {host.btime}\nprocesses 97\n",
        "proc/cmdline": f"{host.cmdline}\n",
        "sys/kernel/oops_count": f"{host.oops_count}\n",
        "sys/module/pstore/parameters/backend": f"{host.backend or '(null)'}\n",
        "etc/machine-id": f"{host.machine_id}\n",
    }
    for path, content in files.items():
        os.makedirs(root / os.path.dirname(path), exist_ok=True)
        (root / path).write_text(content, encoding="ascii")
    for path in (PSTORE, "var/lib", "dev"):
        os.makedirs(root / path, exist_ok=True)
    (root / PSTORE).chmod(0o750)  # what the superblock's root has since about v4.10
