# SPDX-License-Identifier: Apache-2.0
"""When the daemon's next run is due.  Pure: the monotonic clock's seconds come in, and nothing is waited for here.

Requests that come together make one run: it begins when nothing has stirred for a second.  After a run that left
something to be done, the next comes by itself, later each time.  Nothing makes more than a few runs a minute: not a
kernel that reports something at every run, nor a driver that oopses in a loop.

No typing, no dataclasses: importing either costs the idle daemon more memory than all of this.
"""

from collections import deque

SETTLE_S = 1.0
"""One insmod is five uevents, an oops two hundred lines: a run waits for so long a silence ..."""
SETTLE_MAX_S = 5.0
"""... but no longer than this."""
BURST = 5
BURST_S = 60.0
"""No more than so many runs in so many seconds; as systemd's StartLimit, but the rest waits and is not refused."""
MAX_DOUBLINGS = 20


class Schedule:
    """What has been asked for, and when it is to be done."""

    def __init__(self, *, retry_s: float, retry_max_s: float) -> None:
        self.retry_s = retry_s
        """How long after a run that left something to be done the next begins; twice as long after a second one, ..."""
        self.retry_max_s = retry_max_s
        """... up to this."""
        self._why: list[str] = []
        self._first = 0.0
        self._settled: float | None = None
        self._kernel_log = False
        self._retry_at: float | None = None
        self._later_at: float | None = None
        self._tries = 0
        self._starts: deque[float] = deque(maxlen=BURST)

    def ask(self, now: float, why: str, *, kernel_log: bool = False, at_once: bool = False) -> None:
        """A run is wanted: with the running kernel's log, if that may tell of an oops; *at_once*, by a person."""
        if why not in self._why:
            self._why.append(why)
        self._kernel_log = self._kernel_log or kernel_log
        if self._settled is None:
            self._first = now
            self._settled = now + SETTLE_S
        if at_once:
            self._first = self._settled = now
            self._tries = 0

    def ask_later(self, at: float) -> None:
        """A run is wanted no sooner than *at*; of several such, the last counts."""
        self._later_at = at

    def stir(self, now: float) -> None:
        """Something happened, whatever it was: a run that waits for silence waits on."""
        if self._settled is not None and self._settled > self._first:
            self._settled = min(now + SETTLE_S, self._first + SETTLE_MAX_S)

    def due(self) -> float | None:
        """When the next run is to begin; None if there is nothing to do."""
        times = [t for t in (self._settled, self._retry_at, self._later_at) if t is not None]
        if not times:
            return None
        if len(self._starts) == BURST:
            return max(min(times), self._starts[0] + BURST_S)
        return min(times)

    def wait_s(self, now: float) -> float:
        """How long until the next run, if nothing happens before; 0 if there is nothing to do."""
        due = self.due()
        return 0.0 if due is None else max(0.0, due - now)

    def start(self, now: float) -> tuple[str, bool]:
        """A run begins, which does all that is due: why, and whether with the kernel's log."""
        if self._retry_at is not None and self._retry_at <= now and not self._why:
            self._why.append("trying again")
        if self._later_at is not None and self._later_at <= now:
            self._why.append("the kernel should show the oops in pstore by now")
            self._later_at = None
        why = ", ".join(self._why)
        self._why = []
        self._settled = self._retry_at = None
        self._starts.append(now)
        kernel_log, self._kernel_log = self._kernel_log, False
        return why, kernel_log

    def end(self, now: float, *, done: bool, kernel_log: bool) -> None:
        """The run is over: all *done*, or something is left, which is tried again as it was."""
        if done:
            self._tries = 0
            return
        self._kernel_log = self._kernel_log or kernel_log
        self._retry_at = now + min(self.retry_s * 2 ** min(self._tries, MAX_DOUBLINGS), self.retry_max_s)
        self._tries += 1
