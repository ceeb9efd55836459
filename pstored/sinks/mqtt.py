# SPDX-License-Identifier: Apache-2.0
"""MQTT 5: each parcel a CloudEvent 1.0, structured JSON, published with QoS 1, and delivered once it is acknowledged.

What a server does with what it cannot take differs: some say so, some close the connection, some answer with a code
that MQTT 5 does not have there (mosquitto 2.0, over ``message_size_limit``).  So what may have been too large is sent
again, shorter, before it counts as refused.
"""

import json
import sys
from typing import Any

from pstored.delivery import cloudevent
from pstored.delivery.credentials import read_secret
from pstored.delivery.payload import Parcel
from pstored.delivery.shorten import shorten
from pstored.errors import SinkError
from pstored.sinks.base import OutgoingSink, Setting
from pstored.sinks.broker import GARBLED, Answer, Broker, Login, Message, split_address
from pstored.sinks.link import Tls, make_context
from pstored.sinks.settings import Mqtt
from pstored.sinks.words import crash_fields, fill, reporter_fields, require_topic

MAX_PACKET = 268_435_460
"""Bytes that a packet can have (MQTT 5, 1.5.5)."""
ONLINE, OFFLINE = b"online", b"offline"
_NOBODY = 0x10
"""No matching subscribers: the server has it, and nobody to give it to, so that nobody will ever have it."""
_NOT_AUTHORIZED, _TOPIC_INVALID, _TOO_LARGE, _PAYLOAD_INVALID = 0x87, 0x90, 0x95, 0x99
_OF_WHO_SENDS = frozenset((_NOT_AUTHORIZED, _TOPIC_INVALID))
"""The next would be refused, too."""


class MqttSink(OutgoingSink):
    """Delivers to an MQTT server."""

    def __init__(self, table: Mqtt, setting: Setting) -> None:
        """Connect.

        Raises:
            SinkError: something in the table cannot be used, or the server is not reached, or refuses.
        """
        if not table.server:
            raise SinkError("server in [mqtt] must be set", hint="see pstored check-config")
        address, fields = split_address(table.server), reporter_fields(setting.reporter)
        password = read_secret(table.password_file, setting.environ) if table.password_file else None
        context = None
        if address.is_tls:
            context = make_context(Tls(table.ca_file, table.cert_file, table.key_file), setting.environ)
        self._table = table
        self._topic = table.topic
        self._status: str | None = None
        if table.status_topic:
            self._status = _topic(table.status_topic, fields, "status_topic")
        self._broker = Broker(
            address,
            login=Login(fill(table.client_id, fields, key="client_id in [mqtt]"), table.username, password),
            context=context,
            timeout_s=setting.timeout_s,
            will=None if self._status is None else Message(self._status, OFFLINE, retain=True),
        )
        self._most: int | None = None
        """Bytes of a packet that the server took after it had not taken a larger one."""
        self._connect()

    def deliver(self, parcel: Parcel) -> dict[str, Any]:
        """Publish one event; raises SinkError."""
        topic = _topic(self._table.topic, crash_fields(parcel), "topic")
        self._connect()
        most = min(filter(None, (self._table.max_packet_bytes, self._broker.max_packet, self._most, MAX_PACKET)))
        answer: Answer | None = None
        while (fitting := shorten(parcel, most, lambda p: self._message(topic, p).size())) is not None:
            message = self._message(topic, fitting)
            answer = self._broker.publish(message)
            if answer.code not in (_TOO_LARGE, GARBLED):
                self._most = most if fitting is not parcel else self._most
                return self._judge(answer, topic, cut=fitting.left_out > parcel.left_out)
            most = message.size() // 2
        if answer is not None:
            raise SinkError(
                f"{self._broker.where} does not take it, however short: {answer.text}", retry=answer.code == GARBLED
            )
        raise SinkError(f"it does not fit into the {most} bytes that may be sent, not even without text", retry=False)

    def close(self) -> None:
        """Leave in order."""
        self._broker.close()

    def _connect(self) -> None:
        """Connect, if that is not done, and say that we are there; if that is refused, no crash is kept from going."""
        if self._broker.connect() and self._status is not None:
            answer = self._broker.publish(Message(self._status, ONLINE, retain=self._broker.may_retain))
            if answer.code >= _ERRORS:
                print(f"{self._broker.where} refuses {self._status!r}: {answer.text}", file=sys.stderr)

    def _message(self, topic: str, parcel: Parcel) -> Message:
        data = json.dumps(cloudevent.event(parcel), ensure_ascii=False, separators=(",", ":")).encode()
        return Message(topic, data, cloudevent.CONTENT_TYPE, self._table.expiry_s)

    def _judge(self, answer: Answer, topic: str, *, cut: bool) -> dict[str, Any]:
        """The receipt, if the server has it; raises SinkError."""
        if answer.code == _NOBODY and self._table.require_subscriber:
            raise SinkError(
                f"nobody has subscribed to {topic!r} at {self._broker.where}, which would drop it",
                hint="require_subscriber = false in [mqtt], if the server itself takes what is published",
            )
        if answer.code < _ERRORS:
            return {"reason": answer.code, "topic": topic} | ({"shortened": True} if cut else {})
        said = f"{self._broker.where} refuses {topic!r}: {answer.text}"
        if answer.code in _OF_WHO_SENDS:
            raise SinkError(said, retry=False, pause=True, hint="what may it publish to?")
        raise SinkError(said, retry=answer.code != _PAYLOAD_INVALID)


_ERRORS = 0x80
"""Reason codes from here on are failures (MQTT 5, 2.4)."""


def _topic(pattern: str, fields: dict[str, str | None], key: str) -> str:
    return require_topic(fill(pattern, fields, key=f"{key} in [mqtt]"), key=f"{key} in [mqtt]")
