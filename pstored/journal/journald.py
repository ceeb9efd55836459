# SPDX-License-Identifier: Apache-2.0
"""The systemd journal as it really is: sending says nothing about keeping.

``sd_journal_send(3)`` returns 0 when no journald listens, and journald drops an entry larger than its files allow
with a line in its own log only.  So: send, have it flushed, read it back.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from pstored.errors import SinkError

RUNTIME = "/run/systemd/journal"
SOCKET = f"{RUNTIME}/socket"
SYNC_TIMEOUT_S = 30
"""journalctl --sync waits for the disk; a slow eMMC with a full queue takes seconds."""


def require_running(namespace: str = "") -> None:
    """See that a journald listens, and that it is that of the *namespace*.

    What is sent goes to the namespace that the unit runs in: LogNamespace= mounts its directory over the usual one.
    Sent to another, an entry would never be read back, and sent again and again.

    Raises:
        SinkError: none does, or another's.
    """
    if not os.path.exists(SOCKET):
        raise SinkError(f"no journald listens on {SOCKET}", hint="it is tried again at the next delivery")
    own = f"{RUNTIME}.{namespace}" if namespace else RUNTIME
    if not os.path.isdir(own) or not os.path.samefile(own, RUNTIME):
        raise SinkError(
            f"what is sent does not go to the journal namespace {namespace!r}, from which it would be read back",
            hint=f"set LogNamespace={namespace} for pstored.service, or no namespace in [journal]",
        )


def send(fields: Mapping[str, str | bytes]) -> None:
    """Send one entry; if nobody listens, it is lost: see :func:`require_running`.

    Raises:
        SinkError: the socket refuses.
    """
    from systemd import journal

    payload = [
        name.encode() + b"=" + (value if isinstance(value, bytes) else value.encode(errors="backslashreplace"))
        for name, value in fields.items()
    ]
    try:
        journal.sendv(*payload)
    except OSError as e:
        raise SinkError(f"journald does not take the entry: {e}") from e


def sync(namespace: str = "") -> None:
    """Have journald write what it has to its files.

    Raises:
        SinkError: it did not answer.
    """
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        raise SinkError("cannot have the journal synced: there is no journalctl")
    command = [journalctl, *([f"--namespace={namespace}"] if namespace else []), "--sync"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SYNC_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise SinkError(f"cannot have the journal synced: {e}") from e
    if done.returncode != 0:
        message = done.stderr.decode(errors="replace").strip().splitlines()
        raise SinkError(f"journalctl --sync failed: {message[-1] if message else done.returncode}")


def find(matches: Mapping[str, str], namespace: str = "") -> dict[str, Any] | None:
    """The newest entry in which all fields match; None if there is none.

    Raises:
        SinkError: the journal cannot be read.
    """
    from systemd import journal

    try:
        with journal.Reader(namespace=namespace or None) as reader:
            for name, value in matches.items():
                reader.add_match(**{name: value})
            reader.seek_tail()
            entry: dict[str, Any] = reader.get_previous()
    except OSError as e:
        raise SinkError(f"the journal cannot be read: {e}") from e
    return entry or None
