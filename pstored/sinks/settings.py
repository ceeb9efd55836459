# SPDX-License-Identifier: Apache-2.0
"""The tables of ``pstored.conf`` for what goes out: ``[delivery]``, and one a sink, which turns it on by being there.

Imported by :mod:`pstored.config` where a file has one of them, and only then.  What is unset is None: then
``[delivery]``, or the sink's own default, counts.  No key holds a secret: those that name a file with one take a path,
or the name of a systemd credential (:mod:`pstored.delivery.credentials`).
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from pstored.lean import StrEnum


class Text(StrEnum):
    """How much of the crashed kernel's log goes out."""

    FULL = "full"
    """All of it, up to ``max_text_bytes``."""
    TRACE = "trace"
    """The kernel's reports in it, without registers and stack."""
    NONE = "none"


class Delivery(NamedTuple):
    """``[delivery]``: how crashes go out, and what of them."""

    enabled: bool = True
    """To any sink."""
    timeout_s: int = 30
    """How long a sink may take to connect, and to answer."""
    sink_timeout_s: int = 300
    """How long one sink may take in one run; one that takes longer is ended."""
    retry_s: int = 60
    """After a failure the next try comes so much later; then twice as much, and so on ..."""
    retry_max_s: int = 3600
    """... but no more than this."""
    per_minute: int = 60
    """A sink gets no more deliveries than this in a minute; 0 is no limit."""
    repeat_first: int = 3
    """So many crashes of one loose signature are delivered one by one, the others are counted; 0: all one by one."""
    repeat_window_s: int = 86400
    """In so long a time."""
    text: Text = Text.FULL
    max_text_bytes: int = 64 * 1024
    """Of a longer text the beginning and the end go out."""
    redact: bool = True
    """Leave out what identifies, or gives away (pstored.delivery.redact)."""
    redact_words: tuple[str, ...] = ()
    """Further words to leave out: shell patterns, fnmatch(3)."""


class Encoding(StrEnum):
    """How OTLP is encoded."""

    AUTO = "auto"
    """As protobuf where opentelemetry-proto is installed, else as JSON."""
    JSON = "json"
    PROTOBUF = "protobuf"


class Compression(StrEnum):
    """Of what is posted."""

    GZIP = "gzip"
    NONE = "none"


class Timestamp(StrEnum):
    """Which time a record of a log has."""

    CRASH = "crash"
    HARVEST = "harvest"
    """Now, for storage that refuses what is late (Loki)."""


class Otlp(NamedTuple):
    """``[otlp]``: OTLP/HTTP, to an OpenTelemetry collector, or what takes its protocol."""

    enabled: bool = True
    endpoint: str = ""
    """The base URL, as ``https://collector:4318``; empty: OTEL_EXPORTER_OTLP_ENDPOINT, else http://localhost:4318."""
    encoding: Encoding = Encoding.AUTO
    compression: Compression | None = None
    """Unset: OTEL_EXPORTER_OTLP_COMPRESSION, else gzip."""
    timestamp: Timestamp = Timestamp.CRASH
    metrics: bool = True
    attributes: tuple[str, ...] = ()
    """Of the resource, as ``deployment.environment.name=production``; more than OTEL_RESOURCE_ATTRIBUTES."""
    headers_file: str = ""
    """A path, or a credential: headers, one a line."""
    token_file: str = ""
    """Likewise: what stands behind ``Authorization: Bearer``."""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    text: Text | None = None
    max_text_bytes: int | None = None


class Webhook(NamedTuple):
    """``[webhook]``: a CloudEvent is posted."""

    enabled: bool = True
    url: str = ""
    compression: Compression = Compression.NONE
    headers_file: str = ""
    token_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    text: Text | None = None
    max_text_bytes: int | None = None


class Mqtt(NamedTuple):
    """``[mqtt]``: a CloudEvent is published to an MQTT 5 server, with QoS 1."""

    enabled: bool = True
    server: str = ""
    """``mqtt://host`` (port 1883), or with TLS ``mqtts://host`` (8883)."""
    topic: str = "pstored/{machine_id}/crash"
    """A pattern (pstored.sinks.words)."""
    status_topic: str = ""
    """A pattern; if set, birth and will: while it delivers ``online`` is retained there, else ``offline``."""
    client_id: str = "pstored-{machine_id}"
    """A pattern."""
    username: str = ""
    password_file: str = ""
    """A path, or a credential."""
    expiry_s: int = 0
    """So long the server keeps an event for a subscriber that is away; 0: as long as it likes."""
    require_subscriber: bool = True
    """What nobody has subscribed to, and the server says so, is not delivered, but tried again."""
    max_packet_bytes: int = 128 * 1024
    """What is larger goes with less text; 0: whatever the server takes."""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    text: Text | None = None
    max_text_bytes: int | None = None


class Grouping(StrEnum):
    """What makes crashes one issue."""

    STRICT = "strict"
    """The signature of the bug with how it was reached."""
    LOOSE = "loose"
    """That of the kind and the function alone."""


class Sentry(NamedTuple):
    """``[sentry]``: an event is posted to Sentry, or what takes its envelopes."""

    enabled: bool = True
    dsn_file: str = ""
    """A path, or a credential: the project's DSN, ``https://KEY@HOST/PROJECT``."""
    environment: str = ""
    """Of the machine, as ``production``."""
    tags: tuple[str, ...] = ()
    """Further ones, as ``fleet=blue``."""
    group_by: Grouping = Grouping.STRICT
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    text: Text | None = None
    max_text_bytes: int | None = None


class File(NamedTuple):
    """``[file]``: one JSON object a line, appended to a file; or a file for each."""

    enabled: bool = True
    path: str = "/var/log/pstored/crashes.jsonl"
    """A directory that is there already: a file for each crash in it."""
    text: Text | None = None
    max_text_bytes: int | None = None


class Exec(NamedTuple):
    """``[exec]``: a program that gets each crash on standard input."""

    enabled: bool = True
    command: tuple[str, ...] = ()
    """The program, by its absolute path, and its arguments."""
    text: Text | None = None
    max_text_bytes: int | None = None


class Prometheus(NamedTuple):
    """``[prometheus]``: a file of metrics, which node_exporter reads; no crash goes there."""

    enabled: bool = True
    directory: str = "/run/pstored-metrics"
    """Where ``pstored.prom`` is written."""


TABLES: dict[str, type[Any]] = {
    "delivery": Delivery,
    "otlp": Otlp,
    "webhook": Webhook,
    "mqtt": Mqtt,
    "sentry": Sentry,
    "file": File,
    "exec": Exec,
    "prometheus": Prometheus,
}
"""Name of a table to its type."""
REQUIRED = {"webhook": "url", "mqtt": "server", "sentry": "dsn_file", "exec": "command"}
"""What a table must have."""
MEASURING = frozenset(("otlp",))
"""Sinks that take metrics, too, if ``metrics`` in their table says so."""
METERS = frozenset(("prometheus",))
"""Sinks that take metrics, and nothing else."""


def delivery(outgoing: Mapping[str, Any]) -> Delivery:
    """``[delivery]`` of what a configuration has."""
    found: Delivery = outgoing.get("delivery") or Delivery()
    return found


def enabled(outgoing: Mapping[str, Any]) -> list[str]:
    """The outgoing sinks that are to get each crash."""
    return [name for name in _enabled(outgoing) if name not in METERS]


def meters(outgoing: Mapping[str, Any]) -> list[str]:
    """The sinks that are to get metrics, and nothing else."""
    return [name for name in _enabled(outgoing) if name in METERS]


def _enabled(outgoing: Mapping[str, Any]) -> list[str]:
    if not delivery(outgoing).enabled:
        return []
    return [name for name in TABLES if name != "delivery" and name in outgoing and outgoing[name].enabled]


def lacking(outgoing: Mapping[str, Any]) -> list[str]:
    """What is sure to keep a sink from delivering, in words: a key that must be set, a library that is not there."""
    names = enabled(outgoing)
    found = [
        f"{REQUIRED[name]!r} in [{name}] must be set"
        for name in names
        if name in REQUIRED and not getattr(outgoing[name], REQUIRED[name])
    ]
    if "mqtt" in names and find_spec("paho") is None:
        found.append("[mqtt] needs paho-mqtt, which is not installed: pip install 'pstored[mqtt]'")
    return found
