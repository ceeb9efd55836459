# SPDX-License-Identifier: Apache-2.0
"""What the service manager says of itself: systemctl(1)."""

import os
import subprocess

HARVEST_UNIT = "pstored-harvest.service"
"""Its ExecStop= notes an orderly end of the boot."""
TIMEOUT_S = 10
"""It answers in milliseconds, unless it is stuck."""


def closes_boots() -> bool:
    """Whether the unit that notes an orderly end is there to do so."""
    return _systemctl("is-active", HARVEST_UNIT) in ("active", "activating")


def is_stopping() -> bool:
    """Whether the system is being stopped in order: shut down, rebooted, halted, or about to kexec."""
    return _systemctl("is-system-running") == "stopping"


def _systemctl(*arguments: str) -> str | None:
    """The first line of what it answers; None if there is no systemd here, or it does not answer."""
    if not os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        return None
    try:
        done = subprocess.run(["systemctl", *arguments], capture_output=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").split("\n")[0].strip()
