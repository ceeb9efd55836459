# SPDX-License-Identifier: Apache-2.0
"""A program that gets each parcel on standard input, as one JSON object, and says by its exit status whether it has it.

====== ===================================================
0      it has it
65     it will never take this one (EX_DATAERR): set aside
else   not now: tried again
====== ===================================================

What it prints goes to the log.  It is ended, with all that it has started in its process group, when its time is up.
"""

import json
import os
import signal
import subprocess
from typing import Any

from pstored.delivery.payload import Parcel
from pstored.errors import SinkError
from pstored.sinks.base import OutgoingSink
from pstored.sinks.settings import Exec

STDERR = 2


class ExecSink(OutgoingSink):
    """Delivers to a program."""

    def __init__(self, table: Exec, timeout_s: float) -> None:
        """Raises SinkError: there is no command."""
        if not table.command or not os.path.isabs(table.command[0]):
            raise SinkError(
                "command in [exec] must name a program by its absolute path", hint="see pstored check-config"
            )
        self._command = table.command
        self._timeout_s = timeout_s

    def deliver(self, parcel: Parcel) -> dict[str, Any]:
        """Run the program; raises SinkError if it does not take the parcel."""
        data = json.dumps(parcel.document()).encode()
        environment = {**os.environ, "PSTORED_UID": parcel.uid, "PSTORED_CRASH_ID": parcel.crash["id"]}
        try:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=STDERR, env=environment, process_group=0
            )
        except OSError as e:
            raise SinkError(f"cannot run {self._command[0]!r}: {e.strerror}") from e
        try:
            process.communicate(data, timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            raise SinkError(f"{self._command[0]!r} takes longer than {self._timeout_s:g} s, and was ended") from None
        finally:
            _end(process)
        if process.returncode == os.EX_DATAERR:
            raise SinkError(f"{self._command[0]!r} refuses it: exit status {os.EX_DATAERR}", retry=False)
        if process.returncode:
            raise SinkError(f"{self._command[0]!r} ended with {process.returncode}", hint="what it said is in the log")
        return {"status": 0}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is still there of the program."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # all gone, or another user's by now
    process.wait()
