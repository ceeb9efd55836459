# SPDX-License-Identifier: Apache-2.0
"""OTLP/HTTP: each parcel a log record, in a request of its own; and metrics.

Rules of OTLP 1.11, "OTLP/HTTP Response": 429, 502, 503 and 504, and a connection that breaks, are tried again, not
sooner than Retry-After says; no other answer is, nor a partial success.  The environment variables of the protocol's
exporters count where the configuration is silent.
"""

import gzip
import json
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote

from pstored.delivery import otlp
from pstored.delivery.credentials import read_headers, read_secret
from pstored.delivery.metrics import Family
from pstored.delivery.payload import Parcel
from pstored.errors import SinkError
from pstored.sinks.base import OutgoingSink, Setting
from pstored.sinks.http import Answer, Server, judge
from pstored.sinks.link import Tls
from pstored.sinks.settings import Compression, Encoding, Otlp, Timestamp
from pstored.sinks.words import pairs

DEFAULT = "http://localhost:4318"
AGAIN = frozenset((429, 502, 503, 504))
_JSON, _PROTOBUF = "application/json", "application/x-protobuf"


class OtlpSink(OutgoingSink):
    """Delivers to an OTLP receiver."""

    def __init__(self, table: Otlp, setting: Setting) -> None:
        """Raises SinkError: something in the table or the environment cannot be used."""
        environ = setting.environ
        self._reporter = setting.reporter
        self._timestamp = table.timestamp
        named = {"service.name": name} if (name := environ.get("OTEL_SERVICE_NAME")) else {}
        inherited = parse_pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", "")) | named
        given = inherited | pairs(table.attributes, key="attributes in [otlp]")
        self._resource = otlp.resource_attributes(setting.reporter, given)
        tls = Tls(
            table.ca_file or environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE", ""),
            table.cert_file or environ.get("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", ""),
            table.key_file or environ.get("OTEL_EXPORTER_OTLP_CLIENT_KEY", ""),
        )
        self._is_binary = wants_protobuf(table.encoding, environ)
        self._gzip = wants_gzip(table.compression, environ)
        self._headers = parse_pairs(environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")) | secret_headers(
            table.headers_file, table.token_file, environ
        )
        self._servers = {
            signal: Server(url, tls=tls, timeout_s=timeout_s(environ, setting.timeout_s), environ=environ)
            for signal, url in ((signal, find_url(signal, table.endpoint, environ)) for signal in ("logs", "metrics"))
        }

    def deliver(self, parcel: Parcel) -> dict[str, Any]:
        """Post one log record; raises SinkError."""
        harvest_ns = time.time_ns() if self._timestamp is Timestamp.HARVEST else None
        record = otlp.log_record(parcel, harvest_ns=harvest_ns)
        request = otlp.logs_request(self._resource, [record], version=self._reporter.version)
        return self._post("logs", request)

    def measure(self, families: Sequence[Family]) -> None:
        """Post metrics; raises SinkError."""
        request = otlp.metrics_request(self._resource, families, version=self._reporter.version, now_ns=time.time_ns())
        self._post("metrics", request)

    def _post(self, signal: str, request: dict[str, Any]) -> dict[str, Any]:
        data = to_protobuf(signal, request) if self._is_binary else json.dumps(request).encode()
        headers = {"Content-Type": _PROTOBUF if self._is_binary else _JSON} | self._headers
        if self._gzip:
            data = gzip.compress(data, 6, mtime=0)
            headers["Content-Encoding"] = "gzip"
        server = self._servers[signal]
        answer = server.post(data, headers)
        judge(answer, again=AGAIN, where=server.url)
        return read_success(signal, answer, server.url)


def find_url(signal: str, endpoint: str, environ: Mapping[str, str]) -> str:
    """Where to post a signal: ``v1/logs`` below the endpoint, or what the signal's own variable says, as it is."""
    own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "")
    if own and not endpoint:
        return own
    base = endpoint or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "") or DEFAULT
    return f"{base.rstrip('/')}/v1/{signal}"


def wants_protobuf(encoding: Encoding, environ: Mapping[str, str]) -> bool:
    """Whether to send protobuf; raises SinkError if what makes it is not installed, and nothing else will do."""
    if encoding is Encoding.AUTO and environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "http/json":
        return False
    there = find_spec("opentelemetry") is not None and find_spec("opentelemetry.proto") is not None
    if encoding is Encoding.PROTOBUF and not there:
        raise SinkError(
            'opentelemetry-proto is not installed, which encoding = "protobuf" needs',
            hint="pip install 'pstored[otlp]', or encoding = \"auto\"",
        )
    return there and encoding is not Encoding.JSON


def wants_gzip(compression: Compression | None, environ: Mapping[str, str]) -> bool:
    """Whether to compress."""
    if compression is None:
        return environ.get("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip") == "gzip"
    return compression is Compression.GZIP


def timeout_s(environ: Mapping[str, str], default_s: float) -> float:
    """How long a request may take: OTEL_EXPORTER_OTLP_TIMEOUT has milliseconds."""
    text = environ.get("OTEL_EXPORTER_OTLP_TIMEOUT", "")
    return int(text) / 1000 if text.isascii() and text.isdigit() and 0 < int(text) < 10**7 else default_s


def secret_headers(headers_file: str, token_file: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The headers that the configuration keeps elsewhere; raises SinkError."""
    found = read_headers(headers_file, environ) if headers_file else {}
    if token_file:
        token = read_secret(token_file, environ).strip()
        if not token or not token.isprintable():
            raise SinkError(f"token_file = {token_file!r}: there is no token in it")
        found["Authorization"] = f"Bearer {token}"
    return found


def parse_pairs(text: str) -> dict[str, str]:
    """``key=value,key=value`` with values in percent-encoding (W3C Baggage), as the environment variables have it."""
    found = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if equals and key.strip():
            found[key.strip()] = unquote(value.strip())
    return found


def to_protobuf(signal: str, request: dict[str, Any]) -> bytes:
    """The request in the binary form; the generated code is imported here, and nowhere else."""
    from google.protobuf.json_format import ParseDict

    message: Any
    if signal == "logs":
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

        message = ExportLogsServiceRequest()
    else:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        message = ExportMetricsServiceRequest()
    data: bytes = ParseDict(request, message, ignore_unknown_fields=True).SerializeToString()
    return data


REJECTED = {"logs": "rejectedLogRecords", "metrics": "rejectedDataPoints"}


def read_success(signal: str, answer: Answer, where: str) -> dict[str, Any]:
    """The receipt of an answer that says success.

    Raises:
        SinkError: it is a partial one, that is none for our one record: never tried again; or not OTLP's at all,
            the login page of a network, say: tried again.
    """
    kind = answer.header("Content-Type").partition(";")[0].strip()
    try:
        found = _parse_success(signal, kind.lower(), answer.body)
    except ValueError as e:
        raise SinkError(
            f"{where} says {answer.status}, but not as OTLP does ({kind or 'no content type'}): {e}",
            hint="does something else answer in its place, a proxy, or a login page?",
        ) from e
    partial = found.get("partialSuccess") or {}
    rejected = partial.get(REJECTED[signal], 0) if isinstance(partial, dict) else 0
    said = str(partial.get("errorMessage", "")) if isinstance(partial, dict) else ""
    if str(rejected) not in ("0", ""):
        raise SinkError(f"{where} took it, and rejects it: {said or 'without a reason'}", retry=False)
    return {"status": answer.status} | ({"warning": said} if said else {})


def _parse_success(signal: str, kind: str, data: bytes) -> dict[str, Any]:
    if not data.strip() or kind == _PROTOBUF:
        return _parse_protobuf(signal, data) if data and kind == _PROTOBUF else {}
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _parse_protobuf(signal: str, data: bytes) -> dict[str, Any]:
    try:
        from google.protobuf.json_format import MessageToDict
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
    except ImportError as e:
        raise ValueError("it is protobuf, and opentelemetry-proto is not installed") from e
    message: Any = ExportLogsServiceResponse() if signal == "logs" else ExportMetricsServiceResponse()
    try:
        message.ParseFromString(data)
    except DecodeError as e:
        raise ValueError("not a response") from e
    found: dict[str, Any] = MessageToDict(message)
    return found
