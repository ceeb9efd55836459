# SPDX-License-Identifier: Apache-2.0
"""What a fleet sends by netconsole: each sender's datagrams as its console's text, and that as boots.

Each boot that has crashed gives a record ``console-netconsole-N``, N counting boots, whoever they are of, and says who
sent it.  The text is as ramoops would have kept it, with the messages' levels where they are extended.  What is kept
is bounded, for anybody may send, under any address: MAX_STREAMS senders at a time, MAX_KEPT bytes of each.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from pstored.parse import devkmsg
from pstored.parse.kmsg import gap_line
from pstored.readers.console import Boot, Splitter
from pstored.readers.model import Remark, Salvaged, Sender
from pstored.readers.netconsole import MAX_CHUNK, Counts, Message, Order, Pieces, find_host, parse_extended
from pstored.readers.serial import Crashes

BATCH = 64 * 1024
"""Bytes of text that are looked at together."""
MAX_KEPT = 1 << 20
"""Bytes of one boot that are kept."""
MAX_STREAMS = 64
"""Senders that are followed at once; the one that has been silent longest makes room for another."""


CLOCK_SET_NS = 10**18
"""2001: no clock that is right says less."""


class Datagram(NamedTuple):
    """One, as it came."""

    received_ns: int
    """When, nanoseconds since 1970; 0 if that is not known."""
    sender: str
    """Its address; empty if that is not known."""
    data: bytes
    host: str | None = None
    """Its host name, where whoever received it knows that already."""


class Senders:
    """Takes the datagrams of any number of senders, and gives their crashes."""

    def __init__(self) -> None:
        self._crashes = Crashes("netconsole")
        self._streams: OrderedDict[tuple[str, bool], _Stream] = OrderedDict()
        self._dropped = 0

    def feed(self, datagram: Datagram) -> Iterator[Salvaged]:
        """Take one in; crashes come once their boot is over."""
        message = parse_extended(datagram.data, datagram.received_ns)
        key = datagram.sender, message is not None
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = _Plain() if message is None else _Extended()
            if len(self._streams) > MAX_STREAMS:
                (sender, _), oldest = self._streams.popitem(last=False)
                self._dropped += 1
                yield from self._records(sender, oldest, oldest.end())
        else:
            self._streams.move_to_end(key)
        stream.host = find_host(datagram.data) or datagram.host or stream.host
        yield from self._records(datagram.sender, stream, stream.feed(datagram, message))

    def end(self) -> Iterator[Salvaged | Remark]:
        """The boots that are going on, and what is to be said of all."""
        for (sender, _), stream in self._streams.items():
            yield from self._records(sender, stream, stream.end())
        if self._dropped:
            yield Remark(f"more than {MAX_STREAMS} senders: {self._dropped} times one was given up for another")
        yield self._crashes.remark()

    def _records(self, sender: str, stream: "_Stream", boots: Iterator[Boot]) -> Iterator[Salvaged]:
        for boot in boots:
            for record in self._crashes.records(boot):
                yield record._replace(
                    notes=(*record.notes, *stream.counts.notes()),
                    damage=(*record.damage, *stream.counts.damage()),
                    sender=Sender(sender, stream.host) if sender or stream.host else None,
                )


def _stamp(received_ns: int) -> bytes:
    """As ts(1) stamps a line: whoever finds the crash finds its time there.  Of a clock that was not set, nothing."""
    return b"%d.%06d " % (received_ns // 10**9, received_ns % 10**9 // 1000) if received_ns >= CLOCK_SET_NS else b""


class _Stream:
    """What one sender sends, as text, as boots."""

    def __init__(self) -> None:
        self.host: str | None = None
        self.counts = Counts()
        """Of the boot that was given last."""
        self._splitter = Splitter(MAX_KEPT)
        self._text: list[bytes] = []
        self._size = 0

    def feed(self, datagram: Datagram, message: Message | None) -> Iterator[Boot]:
        """Take a datagram in, and what it is if it is extended."""
        raise NotImplementedError

    def end(self) -> Iterator[Boot]:
        """The last boot."""
        yield from self._look()
        yield from self._splitter.end()

    def _add(self, text: bytes) -> None:
        self._text.append(text)
        self._size += len(text)

    def _look(self) -> Iterator[Boot]:
        text, self._text, self._size = b"".join(self._text), [], 0
        yield from self._splitter.feed(text)


class _Plain(_Stream):
    """Text in pieces."""

    _is_open = False  # the last line has not ended
    _is_long = False  # the last datagram was as long as one can be: the next goes on with its line

    def feed(self, datagram: Datagram, message: Message | None) -> Iterator[Boot]:  # noqa: ARG002 - none of these
        data, stamp = datagram.data, _stamp(datagram.received_ns)
        if not data:
            return
        if self._is_open and not self._is_long and data.startswith(b"["):
            self._add(b"\n")
            self._is_open = False
        has_end = data.endswith(b"\n")
        lines = data.removesuffix(b"\n").replace(b"\n", b"\n" + stamp)
        self._add((b"" if self._is_open else stamp) + lines + b"\n" * has_end)
        self._is_open, self._is_long = not has_end, len(data) >= MAX_CHUNK
        if self._size >= BATCH and (has_end or self._size >= 2 * BATCH):
            yield from self._look()

    def end(self) -> Iterator[Boot]:
        if self._is_open:
            self._add(b"\n")
            self._is_open = False
        yield from super().end()


class _Extended(_Stream):
    """Records with numbers."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces = Pieces()
        self._order = Order()

    def feed(self, datagram: Datagram, message: Message | None) -> Iterator[Boot]:  # noqa: ARG002 - it is in message
        whole = None if message is None else self._pieces.put(message)
        if whole is None:
            return
        if self._order.is_over(whole):
            yield from self._end_of_boot()
        self._render(self._order.put(whole))
        if self._size >= BATCH:
            yield from self._look()

    def end(self) -> Iterator[Boot]:
        for message in self._pieces.end():
            self._render(self._order.put(message))
        yield from self._end_of_boot()
        if not self._order.is_empty:  # one message of another boot, of which no more came
            yield from self._end_of_boot()

    def _end_of_boot(self) -> Iterator[Boot]:
        self._render(self._order.rest())
        yield from self._look()
        self.counts = self._order.counts
        yield from self._splitter.end()
        self._order.begin()

    def _render(self, messages: list[Message]) -> None:
        """As the lines of a console, with levels."""
        for message in messages:
            if lost := self._order.gap(message):
                self._add(gap_line(f"{lost} messages are lost here"))
            printed = devkmsg.Message(
                priority=message.priority,
                sequence=message.sequence,
                time_us=message.time_us,
                caller=message.caller,
                text=devkmsg.unescape(message.body.partition(b"\n")[0]),
            )
            stamp = _stamp(message.received_ns)
            lines = devkmsg.format_message(printed, times=True)
            self._add(stamp + lines[:-1].replace(b"\n", b"\n" + stamp) + b"\n")
            if message.missing:
                self._order.counts.torn += 1
                self._add(gap_line(f"{message.missing} bytes of this message are missing"))
