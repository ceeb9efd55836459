# SPDX-License-Identifier: Apache-2.0
"""What the daemon has done in other processes, so that its own stays small: the run, and reading the configuration."""

import marshal
import os
import signal
import sys
from collections.abc import Mapping

from pstored.errors import PstoredError

KILL_AFTER_S = 5.0
"""A run that was asked to end and has not is killed then; collecting is safe to be killed at any point."""
_KILLS = (signal.SIGTERM, signal.SIGKILL)
MAX_STATUS = 4096
"""A status line is no longer: so much fits into a pipe at once."""

_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""What systemd tells the daemon, and nobody else."""


class Settings:
    """What the daemon itself needs of the configuration."""

    __slots__ = ("deliver_s", "retry_max_s", "retry_s", "store", "timeout_s")

    def __init__(self, timeout_s: int, retry_s: int, retry_max_s: int, deliver_s: int, store: str) -> None:
        self.timeout_s = timeout_s
        self.retry_s = retry_s
        self.retry_max_s = retry_max_s
        self.deliver_s = deliver_s
        """How long a round to the outgoing sinks may take; 0: there are none."""
        self.store = store


DELIVER_SLACK_S = 60
MOST_S = 10**6
"""Longer than 11 days is as good as for ever, and no clock overflows."""


def read_settings(root: str) -> Settings:
    """Read the configuration below *root*.  In a fork: what reads TOML would stay in memory, some 1.5 MB.

    What is wrong with it, each run says; here the defaults stand in its place, as everywhere.

    Raises:
        PstoredError: the fork did not come so far.
    """
    try:
        read_fd, write_fd = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(read_fd)
            os.close(write_fd)
            raise
    except OSError as e:
        raise PstoredError(f"the configuration cannot be read: {e.strerror}") from e
    if pid == 0:
        try:
            from pstored.config import load

            config = load(root).config
            watch = config.watch
            times = (watch.timeout_s, watch.retry_s, watch.retry_max_s, _deliver_s(config.outgoing))
            os.write(write_fd, marshal.dumps((*(min(t, MOST_S) for t in times), config.harvest.store)))
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as f:
        data = f.read()
    os.waitpid(pid, 0)
    if not data:
        raise PstoredError("the configuration cannot be read: who was to read it died")
    return Settings(*marshal.loads(data))  # our own fork's


def _deliver_s(outgoing: Mapping[str, object]) -> int:
    """How long a round to the outgoing sinks may take: each has its own limit, and the service some time to answer."""
    if not outgoing:
        return 0
    from pstored.sinks import settings

    return (
        settings.delivery(outgoing).sink_timeout_s + DELIVER_SLACK_S
        if settings.enabled(outgoing) or settings.meters(outgoing)
        else 0
    )


def signal_name(number: int) -> str:
    """SIGTERM, or "signal 35": those for real-time have none in Python."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def printable(line: bytes) -> str:
    """A line as text that controls no terminal, and no service manager, whoever wrote it."""
    return "".join(c if c.isprintable() else "?" for c in line.decode(errors="replace"))


class Child:
    """A command of pstored in a process of its own, and process group, so that what it starts ends with it."""

    def __init__(self, root: str, *arguments: str, now: float, timeout_s: float) -> None:
        """Start ``pstored ARGUMENTS``; raises OSError."""
        self.arguments = arguments
        self.started = now
        self.kills = 0
        """How many signals it has had from us."""
        self.deadline = now + timeout_s if timeout_s else None
        """When it gets the next."""
        self.given_up = False
        """Whether no signal helps."""
        # -P: not from the working directory, wherever the daemon was started
        command = [sys.executable, "-P", "-m", "pstored", "--root", root, *arguments]
        environment = {name: value for name, value in os.environ.items() if name not in _OURS}
        self.pid = os.posix_spawn(sys.executable, command, environment, setpgroup=0)

    def kill(self, now: float, *, patience_s: float) -> str:
        """Ask it to end, then end it, then give up; gives what was done.  The next step is due after the patience."""
        if self.kills == len(_KILLS):
            self.deadline = None
            self.given_up = True
            return "it hangs in the kernel, and cannot be ended"
        number = _KILLS[self.kills]
        self.kills += 1
        self.deadline = now + patience_s
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass  # it has just ended by itself
        return f"sent {number.name}"

    def poll(self) -> int | None:
        """Its exit status once it has ended, or minus the signal it died of; None as long as it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None


class Run(Child):
    """One that tells how things stand."""

    def __init__(self, root: str, *arguments: str, now: float, timeout_s: float) -> None:
        """Start it; raises OSError."""
        self._status_fd, write_fd = os.pipe()
        try:
            os.set_inheritable(write_fd, True)
            os.set_blocking(self._status_fd, False)
            super().__init__(root, *arguments, f"--status-fd={write_fd}", now=now, timeout_s=timeout_s)
        except OSError:
            os.close(self._status_fd)
            raise
        finally:
            os.close(write_fd)

    def status(self) -> "Status":
        """What it wrote on how things stand."""
        try:
            return Status(os.read(self._status_fd, MAX_STATUS))
        except BlockingIOError:
            return Status(b"")
        finally:
            os.close(self._status_fd)


class Status:
    """What a run wrote to its status descriptor: a line for a person, and further ones for the daemon."""

    __slots__ = ("deliver_s", "line", "retry", "told")

    def __init__(self, data: bytes) -> None:
        first, *more = data.split(b"\n")
        self.told = b"\n" in data
        """Whether it came so far."""
        self.line = printable(first)
        self.retry = not self.told or b"retry" in more
        """Whether another run may do more."""
        self.deliver_s: float | None = None
        """How long until something is due to the outgoing sinks; None if nothing is."""
        for line in more:
            word, _, number = line.partition(b" ")
            if word == b"deliver":
                self.deliver_s = min(max(0.0, float(number)), MOST_S)
