# SPDX-License-Identifier: Apache-2.0
"""A connection to an MQTT 5 server: what is published is waited for until the server says that it has it.

paho does the protocol, and has neither a thread nor a session here: nothing is in flight but the one message that is
waited for, and what is not answered is sent again from the disk, not from memory.
"""

import contextlib
import select
import time
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from pstored.errors import SinkError
from pstored.sinks.link import reaching

PORTS = {"mqtt": 1883, "mqtts": 8883}
"""Schemes to where they are served, if nothing else is said."""
KEEP_ALIVE_S = 60
MAX_RECEIVED = 64 * 1024
"""Bytes of a packet that the server sends: it has nothing to say but answers, is told so, and left if it says more."""
TURN_S = 1.0
_WITH_WILL = 4
"""DISCONNECT's "Disconnect with Will Message": the will is published all the same."""


class Answer(NamedTuple):
    """What the server says to something that was published, or in the place of that when it leaves."""

    code: int
    """A reason code (MQTT 5, 2.4), or GARBLED, or LOST."""
    text: str
    """The same in words."""


GARBLED, LOST = -1, -2
"""It said what is no MQTT 5; it said nothing, and is gone."""


class Address(NamedTuple):
    """Where a server is."""

    host: str
    port: int
    is_tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.is_tls else 'mqtt'}://{host}:{self.port}"


class Login(NamedTuple):
    """Who connects."""

    client_id: str
    username: str = ""
    password: str | None = None


class Message(NamedTuple):
    """Something to be published, at least once (QoS 1)."""

    topic: str
    payload: bytes
    content_type: str = ""
    """Empty: none is told, nor that it is UTF-8."""
    expiry_s: int = 0
    """So long the server keeps it for who is not there; 0: for ever."""
    retain: bool = False

    def properties(self) -> Any:
        """What is told besides, for paho."""
        found = _properties(PacketTypes.PUBLISH)
        if self.content_type:
            found.PayloadFormatIndicator = 1
            found.ContentType = self.content_type
        if self.expiry_s:
            found.MessageExpiryInterval = self.expiry_s
        return found

    def size(self) -> int:
        """Bytes of the packet (MQTT 5, 3.3), whose own length is told in one to four of them."""
        rest = 2 + len(self.topic.encode()) + 2 + len(self.properties().pack()) + len(self.payload)
        return 1 + next(count for count in (1, 2, 3, 4, 5) if rest < 128**count) + rest


def _properties(packet_type: int) -> Any:
    make: Any = Properties  # paho says of everything but this what type it has
    return make(packet_type)


class _Client(Client):
    """As paho's, but that what it receives is bounded."""

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > MAX_RECEIVED:  # of what is still missing of a packet
            raise ConnectionError(f"the server sends a packet of more than {MAX_RECEIVED} bytes")
        return super()._sock_recv(bufsize)


class Broker:
    """A server to publish to; connected on first use, and anew after a failure."""

    def __init__(
        self,
        address: Address,
        *,
        login: Login,
        context: SSLContext | None,
        timeout_s: float,
        will: Message | None = None,
    ) -> None:
        self.where = str(address)
        self.max_packet: int | None = None
        """Bytes of a packet that the server takes, as it says; None: any."""
        self.may_retain = True
        self._address = address
        self._login = login
        self._context = context
        self._timeout_s = timeout_s
        self._will = will
        self._client: Client | None = None
        self._welcome: tuple[ReasonCode, Properties | None] | None = None
        self._acknowledged: dict[int, Answer] = {}
        self._ended: Answer | None = None

    def connect(self) -> bool:
        """Connect, if that is not done; gives whether it had to be.

        Raises:
            SinkError: the server is not reached, or does not want us.
        """
        if self._client is not None:
            self._turn(0)  # it may have left meanwhile
            if self._ended is None and self._client.is_connected():
                return False
        self.drop()
        client = self._make()
        wishes = _properties(PacketTypes.CONNECT)
        wishes.MaximumPacketSize = MAX_RECEIVED
        client.connect_timeout = self._timeout_s
        host, port = self._address.host, self._address.port
        self._client = client
        with reaching(self.where, self._timeout_s):
            client.connect(host, port, KEEP_ALIVE_S, clean_start=True, properties=wishes)
        self._until(lambda: self._welcome is not None)
        self._greet()
        return True

    def publish(self, message: Message) -> Answer:
        """Publish, and wait for the answer.

        Raises:
            SinkError: there is none in time, or there is no connection.
        """
        self.connect()
        assert self._client is not None
        self._acknowledged.clear()
        sent = self._client.publish(
            message.topic, message.payload, qos=1, retain=message.retain, properties=message.properties()
        )
        self._until(lambda: sent.mid in self._acknowledged)
        if (answer := self._acknowledged.get(sent.mid)) is not None:
            return answer
        ended = self._ended or Answer(LOST, "")
        self.drop()
        if ended.code == LOST:
            raise SinkError(f"{self.where} closes the connection without an answer")
        return ended

    def close(self) -> None:
        """Leave in order; a will is published."""
        if self._client is not None and self._client.is_connected():
            with contextlib.suppress(SinkError, OSError):
                self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=_WITH_WILL))
                self._until(lambda: self._client is None or not self._client.want_write())
        self.drop()

    def drop(self) -> None:
        """Leave, as if the line were cut."""
        client, self._client = self._client, None
        self._welcome = self._ended = None
        if client is not None and (socket := client.socket()) is not None:
            socket.close()

    def _make(self) -> Client:
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._login.client_id,
            protocol=MQTTv5,
            reconnect_on_failure=False,
        )
        if self._login.username or self._login.password is not None:
            client.username_pw_set(self._login.username or None, self._login.password)
        if self._context is not None:
            client.tls_set_context(self._context)
        if (will := self._will) is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)

        def welcomed(_client: Client, _data: Any, _flags: Any, code: ReasonCode, properties: Properties | None) -> None:
            self._welcome = code, properties

        def acknowledged(_client: Client, _data: Any, mid: int, code: ReasonCode, properties: Properties) -> None:
            self._acknowledged[mid] = _answer(code, properties)

        def ended(_client: Client, _data: Any, flags: Any, code: ReasonCode, properties: Properties | None) -> None:
            if flags.is_disconnect_packet_from_server:
                self._ended = _answer(code, properties)
            else:  # paho's own words, of which "Protocol error" means that it was none
                self._ended = Answer(GARBLED if code.value == _PROTOCOL_ERROR else LOST, str(code))

        client.on_connect = welcomed
        client.on_publish = acknowledged
        client.on_disconnect = ended
        return client

    def _greet(self) -> None:
        """Judge how the server takes the connection, and keep what it can; raises SinkError."""
        if self._welcome is None:
            ended = self._ended or Answer(LOST, "")
            self.drop()
            if ended.code == GARBLED:
                raise SinkError(f"{self.where} says what is not MQTT 5", hint="is it a server for that?")
            raise SinkError(f"{self.where} closes the connection without an answer")
        code, properties = self._welcome
        if code.value != 0:
            self.drop()
            raise SinkError(
                f"{self.where} refuses the connection: {_answer(code, properties).text}", hint=_HINTS.get(code.value)
            )
        if getattr(properties, "MaximumQoS", 2) < 1:
            self.drop()
            raise SinkError(f"{self.where} acknowledges nothing (its maximum QoS is 0), so that nothing is sent to it")
        self.max_packet = getattr(properties, "MaximumPacketSize", None)
        self.may_retain = bool(getattr(properties, "RetainAvailable", 1))

    def _until(self, is_over: Callable[[], bool]) -> None:
        """Send and receive until *is_over*, or the connection has ended; raises SinkError if it takes too long."""
        deadline = time.monotonic() + self._timeout_s
        while not is_over() and self._ended is None:
            left = deadline - time.monotonic()
            if left <= 0:
                self.drop()
                raise SinkError(f"{self.where} takes longer than {self._timeout_s:g} s to answer")
            self._turn(min(left, TURN_S))

    def _turn(self, seconds: float) -> None:
        """Wait for the socket, and have paho do what there is to do."""
        client = self._client
        if client is None or (socket := client.socket()) is None:
            self._ended = self._ended or Answer(LOST, "")
            return
        poll = select.poll()
        poll.register(socket.fileno(), select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        unread = socket.pending() if hasattr(socket, "pending") else 0  # of TLS, which select does not see
        ready = 0
        for _, event in poll.poll(0 if unread else seconds * 1000):
            ready |= event
        try:
            if unread or ready & ~select.POLLOUT:
                client.loop_read()
            if ready & select.POLLOUT:
                client.loop_write()
            client.loop_misc()
        except Exception as e:  # what paho raises for a packet that is none differs by version  # noqa: BLE001
            self._ended = Answer(GARBLED, str(e))


_PROTOCOL_ERROR = 0x82
_WHO = "username=, password_file=, cert_file= in [mqtt]"
_HINTS = {
    0x84: "it must speak MQTT 5",
    0x85: "client_id= in [mqtt]",
    0x86: _WHO,
    0x87: _WHO,
    0x90: "status_topic= in [mqtt]",
    0x9A: 'it does not retain messages: status_topic = "" in [mqtt]',
}
"""What to look at when a connection is refused."""


def _answer(code: ReasonCode, properties: Properties | None) -> Answer:
    """A reason code, and what the server says besides."""
    said = " ".join(str(getattr(properties, "ReasonString", "")).split())
    return Answer(code.value, f"{code} (0x{code.value:02x})" + (f": {said}" if said else ""))


def split_address(url: str) -> Address:
    """Where ``mqtt://host`` or ``mqtts://host:8883`` is; raises SinkError if it is none, or has more in it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise SinkError(f"{url!r} is no URL: {e}") from e
    if parts.password is not None or parts.username is not None:
        raise SinkError("server in [mqtt] has a user or a password: not used", hint="username=, password_file=")
    is_plain = url.isprintable() and " " not in url and parts.path in ("", "/") and not parts.query
    if parts.scheme not in PORTS or not parts.hostname or port == 0 or not is_plain:
        raise SinkError(f"{url!r} is no mqtt://host or mqtts://host", hint="see pstored check-config")
    return Address(parts.hostname, port or PORTS[parts.scheme], parts.scheme == "mqtts")
