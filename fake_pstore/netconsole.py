# SPDX-License-Identifier: Apache-2.0
"""Datagrams as netconsole sends them, and files that hold them.

Source: drivers/net/netconsole.c, write_msg(), send_ext_msg_udp(), append_release(), prepare_extradata().
"""

import json
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from . import devkmsg
from .dump import console_lines
from .klog import Message

MAX_PRINT_CHUNK = 1000


class Datagram(NamedTuple):
    """One, on the wire."""

    seconds: float
    """Unix time."""
    source: str
    """IPv4 or IPv6 address."""
    data: bytes


def plain(message: Message, *, loglevel: int = 8, times: bool = True, callers: bool = False) -> list[bytes]:
    """What is sent of a message to a target that is not extended."""
    if message.level % 8 >= loglevel:
        return []
    text = console_lines(message, times=times, callers=callers)
    return [text[at : at + MAX_PRINT_CHUNK] for at in range(0, len(text), MAX_PRINT_CHUNK)]


def extended(
    message: Message,
    sequence: int,
    *,
    release: str = "",
    callers: bool = False,
    data: Sequence[str] = (),
    msgid: int | None = None,
) -> list[bytes]:
    """What is sent of a message to an extended target.

    Args:
        message: what was logged.
        sequence: its number since boot.
        release: of the kernel, before everything else; empty: not asked for.
        callers: CONFIG_PRINTK_CALLER.
        data: what the user has added, ``key=value``.
        msgid: the target's own count; None: not asked for.
    """
    record = devkmsg.record(message, sequence, callers=callers)
    lines = [f" {pair}\n" for pair in data] + ([] if msgid is None else [f" msgid={msgid}\n"])
    head, _, body = record.partition(b";")
    head = (f"{release}," if release else "").encode() + head
    body += "".join(lines).encode()
    if len(head) + 1 + len(body) <= MAX_PRINT_CHUNK:
        return [head + b";" + body]
    sent = []
    offset = 0
    while offset < len(body):
        start = head + b",ncfrag=%d/%d;" % (offset, len(body))
        piece = body[offset : offset + MAX_PRINT_CHUNK - len(start)]
        sent.append(start + piece)
        offset += len(piece)
    return sent


# -- files


def json_lines(datagrams: Iterable[Datagram]) -> bytes:
    """As the captures here have them."""
    values = [{"t": d.seconds, "from": d.source, "data": d.data.decode("latin-1")} for d in datagrams]
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def _address(text: str) -> bytes:
    if ":" not in text:
        return bytes(int(n) for n in text.split("."))
    head, _, tail = text.partition("::")
    groups = [[int(g, 16) for g in part.split(":") if g] for part in (head, tail)]
    words = groups[0] + [0] * (8 - len(groups[0]) - len(groups[1])) + groups[1]
    return struct.pack(">8H", *words)


def packet(datagram: Datagram, port: int = 6666) -> tuple[int, bytes]:
    """An IP packet with it, and the Ethernet type of that."""
    udp = struct.pack(">HHHH", 6665, port, 8 + len(datagram.data), 0) + datagram.data
    source = _address(datagram.source)
    if len(source) == 4:
        head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, source, bytes(4))
        return 0x0800, head + udp
    return 0x86DD, struct.pack(">IHBB16s16s", 0x60000000, len(udp), 17, 64, source, bytes(16)) + udp


def frame(kind: int, ip: bytes, link: int) -> bytes:
    """An IP packet in a frame of that link type; 1 (Ethernet) has a VLAN here."""
    if link == 1:
        return bytes(12) + struct.pack(">HHH", 0x8100, 5, kind) + ip
    if link == 113:
        return bytes(14) + struct.pack(">H", kind) + ip
    if link == 276:
        return struct.pack(">H", kind) + bytes(18) + ip
    return (bytes(4) if link in (0, 108) else b"") + ip


def pcap(
    datagrams: Iterable[Datagram], *, order: str = "<", nano: bool = False, link: int = 1, port: int = 6666
) -> bytes:
    """A capture by tcpdump."""
    magic, unit = (0xA1B23C4D, 10**9) if nano else (0xA1B2C3D4, 10**6)
    found = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link)]
    for datagram in datagrams:
        data = frame(*packet(datagram, port), link)
        fraction = round(datagram.seconds % 1 * unit) % unit
        found.append(struct.pack(order + "IIII", int(datagram.seconds), fraction, len(data), len(data)) + data)
    return b"".join(found)


def _block(order: str, kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack(order + "II", kind, size) + body + struct.pack(order + "I", size)


def pcapng(datagrams: Iterable[Datagram], *, order: str = "<", nano: bool = False, link: int = 1) -> bytes:
    """A capture by Wireshark."""
    resolution = struct.pack(order + "HHB3xHH", 9, 1, 9, 0, 0) if nano else b""
    found = [
        _block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1)),
        _block(order, 1, struct.pack(order + "HHI", link, 0, 0) + resolution),
    ]
    for datagram in datagrams:
        data = frame(*packet(datagram), link)
        time = round(datagram.seconds * 10**6) * (1000 if nano else 1)
        head = struct.pack(order + "IIIII", 0, time >> 32, time & 0xFFFFFFFF, len(data), len(data))
        found.append(_block(order, 6, head + data + bytes(-len(data) % 4)))
    return b"".join(found)
