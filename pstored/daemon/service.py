# SPDX-License-Identifier: Apache-2.0
"""What a process that lives long has to do with whoever started it: lines, notifications, signals."""

import os
import signal
import sys

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def say(text: str, *, warning: bool = False) -> None:
    """A line for the journal, or whoever started the daemon; that nobody reads it must not end it."""
    try:
        print(f"warning: {text}" if warning else text, file=sys.stderr if warning else sys.stdout, flush=True)
    except OSError:
        pass


def tell(*lines: str) -> None:
    """Tell the service manager, sd_notify(3), if there is one."""
    if "NOTIFY_SOCKET" not in os.environ:
        return
    from systemd.daemon import notify

    try:
        notify("\n".join(lines))
    except OSError:
        pass  # it is being restarted, say: what counts is told again


def watchdog_s() -> float | None:
    """How often the service manager wants to hear from us, sd_watchdog_enabled(3): half of its patience."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if not usec.isdecimal() or not int(usec) or (pid is not None and pid != str(os.getpid())):
        return None
    return int(usec) / 2e6


class Signals:
    """Signals as something to be polled for: a pipe wakes epoll, a set keeps what came."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()
        for fd in (self.fd, self._write_fd):
            os.set_blocking(fd, False)
        self._came: set[int] = set()
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._came.add(number))

    def take(self) -> set[int]:
        """Those that have come since the last call."""
        try:
            while os.read(self.fd, 4096):
                pass
        except BlockingIOError:
            pass
        came, self._came = self._came, set()
        return came
