# SPDX-License-Identifier: Apache-2.0
"""Named points between the system calls that change a disk or the store; empty in production.

A test that kills, or counts, or checks the order of flushes sets :data:`hook`.  The power-cut runs set two environment
variables: ``PSTORED_STEPS=FILE`` writes each step's name to FILE (a serial port, say), and ``PSTORED_STEP_STOP=N``
stops the process for good at step N, so that the power can be cut exactly there.
"""

from __future__ import annotations

import os

from pstored.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

hook: Callable[[str], None] | None = None


def step(name: str) -> None:
    """Pass the point *name*."""
    if hook is not None:
        hook(name)


def trace_from_environment() -> None:
    """Set the hook that the environment asks for, if it does."""
    path = os.environ.get("PSTORED_STEPS")
    if path is None:
        return
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    stop_at = int(os.environ.get("PSTORED_STEP_STOP", "0"))
    passed = 0

    def trace(name: str) -> None:
        nonlocal passed
        passed += 1
        os.write(fd, f"step {passed} {name}\n".encode(errors="surrogateescape"))
        if passed == stop_at:
            import signal

            os.kill(os.getpid(), signal.SIGSTOP)

    global hook
    hook = trace
