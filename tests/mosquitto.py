# SPDX-License-Identifier: Apache-2.0
"""mosquitto, a real MQTT broker, on the loopback interface; who subscribes to it; and one that says what it is told."""

import contextlib
import json
import os
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from tests.conftest import require
from tests.loopback import running

PATIENCE_S = 30


@contextlib.contextmanager
def mosquitto(directory: Path, *lines: str, port: int) -> Iterator[None]:
    """Run mosquitto with these lines in its configuration; ready on return, ended after."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    require(program, "mosquitto (apt-get install mosquitto, which starts it, too)")
    assert program is not None
    configuration = directory / f"mosquitto-{port}.conf"
    wanted = [f"listener {port} 127.0.0.1", "user root", "log_dest stderr", *lines]
    configuration.write_text("\n".join(wanted) + "\n")
    with running([program, "-c", configuration], port, directory / "mosquitto.log", directory=directory):
        yield


ANONYMOUS = "allow_anonymous true"


@dataclass
class Subscriber:
    """Who gets what is published."""

    messages: list[MQTTMessage] = field(default_factory=list)

    def events(self) -> list[dict[str, Any]]:
        """What is in them, but for statuses."""
        return [json.loads(m.payload) for m in list(self.messages) if m.payload.startswith(b"{")]

    def crashes(self) -> list[str]:
        """Which crashes they are of."""
        return [event["subject"] for event in self.events()]

    def wait_for(self, count: int) -> list[MQTTMessage]:
        """Until so many have come."""
        return self._wait(lambda: len(self.messages) >= count)

    def wait_for_crashes(self, count: int) -> list[MQTTMessage]:
        """Until so many different ones have come; what is sent twice may be among them."""
        return self._wait(lambda: len(set(self.crashes())) >= count)

    def _wait(self, is_enough: Callable[[], bool]) -> list[MQTTMessage]:
        deadline = time.monotonic() + PATIENCE_S
        while not is_enough():
            assert time.monotonic() < deadline, self.messages
            time.sleep(0.01)
        return self.messages


@contextlib.contextmanager
def subscribed(port: int, *, topic: str = "#", login: tuple[str, str] | None = None) -> Iterator[Subscriber]:
    """Subscribe; it counts on return."""
    made, ready = Subscriber(), threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
    client.on_message = lambda _client, _data, message: made.messages.append(message)

    def connected(*_: Any) -> None:
        client.subscribe(topic, qos=1)

    client.on_connect = connected
    client.on_subscribe = lambda *_: ready.set()
    if login is not None:
        client.username_pw_set(*login)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        assert ready.wait(PATIENCE_S)
        yield made
    finally:
        client.disconnect()
        client.loop_stop()


# -- a server that says what it is told


class Packet(NamedTuple):
    """What a client sent."""

    kind: int
    """The control packet type (MQTT 5, 2.1.2)."""
    body: bytes
    length: int
    """Of all of it, with its header."""


CONNECT, CONNACK, PUBLISH, PUBACK, DISCONNECT = 1, 2, 3, 4, 14
WELCOME = bytes((CONNACK << 4, 3, 0, 0, 0))
"""CONNACK: no session, success, no properties."""


def puback(packet: Packet, code: int) -> bytes:
    """The acknowledgement of a PUBLISH."""
    topic = struct.unpack_from(">H", packet.body)[0]
    return bytes((PUBACK << 4, 4)) + packet.body[2 + topic : 4 + topic] + bytes((code, 0))


def leave(code: int) -> bytes:
    """A DISCONNECT."""
    return bytes((DISCONNECT << 4, 2, code, 0))


@dataclass
class Scripted:
    """A server that answers each packet as *answer* says; None: it closes the connection."""

    port: int
    answer: Callable[[Packet], bytes | None]
    got: list[Packet] = field(default_factory=list)

    def published(self) -> list[Packet]:
        """The PUBLISH packets."""
        return [packet for packet in self.got if packet.kind == PUBLISH]


def polite(code: int = 0) -> Callable[[Packet], bytes | None]:
    """Takes the connection, and answers what is published with a code."""
    return lambda packet: {CONNECT: WELCOME}.get(packet.kind, b"") if packet.kind != PUBLISH else puback(packet, code)


@contextlib.contextmanager
def scripted(answer: Callable[[Packet], bytes | None], *, port: int = 0) -> Iterator[Scripted]:
    """Run such a server."""
    listener = socket.create_server(("127.0.0.1", port))
    made = Scripted(listener.getsockname()[1], answer)
    connections: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while (packet := _read(connection)) is not None:
                made.got.append(packet)
                said = made.answer(packet)
                if said is None:
                    return
                connection.sendall(said)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _read(connection: socket.socket) -> Packet | None:
    head = _exactly(connection, 1)
    length, shift = 0, 0
    while head is not None:
        byte = _exactly(connection, 1)
        if byte is None:
            return None
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            body = _exactly(connection, length)
            return None if body is None else Packet(head[0] >> 4, body, 1 + shift // 7 + length)
    return None


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            return None
        data += more
    return data
