# SPDX-License-Identifier: Apache-2.0
"""What a fleet sends by netconsole, as far as the listener looks at it: the last messages of each sender, and the crash
that they tell of.  Pure: datagrams and the monotonic clock's seconds come in.

Nothing is put together here.  A cheap look at each datagram tells whether it may begin a report; from then on all that
the sender sends is kept, and once it is quiet, or boots anew, what is kept is a crash, to be read by what reads
captures (pstored.readers.senders).  Anybody may send anything under any address, so all of it is bounded.
"""

import re
from collections import OrderedDict, deque

from pstored.daemon.wakeups import REPORTS

MAX_SENDERS = 1024
"""More than these are not followed: the one that has been silent longest makes room for another."""
MAX_BYTES = 32 << 20
"""Of all senders together."""
MAX_SENDER = 256 * 1024
"""Of one, that has not crashed."""
MAX_CRASH = 1 << 20
"""Of one crash; what comes then is of the next."""
MAX_DATAGRAM = 2048
"""netconsole's have 1000 bytes at the most; a longer one is cut to this."""
OVERHEAD = 180
"""Bytes that a datagram takes besides its own."""
LONGEST_S = 60.0
"""A sender that goes on without a pause has a crash no longer than this; it is told then, and goes on."""
MOST = 16
"""Crashes of one boot that are told: a machine may oops once a second for days."""
BACK_S = 2
"""A clock that goes back by more is another boot's."""

_CLOCK = re.compile(
    rb"(?:[^,;\[]{0,64},)?[0-9]{1,5},[0-9]{1,20},([0-9]{1,14})[0-9]{6},|(?:<[0-9]{1,5}>)?\[ *([0-9]{1,10})\."
)
_HOST = re.compile(
    rb"ostname (?:set )?to <([A-Za-z0-9][A-Za-z0-9.-]{0,63})>| (?:hostname|host)=([A-Za-z0-9][A-Za-z0-9.-]{0,63})\n"
)
_PANIC = b"Kernel panic - not syncing"
_BANNER = b"Linux version "


class Crash:
    """What a sender has sent around something that may be a crash."""

    __slots__ = ("address", "datagrams", "host", "size")

    def __init__(self, address: str, host: str, datagrams: list[tuple[int, bytes]], size: int) -> None:
        self.address = address
        self.host = host
        """Empty if it has not said so."""
        self.datagrams = datagrams
        """When each was received, nanoseconds since 1970, and its bytes."""
        self.size = size


class _Sender:
    __slots__ = ("clock_s", "host", "last", "ring", "since", "size", "told")

    def __init__(self) -> None:
        self.ring: deque[tuple[int, bytes]] = deque()
        self.size = 0
        self.host = ""
        self.since: float | None = None  # when its crash began
        self.last = 0.0
        self.clock_s = -1  # its own, of what came last; looked at while it crashes
        self.told = 0


class Fleet:
    """All senders."""

    def __init__(self, *, lines: int, quiet_s: float) -> None:
        self.lines = lines
        """Messages of each that are kept, for what came before a crash."""
        self.quiet_s = quiet_s
        """So long a silence ends a crash."""
        self.senders: OrderedDict[str, _Sender] = OrderedDict()
        self.size = 0
        self.crashes: deque[Crash] = deque()
        """Those that are over, to be taken."""
        self.messages = 0
        self.given_up = 0
        """Senders that had to make room for others."""
        self._crashing: dict[str, _Sender] = {}

    def take(self, address: str, received_ns: int, data: bytes, now: float) -> None:
        """Take a datagram in."""
        self.messages += 1
        sender = self.senders.get(address)
        if sender is None:
            sender = self.senders[address] = _Sender()
            if len(self.senders) > MAX_SENDERS:
                self._give_up()
        else:
            self.senders.move_to_end(address)
        if sender.since is not None and _begins_anew(sender, data):
            self._finish(address, sender)
            self._forget(sender)
        elif sender.since is None and _BANNER in data:
            self._forget(sender)
        cost = len(data) + OVERHEAD
        sender.ring.append((received_ns, data))
        sender.size += cost
        self.size += cost
        sender.last = now
        if b"ost" in data and (found := _HOST.search(data)) is not None:
            sender.host = (found[1] or found[2]).decode()
        if sender.since is None:
            if REPORTS.search(data) is not None and (sender.told < MOST or (_PANIC in data and sender.told < 2 * MOST)):
                sender.since = now
                self._crashing[address] = sender
            else:
                self._trim(sender)
        elif sender.size > MAX_CRASH:
            self._finish(address, sender)
        while self.size > MAX_BYTES and len(self.senders) > 1:
            self._give_up()

    def due(self) -> float | None:
        """When a crash will be over, if nothing comes before; None if there is none."""
        return min((self._end(sender) for sender in self._crashing.values()), default=None)

    def finish(self, now: float) -> None:
        """End the crashes that are over by now."""
        for address, sender in [item for item in self._crashing.items() if self._end(item[1]) <= now]:
            self._finish(address, sender)

    def finish_all(self) -> None:
        """End all of them."""
        for address, sender in list(self._crashing.items()):
            self._finish(address, sender)

    def _end(self, sender: _Sender) -> float:
        assert sender.since is not None
        return min(sender.last + self.quiet_s, sender.since + LONGEST_S)

    def _finish(self, address: str, sender: _Sender) -> None:
        self.crashes.append(Crash(address, sender.host, list(sender.ring), sender.size))
        sender.since = None
        sender.clock_s = -1
        sender.told += 1
        del self._crashing[address]
        self._trim(sender)  # what is left stands before the next one, and ties it to this

    def _trim(self, sender: _Sender) -> None:
        ring = sender.ring
        while len(ring) > self.lines or sender.size > MAX_SENDER:
            cost = len(ring.popleft()[1]) + OVERHEAD
            sender.size -= cost
            self.size -= cost

    def _forget(self, sender: _Sender) -> None:
        self.size -= sender.size
        sender.ring.clear()
        sender.size = sender.told = 0

    def _give_up(self) -> None:
        """The sender that has been silent longest; its crash is told first."""
        address, sender = next(iter(self.senders.items()))
        if sender.since is not None:
            self._finish(address, sender)
        del self.senders[address]
        self.size -= sender.size
        self.given_up += 1


def _begins_anew(sender: _Sender, data: bytes) -> bool:
    """Whether a datagram is of another boot than those before: its banner, or its clock."""
    found = _CLOCK.match(data)
    clock_s = -1 if found is None else int(found[1] or found[2])
    is_back = 0 <= clock_s < sender.clock_s - BACK_S
    sender.clock_s = max(clock_s, -1 if is_back else sender.clock_s)
    return is_back or _BANNER in data
