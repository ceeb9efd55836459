# SPDX-License-Identifier: Apache-2.0
r"""A file of what netconsole sent: its datagrams, however they were written down.

==========  ===================================================================================================
packets     pcap or pcapng: UDP to port 6666 (or as the parameter ``netconsole.port`` says), and what is extended
JSON lines  ``{"t": 1795407862.542937, "from": "10.0.0.5", "data": "[    0.000000] Linux ..."}``, a datagram each,
            its bytes as Latin-1; ``host`` where it is known
text        extended datagrams as ``nc -u -l 6666`` gives them; plain ones are a console's text (``--as serial``)
==========  ===================================================================================================
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pstored.readers.model import Options, Reader, Remark, Salvaged, Source
from pstored.readers.netconsole import PORT, is_host, parse_extended
from pstored.readers.pcap import EndedEarlyError, Packet, is_capture, read_packets
from pstored.readers.senders import Datagram, Senders

BLOCK = 256 * 1024
HEAD = 64 * 1024
"""Bytes by which a file is recognized."""
MAX_LINE = 512 * 1024
"""A datagram of 64 KiB, each byte escaped to six; a longer line is none."""
PACKETS = 5000
"""So many of a capture are looked at."""
MANY = 3
"""Extended messages, which make a text one of them."""


def recognize(source: Source) -> bool:
    """Whether datagrams of netconsole stand near its beginning."""
    head = source.read(0, HEAD)
    if is_capture(head):
        try:
            return any(_is_ours(packet, PORT) for packet in islice(read_packets(source), PACKETS))
        except EndedEarlyError:
            return False
    lines = head.split(b"\n")
    return _from_json(lines[0]) is not None or sum(parse_extended(line) is not None for line in lines) >= MANY


def read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:
    """Each boot with a crash, of each sender."""
    senders = Senders()
    problem = None
    passed = 0
    try:
        for datagram in _datagrams(source, options):
            if datagram is None:
                passed += 1
            else:
                yield from senders.feed(datagram)
    except EndedEarlyError as e:
        problem = Remark(str(e), is_damage=True)
    yield from senders.end()
    if passed:
        yield Remark(f"{passed} lines are no datagrams", is_damage=True)
    if problem is not None:
        yield problem


def _datagrams(source: Source, options: Options) -> Iterator[Datagram | None]:
    """What is in the file; None for a line that is no datagram."""
    head = source.read(0, BLOCK)
    if is_capture(head):
        port = _port(options)
        for packet in read_packets(source):
            if _is_ours(packet, port):
                yield Datagram(packet.time_ns, packet.source, packet.data)
    elif _from_json(head.partition(b"\n")[0]) is not None:
        yield from (_from_json(line) for line in _lines(source) if line.strip())
    else:
        yield from _from_text(source)


# -- packets


def _is_ours(packet: Packet, port: int) -> bool:
    return packet.port == port or parse_extended(packet.data) is not None


def _port(options: Options) -> int:
    try:
        return int(options.parameters.get("netconsole.port", PORT))
    except ValueError:
        return PORT


# -- lines


def _lines(source: Source) -> Iterator[bytes]:
    at, rest = 0, b""
    while piece := source.read(at, BLOCK):
        at += len(piece)
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if len(rest) > MAX_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest


def _from_json(line: bytes) -> Datagram | None:
    try:
        value: dict[str, Any] = json.loads(line)
        time_s, sender, data = value.get("t") or 0, value.get("from") or "", value["data"]
        if isinstance(time_s, bool) or not 0 <= time_s < 2**33:
            return None
        host = value.get("host")
        host = host if isinstance(host, str) and is_host(host) else None
        return Datagram(round(time_s * 10**6) * 1000, str(sender), data.encode("latin-1"), host)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _from_text(source: Source) -> Iterator[Datagram]:
    """Datagrams that follow each other: each begins with its numbers, what stands behind is its own."""
    data = b""
    for line in _lines(source):
        if data and (len(data) > MAX_LINE or parse_extended(line) is not None):
            yield Datagram(0, "", data)
            data = b""
        data += line + b"\n"
    if data:
        yield Datagram(0, "", data)


READER = Reader(recognize, read)
