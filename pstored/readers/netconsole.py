# SPDX-License-Identifier: Apache-2.0
r"""netconsole on the wire: datagrams taken apart, messages put together and in order.

Source: drivers/net/netconsole.c; Documentation/networking/netconsole.rst.  UDP, one way, from anybody, and what is
lost is lost.  A target is plain or extended::

    [   12.345678] text LF                                       plain: text as on any console, in pieces of 1000 bytes
    6,416,12345678,-,caller=T1;text LF *(" " key=value LF)       extended: the record of /dev/kmsg
    6.4.0,6,416,12345678,-;text ...                              since 6.6, the kernel's release before it
    6,416,12345678,-,ncfrag=0/1200;text...                       a piece: where it belongs, and of how many bytes

The sequence number goes up by one with every message of that boot; what is not for consoles is not sent, so a gap is
no proof of loss.  ``msgid=``, where the kernel is told to add it, is one: it counts what was sent.  Messages overtake
each other, so some are held back until those before them are there; a boot ends where numbers and times go back.
"""

import re
from bisect import bisect_left
from collections import OrderedDict, deque
from typing import NamedTuple

PORT = 6666
"""Where netconsole sends to, unless it is told otherwise."""
MAX_CHUNK = 1000
"""MAX_PRINT_CHUNK: a longer text comes in several datagrams."""
WINDOW = 64
"""Messages that are held back, for those before them may still come."""
MAX_PENDING = 16
"""Messages of which not all pieces are there yet."""
MAX_BODY = 16 * 1024
"""A message is no longer: PRINTK_MESSAGE_MAX is 2048 bytes, each escaped to four, and a user adds 4 KiB at the most."""
MAX_PIECES = 32
"""Of some 900 bytes each."""
OVERTAKES_US = 1_000_000
"""No message is so late that its time goes back further: that is another boot."""

#   header = [release ","] priority "," sequence "," microseconds "," flag *("," key "=" value) ";"
_HEADER = re.compile(
    rb"(?:(?=[0-9]{0,64}[^0-9,;\n])([^,;\n]{1,64}),)?([0-9]{1,5}),([0-9]{1,20}),([0-9]{1,20}),[^,;\n]{0,4}"
    rb"((?:,[^,;=\n]{1,32}=[^,;\n]{0,128}){0,16});"
)
_FRAGMENT = re.compile(rb",ncfrag=([0-9]{1,6})/([0-9]{1,6})(?=,|\Z)")
_CALLER = re.compile(rb",caller=([TC][0-9]{1,10})(?=,|\Z)")
_MSGID = re.compile(rb"\n msgid=([0-9]{1,10})(?=\n|\Z)")
_NAME = rb"([A-Za-z0-9][A-Za-z0-9.-]{0,63})"
_HOST = re.compile(
    rb"(?:Hostname set to|Set hostname to) <" + _NAME + rb">|\n (?:hostname|host)=" + _NAME + rb"(?=\n|\Z)"
)


class Message(NamedTuple):
    """An extended message, or a piece of one; messages are ordered as they were printed."""

    sequence: int
    time_us: int
    offset: int
    """Of this piece in the body; 0 if it is no piece."""
    total: int
    """Bytes of the whole body."""
    body: bytes
    """The text, escaped, and lines of keys and values."""
    priority: int
    caller: bytes | None
    release: bytes | None
    received_ns: int
    """Nanoseconds since 1970; 0 if that is not known."""

    @property
    def missing(self) -> int:
        """Bytes of the body that are not there."""
        return self.total - len(self.body)


def parse_extended(data: bytes, received_ns: int = 0) -> Message | None:
    r"""Take an extended datagram apart, e.g. ``b"6,416,1758426,-;text\n"``; None if it is none."""
    found = _HEADER.match(data)
    if found is None:
        return None
    body = data[found.end() : found.end() + MAX_BODY]
    fragment, caller = _FRAGMENT.search(found[5]), _CALLER.search(found[5])
    return Message(
        sequence=int(found[3]),
        time_us=int(found[4]),
        offset=0 if fragment is None else int(fragment[1]),
        total=len(body) if fragment is None else int(fragment[2]),
        body=body,
        priority=int(found[2]),
        caller=None if caller is None else caller[1],
        release=found[1],
        received_ns=received_ns,
    )


def find_host(data: bytes) -> str | None:
    """The host name, where a datagram says it: systemd's first words, or a key that a user has added."""
    found = _HOST.search(data) if b"ost" in data else None
    return None if found is None else (found[1] or found[2]).decode()


def is_host(name: str) -> bool:
    """Whether a text may be a host name."""
    return re.fullmatch(_NAME, name.encode(errors="replace")) is not None


class Pieces:
    """Puts messages together that came in pieces."""

    def __init__(self) -> None:
        self._pending: OrderedDict[tuple[int, int, int], dict[int, Message]] = OrderedDict()

    def put(self, piece: Message) -> Message | None:
        """Take one in; gives the message if it is whole now, or one that is given up because there are too many."""
        if not piece.missing and not piece.offset:
            return piece
        key = piece.sequence, piece.time_us, piece.total
        there = self._pending.setdefault(key, {})
        if piece.total <= MAX_BODY and piece.offset + len(piece.body) <= piece.total and len(there) < MAX_PIECES:
            there.setdefault(piece.offset, piece)
        if there and sum(len(p.body) for p in there.values()) == piece.total:
            return _join(self._pending.pop(key))
        if len(self._pending) > MAX_PENDING:
            return _join(self._pending.popitem(last=False)[1])
        return None

    def end(self) -> list[Message]:
        """Give up what is not whole."""
        found = [message for pieces in self._pending.values() if (message := _join(pieces)) is not None]
        self._pending.clear()
        return found


def _join(pieces: dict[int, Message]) -> Message | None:
    if not pieces:
        return None
    ordered = [pieces[offset] for offset in sorted(pieces)]
    return ordered[0]._replace(offset=0, body=b"".join(p.body for p in ordered))


class Counts:
    """What was wrong with what one boot has sent."""

    def __init__(self) -> None:
        self.missing = 0
        """Numbers that have not come."""
        self.lost = 0
        """Messages that were sent and have not come; known only where the kernel sends msgid."""
        self.late = 0
        self.doubled = 0
        self.torn = 0
        """Messages without some of their pieces."""

    def notes(self) -> tuple[str, ...]:
        """What is to be known."""
        found = []
        if self.missing and not self.lost:
            found.append(f"{_messages(self.missing)} lost on the way, or not for consoles: numbers are missing")
        if self.late:
            found.append(f"{_messages(self.late)} put where they belong: they came late")
        if self.doubled:
            found.append(f"{_messages(self.doubled)} left out: they came twice")
        return tuple(found)

    def damage(self) -> tuple[str, ...]:
        """What is lost."""
        found = [f"{_messages(self.lost)} lost on the way"] if self.lost else []
        return (*found, f"{_messages(self.torn)} without some of their pieces") if self.torn else tuple(found)


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


class Order:
    """Gives messages in the order in which they were printed, boot by boot."""

    def __init__(self) -> None:
        self._doubtful: Message | None = None  # it seems to be of another boot: the next one shows
        self.begin()

    def begin(self) -> None:
        """What is put from now on is of another boot."""
        self.counts = Counts()
        """Of the boot that is going on."""
        self._held: list[Message] = []
        self._newest: Message | None = None
        self._given: deque[int] = deque(maxlen=WINDOW)  # numbers, the last one last
        self._msgid: int | None = None
        if self._doubtful is not None:  # it was
            self._insert(self._doubtful)
            self._doubtful = None

    def put(self, message: Message) -> list[Message]:
        """Take one in; gives those whose turn it is.  What :meth:`is_over` says must be asked before."""
        if self._doubtful is not None:
            self._insert(self._doubtful)
            self._doubtful = None
        elif self._is_back(message):
            self._doubtful = message
            return []
        self._insert(message)
        given = []
        while len(self._held) > WINDOW:
            given.append(self._held.pop(0))
        return given

    def is_over(self, message: Message) -> bool:
        """Whether this is the second message in a row that must be of another boot: :meth:`begin` is due, then."""
        return self._doubtful is not None and self._is_back(message)

    @property
    def is_empty(self) -> bool:
        """Whether none is held back."""
        return not self._held

    def rest(self) -> list[Message]:
        """Those that were held back."""
        given, self._held = self._held, []
        return given

    def gap(self, message: Message) -> int:
        """How many messages are proven to be lost before one that has been given; asked of each, in order."""
        if self._given:
            self.counts.missing += max(0, message.sequence - self._given[-1] - 1)
        self._given.append(message.sequence)
        found = _MSGID.search(message.body)
        msgid, before = None if found is None else int(found[1]), self._msgid
        self._msgid = msgid if msgid is not None else before
        lost = 0 if msgid is None or before is None else (msgid - before - 1) % 2**32
        lost = lost if lost < 2**31 else 0
        self.counts.lost += lost
        return lost

    def _is_back(self, message: Message) -> bool:
        newest = self._newest
        return (
            newest is not None
            and message.sequence < newest.sequence
            and message.time_us + OVERTAKES_US < newest.time_us
        )

    def _insert(self, message: Message) -> None:
        at = bisect_left(self._held, message[:1])
        is_there = at < len(self._held) and self._held[at].sequence == message.sequence
        if is_there or (self._given and message.sequence <= self._given[-1] and message.sequence in self._given):
            self.counts.doubled += 1
            return
        if self._newest is None or message.sequence > self._newest.sequence:
            self._newest = message
        else:
            self.counts.late += 1
        self._held.insert(at, message)
