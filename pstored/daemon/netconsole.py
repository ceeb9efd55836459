# SPDX-License-Identifier: Apache-2.0
"""The listener, ``pstored netconsole``: receives what kernels send, and keeps the crashes of it.

A crash that is over is on the disk at once, as a file that can be imported (pstored.daemon.spool).  The daemon, woken,
takes it into the archive; where there is none, ``pstored import`` is run here.  One thread, one epoll, and a time-out
only while something is due.  It keeps little else in memory than what it has received, and holds all the rest that
pstored is no more than the daemon does.
"""

import select
import signal
import sys
import time
from collections.abc import Sequence

from pstored.daemon.child import KILL_AFTER_S, Child, printable, signal_name
from pstored.daemon.receive import Receiver, inherited, open_socket
from pstored.daemon.schedule import Schedule
from pstored.daemon.senders import Crash, Fleet
from pstored.daemon.service import Signals, say, tell
from pstored.daemon.spool import Spool
from pstored.errors import ArchiveError, PstoredError, report

MAX_WAITING = 16 << 20
"""Bytes of crashes that could not be written yet; when there are more, the oldest are lost."""
AGAIN_S = 60.0
"""They are tried again so much later, ..."""
AGAIN_MAX_S = 3600.0
"""... and an import that left something to be done, in the end, so much later."""
IMPORT_S = 300.0
"""An import that takes longer is ended."""
STOP_S = 10.0
"""Likewise, once we are to end ourselves."""
SUMMARY_S = 3600.0
"""What was left out, and lost, is said so often, if there is anything to be said."""


class Listener:
    """The loop."""

    def __init__(self, root: str, receivers: list[Receiver], *, lines: int, quiet_s: float) -> None:
        self.root = root
        self.receivers = {receiver.fd: receiver for receiver in receivers}
        self.fleet = Fleet(lines=lines, quiet_s=quiet_s)
        self.spool = Spool(root)
        self.schedule = Schedule(retry_s=AGAIN_S, retry_max_s=AGAIN_MAX_S)
        self.signals = Signals()
        self.child: Child | None = None
        self.waiting: list[Crash] = []
        """Crashes that are not on the disk."""
        self.again_at: float | None = None
        """When they are tried again."""
        self.stopping = False
        self.crashes = self.lost = 0
        self.said = (0, 0, 0)
        """What the last summary said."""
        self.counted = 0
        """Messages by then."""
        self.summary_at = 0.0
        self.epoll = select.epoll()
        for fd in (self.signals.fd, *self.receivers):
            self.epoll.register(fd, select.EPOLLIN)

    def loop(self) -> int:
        """Until SIGTERM; gives the exit status."""
        where = ", ".join(receiver.address for receiver in self.receivers.values())
        say(f"listening on {where}")
        tell("READY=1", f"STATUS=listening on {where}")
        while not self.stopping or self.child is not None:
            ready = self.epoll.poll(self._timeout(time.monotonic()))
            now = time.monotonic()
            for fd, _ in ready:
                if fd in self.receivers:
                    self.receivers[fd].drain(self.fleet, now)
            self._obey(now)
            self.fleet.finish(now)
            self._keep(now)
            self._reap(now)
            self._act(now)
        self._summarize()
        say(f"{self.fleet.messages} messages received, in which {self.crashes} crashes seem to be")
        return 1 if self.waiting else 0

    def _timeout(self, now: float) -> float | None:
        """Seconds until something is due; None: sleep until something comes."""
        times = [self.fleet.due(), self.again_at]
        times.append(self.schedule.due() if self.child is None else self.child.deadline)
        if self.fleet.messages != self.counted:
            times.append(self.summary_at)
        soonest = min((t for t in times if t is not None), default=None)
        return None if soonest is None else max(0.0, soonest - now)

    def _obey(self, now: float) -> None:
        if not self.stopping and self.signals.take() & {signal.SIGTERM, signal.SIGINT}:
            self.stopping = True
            tell("STOPPING=1", "STATUS=stopping")
            self._summarize()
            for receiver in self.receivers.values():
                receiver.drain(self.fleet, now)
                self.epoll.unregister(receiver.fd)
            self.receivers = {}
            self.fleet.finish_all()
            self.again_at = now
            if self.child is not None:
                self.child.deadline = now + STOP_S

    # -- crashes

    def _keep(self, now: float) -> None:
        """Write what is over to the disk."""
        came = list(self.fleet.crashes)
        self.fleet.crashes.clear()
        self.waiting += came
        for crash in came:
            self.crashes += 1
            who = crash.address + (f" ({printable(crash.host.encode())})" if crash.host else "")
            say(f"{who} seems to have crashed: its last {len(crash.datagrams)} messages are kept")
        if not self.waiting or (not came and (self.again_at is None or self.again_at > now)):
            return
        self.again_at = None
        try:
            self.spool.put(self.waiting)
        except ArchiveError as e:
            say(f"{e}; kept in memory: {len(self.waiting)}" + (f" ({e.hint})" if e.hint else ""), warning=True)
            while sum(crash.size for crash in self.waiting) > MAX_WAITING:
                del self.waiting[0]
                self.lost += 1
            self.again_at = None if self.stopping else now + AGAIN_S
            return
        newest, self.waiting = self.waiting[-1].address, []
        if not self.spool.wake():
            self.schedule.ask(now, "a crash", at_once=True)
        tell(f"STATUS=senders: {len(self.fleet.senders)}; crashes: {self.crashes}, the last from {newest}")

    # -- the import, where there is no daemon

    def _act(self, now: float) -> None:
        child, due = self.child, self.schedule.due()
        if child is not None and child.deadline is not None and child.deadline <= now:
            say(f"the import takes longer than {now - child.started:.0f} s: {child.kill(now, patience_s=KILL_AFTER_S)}")
            if child.given_up and self.stopping:
                self.child = None
        elif child is None and due is not None and due <= now:
            self.schedule.start(now)
            try:
                limit_s = STOP_S if self.stopping else IMPORT_S
                self.child = Child(self.root, "import", now=now, timeout_s=limit_s)
            except OSError as e:
                say(f"the import could not be started: {e.strerror}", warning=True)
                self.schedule.end(now, done=False, kernel_log=False)
        if now >= self.summary_at:
            self._summarize()
            self.summary_at = now + SUMMARY_S

    def _reap(self, now: float) -> None:
        child = self.child
        if child is None or (code := child.poll()) is None:
            return
        self.child = None
        # what is damaged stays so, and no permission is not given by waiting
        self.schedule.end(now, done=code in (0, 1, 77), kernel_log=False)
        if code < 0 or code > 1:
            how = f"died of {signal_name(-code)}" if code < 0 else f"failed (exit status {code})"
            say(f"the import {how}; what was received waits in {self.spool.path!r}", warning=True)

    # -- what is to be known

    def _summarize(self) -> None:
        self.counted = self.fleet.messages
        dropped = sum(receiver.dropped() for receiver in self.receivers.values()) or self.said[2]
        figures = (self.fleet.given_up, self.lost, dropped)
        if figures == self.said:
            return
        self.said = figures
        text = (
            f"besides {self.fleet.messages} messages received, {dropped} came too fast and were dropped by the kernel; "
            f"{self.fleet.given_up} times a sender was given up for another; {self.lost} crashes were lost"
        )
        say(text, warning=True)


def main(arguments: Sequence[str]) -> int:
    """``python -m pstored.daemon.netconsole ROOT LINES QUIET_S [ADDRESS PORT]...``: what the command becomes."""
    root, lines, quiet_s, *listen = arguments
    try:
        receivers = inherited() or [open_socket(a, int(p)) for a, p in zip(listen[::2], listen[1::2], strict=True)]
        return Listener(root, receivers, lines=int(lines), quiet_s=float(quiet_s)).loop()
    except PstoredError as e:
        return report(e)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
