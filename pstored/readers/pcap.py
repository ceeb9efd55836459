# SPDX-License-Identifier: Apache-2.0
"""Captures of packets, pcap and pcapng: the UDP datagrams in them.

Source: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng; link types: www.tcpdump.org/linktypes.html.  Fragments of IP
are passed over: nothing that netconsole sends is so long.
"""

import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import NamedTuple

from pstored.readers.model import Source

MAX_PACKET = 1 << 18
"""MAXIMUM_SNAPLEN of libpcap; a longer one is damage."""
MAX_INTERFACES = 1000

_PCAP = {
    struct.pack(order + "I", magic): (order, unit)
    for order in "<>"
    for magic, unit in ((0xA1B2C3D4, 1000), (0xA1B23C4D, 1))
}
_SECTION = b"\x0a\x0d\x0d\x0a"
_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_INTERFACE, _SIMPLE, _ENHANCED = 1, 3, 6
_VLANS = (b"\x81\x00", b"\x88\xa8")
_IP = {b"\x08\x00": 4, b"\x86\xdd": 6}
_UDP = 17
_EXTENSIONS = frozenset((0, 43, 60))
"""Headers of IPv6 that say how long they are."""


class Packet(NamedTuple):
    """One UDP datagram."""

    time_ns: int
    """Nanoseconds since 1970; 0 if the capture does not say."""
    source: str
    """Address."""
    source_port: int
    port: int
    """Where it went."""
    data: bytes


class EndedEarlyError(Exception):
    """The capture is damaged, or cut: how, and where."""


def is_capture(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a capture; 12 are enough."""
    return head[:4] in _PCAP or (head[:4] == _SECTION and head[8:12] in _ORDERS)


def read_packets(source: Source) -> Iterator[Packet]:
    """The UDP datagrams of a capture.

    Raises:
        EndedEarlyError: it does not go on as it should.
    """
    frames = _pcap(source) if source.read(0, 4) in _PCAP else _pcapng(source)
    for time_ns, link, frame in frames:
        packet = _udp(link, frame)
        if packet is not None:
            yield packet._replace(time_ns=time_ns)


# -- files

_Frame = tuple[int, int, bytes]
"""Time, link type, bytes."""


def _take(source: Source, at: int, count: int) -> bytes:
    data = source.read(at, count)
    if len(data) < count:
        raise EndedEarlyError(f"the capture ends at byte {at + len(data)}, within a packet")
    return data


def _pcap(source: Source) -> Iterator[_Frame]:
    order, unit = _PCAP[source.read(0, 4)]
    link = struct.unpack(order + "I", _take(source, 20, 4))[0] & 0xFFFF
    at = 24
    while head := source.read(at, 16):
        if len(head) < 16:
            raise EndedEarlyError(f"the capture ends at byte {at + len(head)}, within a packet")
        seconds, fraction, size, _ = struct.unpack(order + "IIII", head)
        if size > MAX_PACKET:
            raise EndedEarlyError(f"at byte {at} there is a packet of {size} bytes: none is so long")
        yield seconds * 10**9 + fraction * unit, link, _take(source, at + 16, size)
        at += 16 + size


class _Interface(NamedTuple):
    link: int
    per_second: int


def _pcapng(source: Source) -> Iterator[_Frame]:
    order = "<"
    interfaces: list[_Interface] = []
    at = 0
    while head := source.read(at, 12):
        if head[:4] == _SECTION:
            order = _ORDERS.get(head[8:12], "")
            interfaces = []
        if len(head) < 12 or not order:
            raise EndedEarlyError(f"at byte {at} no block of a capture begins")
        kind, size = struct.unpack_from(order + "II", head)
        if size < 12 or size > MAX_PACKET + 4096 or size % 4:
            raise EndedEarlyError(f"at byte {at} there is a block of {size} bytes: none is so long")
        body = _take(source, at, size)[8:-4]
        at += size
        if kind == _INTERFACE and len(body) >= 8 and len(interfaces) < MAX_INTERFACES:
            interfaces.append(_Interface(struct.unpack_from(order + "H", body)[0], _resolution(order, body[8:])))
        elif kind == _ENHANCED and len(body) >= 20:
            number, high, low, captured = struct.unpack_from(order + "IIII", body)
            if number < len(interfaces):
                link, per_second = interfaces[number]
                yield (high << 32 | low) * 10**9 // per_second, link, body[20 : 20 + captured]
        elif kind == _SIMPLE and len(body) >= 4 and interfaces:
            yield 0, interfaces[0].link, body[4:]


def _resolution(order: str, options: bytes) -> int:
    """Units of time in a second: if_tsresol, or microseconds."""
    while len(options) >= 4:
        code, size = struct.unpack_from(order + "HH", options)
        if code == 9 and size == 1 and len(options) >= 5:
            exponent = options[4] & 0x7F
            return int(2 ** min(exponent, 64) if options[4] & 0x80 else 10 ** min(exponent, 18))
        options = options[4 + size + -size % 4 :]
    return 10**6


# -- packets


def _ethernet(frame: bytes) -> bytes:
    at = 12
    while frame[at : at + 2] in _VLANS and at < 20:
        at += 4
    return frame[at + 2 :] if frame[at : at + 2] in _IP else b""


_LINKS: dict[int, Callable[[bytes], bytes]] = {
    0: lambda frame: frame[4:],  # NULL: the loopback of BSD
    1: _ethernet,
    12: lambda frame: frame,  # RAW, by other numbers, too
    14: lambda frame: frame,
    101: lambda frame: frame,
    108: lambda frame: frame[4:],  # LOOP: that of OpenBSD
    113: lambda frame: frame[16:] if frame[14:16] in _IP else b"",  # LINUX_SLL
    228: lambda frame: frame,  # IPV4
    229: lambda frame: frame,  # IPV6
    276: lambda frame: frame[20:] if frame[:2] in _IP else b"",  # LINUX_SLL2
}
"""What of a frame is IP."""


def _udp(link: int, frame: bytes) -> Packet | None:
    """The UDP datagram in a frame; None if there is none, or not all of it."""
    strip = _LINKS.get(link)
    ip = b"" if strip is None else strip(frame)
    version = ip[0] >> 4 if ip else 0
    if version == 4 and len(ip) >= 20 and ip[9] == _UDP and not int.from_bytes(ip[6:8], "big") & 0x3FFF:
        source, datagram = ip[12:16], ip[(ip[0] & 15) * 4 : int.from_bytes(ip[2:4], "big")]
    elif version == 6 and len(ip) >= 40:
        source, datagram = ip[8:24], _behind_extensions(ip[6], ip[40 : 40 + int.from_bytes(ip[4:6], "big")])
    else:
        return None
    if len(datagram) < 8:
        return None
    source_port, port, size, _ = struct.unpack_from(">HHHH", datagram)
    return Packet(0, str(ip_address(source)), source_port, port, datagram[8:size]) if size >= 8 else None


def _behind_extensions(header: int, data: bytes) -> bytes:
    for _ in range(8):
        if header not in _EXTENSIONS or len(data) < 8:
            break
        header, data = data[0], data[8 + 8 * data[1] :]
    return data if header == _UDP else b""
