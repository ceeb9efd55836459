# SPDX-License-Identifier: Apache-2.0
"""The listener's sockets: UDP, as the command line names them, or as the service manager hands them over."""

import errno
import os
import socket
import struct
import time
from collections.abc import Callable

from pstored.daemon.senders import MAX_DATAGRAM, Fleet
from pstored.errors import PstoredError

FIRST_FD = 3
"""SD_LISTEN_FDS_START, sd_listen_fds(3)."""
BATCH = 512
"""Datagrams taken in one go; epoll tells of the rest at once."""
BUFFER = 8 << 20
"""Bytes that the kernel keeps for us, if it lets us: half a second of a fleet that crashes."""
_SO_RCVBUFFORCE, _SO_MEMINFO = 33, 55
"""asm-generic/socket.h; where they are others, there is a smaller buffer, and nothing is said of what it lost."""
_MEMINFO = struct.Struct("9I")
_DROPS = 8
_MAPPED = "::ffff:"
"""How a socket for both IPv6 and IPv4 has addresses of the latter."""


class Receiver:
    """One socket."""

    def __init__(self, found: socket.socket) -> None:
        """Take it over; raises PstoredError if it is for no datagrams."""
        if found.type != socket.SOCK_DGRAM or found.family not in (socket.AF_INET, socket.AF_INET6):
            raise PstoredError(f"what is to be listened on is no UDP socket: {found!r}")
        self._socket = found
        self.fd = found.fileno()
        found.setblocking(False)
        self.address = _shown(*found.getsockname()[:2])

    def drain(self, fleet: Fleet, now: float) -> None:
        """Hand over what has come."""
        receive, take, clock = self._socket.recvfrom, fleet.take, time.time_ns
        for _ in range(BATCH):
            try:
                data, sender = receive(MAX_DATAGRAM)
            except OSError:
                return  # no more for now; what is wrong with the network is not ours to say
            take(sender[0].removeprefix(_MAPPED), clock(), data, now)

    def dropped(self) -> int:
        """Datagrams that the kernel had no room for, so far."""
        try:
            values: tuple[int, ...] = _MEMINFO.unpack(self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))
        except (OSError, struct.error):
            return 0
        return values[_DROPS]

    def close(self) -> None:
        """No more."""
        self._socket.close()


def inherited() -> list[Receiver]:
    """The sockets that the service manager listens on for us; none if it does not."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return []
    return [Receiver(socket.socket(fileno=fd)) for fd in range(FIRST_FD, FIRST_FD + int(count))]


EVERYWHERE = "::"
"""All addresses, of IPv4, too."""
EVERYWHERE_4 = "0.0.0.0"


def open_socket(address: str, port: int, *, make: Callable[..., socket.socket] = socket.socket) -> Receiver:
    """Listen on an address of this machine.

    Raises:
        PstoredError: it cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        found = make(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != EVERYWHERE)
        try:
            found.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        except OSError:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)  # no more than net.core.rmem_max
        found.bind((address, port))
    except (OSError, OverflowError) as e:
        if address == EVERYWHERE and getattr(e, "errno", None) == errno.EAFNOSUPPORT:
            return open_socket(EVERYWHERE_4, port, make=make)  # a kernel without IPv6
        why = e.strerror if isinstance(e, OSError) else str(e)
        raise PstoredError(f"cannot listen on {_shown(address, port)}: {why}") from e
    return Receiver(found)


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
