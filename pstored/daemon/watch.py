# SPDX-License-Identifier: Apache-2.0
"""The daemon: sleeps until something can have changed, then has ``pstored collect`` done in a child.

What goes out is delivered by another child beside it, when something is due: a server that is slow holds up no harvest.

The only process of pstored that lives long, so it keeps little in memory: ``pstored watch`` replaces itself by this
module, without what reading the command line has loaded, and nothing here imports typing, logging, json or the rest
of pstored.  One thread, one epoll, one time-out, set only while something is due.
"""

import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable

from pstored.daemon import SPOOL
from pstored.daemon.child import KILL_AFTER_S, Run, Status, read_settings, signal_name
from pstored.daemon.schedule import Schedule
from pstored.daemon.service import Signals, say, tell, watchdog_s
from pstored.daemon.wakeups import (
    BACKEND,
    MOUNT,
    REPORT,
    KernelLog,
    Mounts,
    Received,
    Source,
    Uevents,
    look,
    read,
)
from pstored.errors import PstoredError, report

LOCK = "/run/pstored/watch.lock"
"""Locked by the daemon; holds its process id."""
STOP_S = 5.0
"""How long a run may take to end when the daemon is to end; systemd's own patience is 90 s."""
ROUND_S = 10.0
"""Rounds to the outgoing sinks do not begin in quicker succession."""
FOLLOW_UP_SLACK_S = 2.0
"""After an oops the kernel brings pstore up to date pstore.update_ms later, from a work queue."""


def take_lock(root: str) -> int:
    """Be the only daemon below *root*; the lock goes with the descriptor given back.

    Raises:
        PstoredError: another one runs, or the lock cannot be made.
    """
    path = os.path.join(root, LOCK.lstrip("/"))
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise PstoredError(f"cannot make {path!r}: {e.strerror}", hint="run as root; /run must be writable") from e
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 32).decode(errors="replace").strip()
        os.close(fd)
        raise PstoredError(
            f"another pstored watch is running: process {pid} holds {path!r}", hint="systemctl status pstored"
        ) from None
    try:
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    except OSError:
        pass  # /run is full, say: the lock counts, the number is for whoever is refused
    return fd


class Watch:
    """The loop."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.settings = read_settings(root)
        self.schedule = Schedule(retry_s=self.settings.retry_s, retry_max_s=self.settings.retry_max_s)
        self.signals = Signals()
        self.epoll = select.epoll()
        self.epoll.register(self.signals.fd, select.EPOLLIN)
        self.sources: dict[int, Source] = {}
        self.run: Run | None = None
        self.round: Run | None = None
        """To the outgoing sinks."""
        self.round_at: float | None = None
        """When the next is due."""
        self.round_began = -ROUND_S
        self.is_fresh = True
        """Whether there was no round yet under this configuration."""
        self.stopping = False
        self.standing = ""
        """How things stood at the end of the last run that could tell, in its words."""
        self.outgoing = ""
        """How they stood with the outgoing sinks at the end of the last round."""
        self.ping_s = watchdog_s()
        self.ping_at = time.monotonic()
        self._open(KernelLog.name, lambda: KernelLog(os.path.join(root, "dev/kmsg")))
        self._open(Uevents.name, Uevents)
        self._open(Mounts.name, Mounts)
        spool = os.path.join(root, SPOOL.lstrip("/"))
        if os.path.isdir(spool):  # without a listener there is nothing to be missed
            self._open(Received.name, lambda: Received(spool))
        self.has_kernel_log = any(isinstance(source, KernelLog) for source in self.sources.values())
        self.seen = look(root, self.settings.store)  # after the mounts are watched, and before the first run

    def loop(self) -> int:
        """Until SIGTERM; gives the exit status."""
        now = time.monotonic()
        self.schedule.ask(now, "start", kernel_log=self.has_kernel_log, at_once=True)  # an oops may have come before us
        self._start(now)
        tell("READY=1")
        while not self.stopping or self.run is not None or self.round is not None:
            ready = self.epoll.poll(self._timeout(time.monotonic()))
            now = time.monotonic()
            self._drain([fd for fd, _ in ready if fd in self.sources], now)
            self._obey(now)
            self._compare(now)
            self._reap(now)
            self._reap_round(now)
            self._act(now)
        return 0

    # -- what wakes

    def _open(self, name: str, make: Callable[[], Source]) -> None:
        try:
            source = make()
            try:
                self.epoll.register(source.fd, source.events)
            except OSError:
                source.close()  # a plain file, in a tree, cannot be waited for
                raise
        except (OSError, ImportError) as e:
            say(f"{name} cannot be watched: {e}; the rest is", warning=True)
            return
        self.sources[source.fd] = source

    def _drain(self, ready: list[int], now: float) -> None:
        for fd in ready:
            source = self.sources[fd]
            try:
                reasons = source.drain()
            except OSError as e:
                say(f"{source.name} can no longer be watched: {e}; the rest is", warning=True)
                del self.sources[fd]
                source.close()  # which takes it out of the epoll, too
                continue
            for what in reasons:
                self._ask(now, what)
        if ready:
            self.schedule.stir(now)

    def _ask(self, now: float, what: str) -> None:
        self.schedule.ask(now, what, kernel_log=what == REPORT and self.has_kernel_log)
        if what == REPORT:
            update_ms = read(self.root, "/sys/module/pstore/parameters/update_ms")  # -1: never
            if update_ms.isdecimal():
                self.schedule.ask_later(now + int(update_ms) / 1000 + FOLLOW_UP_SLACK_S)

    def _compare(self, now: float) -> None:
        """Look, whatever woke us, for what no source may have told of."""
        seen = look(self.root, self.settings.store)
        for old, new, what in zip(self.seen, seen, (BACKEND, MOUNT, REPORT), strict=True):
            if old != new:
                self._ask(now, what)
        self.seen = seen

    def _obey(self, now: float) -> None:
        came = self.signals.take()
        if self.stopping:
            return
        if came & {signal.SIGTERM, signal.SIGINT}:
            self.stopping = True
            tell("STOPPING=1", "STATUS=stopping")
            for run in (self.run, self.round):
                if run is not None:
                    run.kill(now, patience_s=STOP_S)
        elif signal.SIGHUP in came:
            self._reload(now)

    def _reload(self, now: float) -> None:
        tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self.settings = read_settings(self.root)
        except PstoredError as e:
            say(f"{e}; what was configured before stands", warning=True)
        self.schedule.retry_s, self.schedule.retry_max_s = self.settings.retry_s, self.settings.retry_max_s
        self.seen = look(self.root, self.settings.store)
        self.is_fresh = True
        self.schedule.ask(now, "reload", at_once=True)
        tell("READY=1")

    # -- the run

    def _start(self, now: float) -> None:
        why, kernel_log = self.schedule.start(now)
        say(f"collecting: {why}")
        tell(f"STATUS=collecting ({why}){self.standing and '; so far: '}{self.standing}")
        try:
            arguments = ("collect", *(("--kernel-log",) if kernel_log else ()))
            self.run = Run(self.root, *arguments, now=now, timeout_s=self.settings.timeout_s)
        except OSError as e:
            self._end(now, f"the run could not be started: {e.strerror}", kernel_log=kernel_log, told=False)

    def _reap(self, now: float) -> None:
        run = self.run
        if run is None or (code := run.poll()) is None:
            return
        self.run = None
        status = run.status()
        self.standing = status.line if status.told else self.standing
        self._plan_round(now, status)
        trouble = ""
        if code < 0:
            trouble = f"the run died of {signal_name(-code)}" + (", which it was sent" if run.kills else "")
        elif code:
            trouble = f"the run found damage, or left something to be done (exit status {code})"
        kernel_log = "--kernel-log" in run.arguments
        self._end(now, trouble, kernel_log=kernel_log, told=status.told, retry=bool(trouble) and status.retry)

    def _end(self, now: float, trouble: str, *, kernel_log: bool, told: bool, retry: bool = True) -> None:
        self.schedule.end(now, done=not retry, kernel_log=kernel_log)
        if self.stopping:
            return
        if trouble and retry:
            at = time.strftime("%H:%M:%S", time.localtime(time.time() + self.schedule.wait_s(now)))
            trouble += f"; the next try is at {at}"
        if trouble:
            say(trouble, warning=True)
        standing = self.standing if told or not self.standing else f"before: {self.standing}"
        standing += self.outgoing and f"; {self.outgoing}"
        tell("STATUS=" + "; ".join(text for text in ((standing, trouble) if told else (trouble, standing)) if text))

    # -- the round to the outgoing sinks

    def _plan_round(self, now: float, status: Status) -> None:
        """When the next round is due, by what a child that has just looked says."""
        if not status.told:
            return
        wait_s = 0.0 if self.is_fresh and self.settings.deliver_s else status.deliver_s
        self.round_at = None if wait_s is None else now + wait_s

    def _start_round(self, now: float) -> None:
        self.round_at, self.round_began, self.is_fresh = None, now, False
        limit_s = self.settings.deliver_s or self.settings.timeout_s
        try:
            self.round = Run(self.root, "deliver", "--outgoing", now=now, timeout_s=limit_s)
        except OSError as e:
            say(f"the delivery could not be started: {e.strerror}", warning=True)
            self.round_at = now + self.settings.retry_s

    def _reap_round(self, now: float) -> None:
        run = self.round
        if run is None or (code := run.poll()) is None:
            return
        self.round = None
        status = run.status()
        self._plan_round(now, status)
        if status.told:
            self.outgoing = status.line
        else:
            how = f"died of {signal_name(-code)}" if code < 0 else f"failed (exit status {code})"
            self.outgoing = f"the delivery {how}"
            self.round_at = now + self.settings.retry_s
        if self.stopping:
            return
        if self.outgoing:
            say(self.outgoing, warning=True)
        if self.run is None and self.standing:
            tell(f"STATUS={self.standing}{self.outgoing and '; '}{self.outgoing}")

    def _round_due(self) -> float | None:
        return None if self.round_at is None else max(self.round_at, self.round_began + ROUND_S)

    # -- what is due

    def _act(self, now: float) -> None:
        """Do what is due now."""
        for run, name, doing in ((self.run, "run", "collecting"), (self.round, "delivery", self.standing)):
            if run is not None and run.deadline is not None and run.deadline <= now:
                sent = run.kill(now, patience_s=KILL_AFTER_S)
                slow = f"the {name} takes longer than {now - run.started:.0f} s: {sent}"
                say(slow, warning=True)
                if not self.stopping:
                    tell(f"STATUS={doing}; {slow}")
        if self.stopping:  # what cannot be waited for is not
            self.run = None if self.run is not None and self.run.given_up else self.run
            self.round = None if self.round is not None and self.round.given_up else self.round
        due, round_due = self.schedule.due(), self._round_due()
        if self.run is None and not self.stopping and due is not None and due <= now:
            self._start(now)
        if self.round is None and not self.stopping and round_due is not None and round_due <= now:
            self._start_round(now)
        if self.ping_s is not None and self.ping_at <= now:
            tell("WATCHDOG=1")
            self.ping_at = now + self.ping_s

    def _timeout(self, now: float) -> float | None:
        """Seconds until something is due; None: sleep until something happens."""
        times = [
            self.schedule.due() if self.run is None else self.run.deadline,
            self._round_due() if self.round is None else self.round.deadline,
        ]
        if self.ping_s is not None:
            times.append(self.ping_at)
        soonest = min((t for t in times if t is not None), default=None)
        return None if soonest is None else max(0.0, soonest - now)


def main() -> int:
    """``python -m pstored.daemon.watch ROOT``: what ``pstored watch`` becomes."""
    (root,) = sys.argv[1:]
    try:
        take_lock(root)
        return Watch(root).loop()
    except PstoredError as e:
        return report(e)


if __name__ == "__main__":
    sys.exit(main())
