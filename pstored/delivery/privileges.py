# SPDX-License-Identifier: Apache-2.0
"""Who delivers: whoever owns the directory where it is noted what was sent, and not root if that can be helped."""

import contextlib
import os
import pwd

from pstored import durable
from pstored.delivery.outgoing import DIRECTORY_MODE

USER = "pstored"
"""Of the service that delivers (units/pstored.sysusers)."""


def become_owner(directory: str, *, user: str | None = USER) -> None:
    """Go on as who owns *directory*, if this is root, who may; made if it is not there, as *user*'s if there is one.

    For good, so in a process of its own, or at the end of one.

    Raises:
        ArchiveError: the directory cannot be made.
    """
    if os.geteuid() != 0:
        return
    if not os.path.lexists(directory):
        durable.make_directory(directory, mode=DIRECTORY_MODE)
        with contextlib.suppress(KeyError, OSError):
            entry = pwd.getpwnam(user or "")
            os.chown(directory, entry.pw_uid, entry.pw_gid)
    state = os.stat(directory, follow_symlinks=False)
    if state.st_uid != 0:
        with contextlib.suppress(PermissionError):  # root without capabilities: then what it cannot write, it says
            os.setgroups([])
            os.setgid(state.st_gid)
            os.setuid(state.st_uid)
