# SPDX-License-Identifier: Apache-2.0
"""The tables of ``pstored.conf`` for what goes out: ``[delivery]``, and one a sink, which turns it on by being there.

Imported by :mod:`pstored.config` where a file has one of them, and only then.  What is unset is None: then
``[delivery]``, or the sink's own default, counts.  No key holds a secret: those that name a file with one take a path,
or the name of a systemd credential (:mod:`pstored.delivery.credentials`).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


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


TABLES: dict[str, type[Any]] = {
    "delivery": Delivery,
    "otlp": Otlp,
    "webhook": Webhook,
    "file": File,
    "exec": Exec,
}
"""Name of a table to its type."""
MEASURING = frozenset(("otlp",))
"""Sinks that take metrics, too, if ``metrics`` in their table says so."""


def delivery(outgoing: Mapping[str, Any]) -> Delivery:
    """``[delivery]`` of what a configuration has."""
    found: Delivery = outgoing.get("delivery") or Delivery()
    return found


def enabled(outgoing: Mapping[str, Any]) -> list[str]:
    """The outgoing sinks that are to get each crash."""
    if not delivery(outgoing).enabled:
        return []
    return [name for name in TABLES if name != "delivery" and name in outgoing and outgoing[name].enabled]
