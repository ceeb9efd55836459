# SPDX-License-Identifier: Apache-2.0
r"""OTLP: a parcel as a log record, and metrics, as OTLP/HTTP's JSON has them (OTLP 1.11, "JSON Protobuf Encoding").

There is no convention for a kernel's crash; this follows that for ``app.crash`` (semantic conventions 1.44): the
resource is who reports, and what crashed, which after an update may be another system, is on the record.  Names that
are not OpenTelemetry's begin with ``pstore.`` or ``linux.``.  Keys are lowerCamelCase, 64-bit integers strings, enums
numbers; ``google.protobuf.json_format`` makes the binary form of the same.

Pure: any program that wants such records, of crashes that never were, say, can have them.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pstored.delivery.metrics import Family
from pstored.delivery.payload import Parcel, Reporter, stack_trace

SCOPE = "pstored.crash"
EVENT = "linux.kernel.crash"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

Value = str | bool | int | float | Sequence[str]
"""What an attribute can be."""

SEVERITIES = {"panic": (21, "FATAL"), "oops": (17, "ERROR"), "warning": (17, "ERROR"), "reset": (17, "ERROR")}
"""severityNumber and severityText."""
_PANIC = "Kernel panic - not syncing"


def resource_attributes(reporter: Reporter, given: Mapping[str, str]) -> dict[str, Value]:
    """Who reports; *given*, of the configuration and OTEL_RESOURCE_ATTRIBUTES, counts more."""
    found: dict[str, Value | None] = {
        "service.name": "pstored",
        "service.version": reporter.version,
        "service.instance.id": reporter.machine_id,
        "host.id": reporter.machine_id,
        "host.name": reporter.hostname,
        "host.arch": ARCHITECTURES.get(reporter.architecture, reporter.architecture),
        "os.type": "linux",
        "os.name": reporter.os_id,
        "os.description": reporter.os_name,
        "os.version": reporter.os_version,
        "os.build_id": reporter.os_build,
        "device.manufacturer": reporter.vendor,
        "device.model.identifier": reporter.model,
    }
    return {name: value for name, value in found.items() if value is not None} | dict(given)


ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv6l": "arm32",
    "armv7l": "arm32",
    "armv8l": "arm32",
    "i686": "x86",
    "i586": "x86",
    "ppc": "ppc32",
    "ppc64": "ppc64",
    "ppc64le": "ppc64",
}
"""``uname -m`` to the word of ``host.arch``; what is not here has no other."""


def record_attributes(parcel: Parcel) -> dict[str, Value]:
    """What crashed; what is not known is not there."""
    crash = parcel.crash
    event = crash.get("event") or {}
    boot, time, kernel = crash["boot"], crash["time"], crash["kernel"]
    records = crash["records"]
    ecc = [record["ecc"] for record in records if record.get("ecc")]
    found: dict[str, Value | None] = {
        "log.record.uid": parcel.uid,
        "exception.type": crash["kind"],
        "exception.message": crash["title"],
        "exception.stacktrace": stack_trace(event.get("call_trace") or ()) or None,
        "os.version": parcel.system.os_version,
        "os.build_id": parcel.system.os_build,
        "linux.kernel.release": kernel.get("release"),
        "pstore.backend": crash.get("backend"),
        "pstore.type": sorted({record["type"] for record in records}),
        "pstore.truncated": parcel.left_out > 0,
        "pstore.ecc.corrected_bytes": sum(e["corrected_bytes"] for e in ecc) if ecc else None,
        "pstore.ecc.unrecoverable_blocks": sum(e["unrecoverable_blocks"] for e in ecc) if ecc else None,
        "pstore.boot.id": boot["id"],
        "pstore.boot.method": boot["method"],
        "pstore.boot.confidence": boot["confidence"],
        "pstore.crash.id": crash["id"],
        "pstore.crash.revision": crash["revision"],
        "pstore.crash.kind": crash["kind"],
        "pstore.crash.severity": crash["severity"],
        "pstore.crash.title": crash["title"],
        "pstore.crash.function": crash.get("function"),
        "pstore.crash.signature": event.get("signature"),
        "pstore.crash.signature_loose": event.get("signature_loose"),
        "pstore.crash.comm": crash.get("comm"),
        "pstore.crash.taint": "".join(t["letter"] for t in event.get("taint") or ()) or None,
        "pstore.crash.hardware": event.get("hardware"),
        "pstore.crash.uptime_s": time.get("uptime_s"),
        "pstore.crash.time": time.get("wall"),
        "pstore.crash.time_doubtful": bool(time.get("doubtful")),
        "pstore.crash.collected": parcel.last,
        "pstore.crash.complete": bool(crash.get("complete")),
        "pstore.crash.count": parcel.stands_for,
        "pstore.crash.first": parcel.first if parcel.stands_for > 1 else None,
        "pstore.crash.redacted": sum(parcel.redacted.values()),
        "pstore.crash.log": parcel.text,
    }
    return {name: value for name, value in found.items() if value is not None}


def body(parcel: Parcel) -> str:
    """What happened, in one line: the kernel's own last words, if there are any, else the title."""
    if parcel.crash["severity"] == "panic" and parcel.text is not None:
        _, panic, rest = parcel.text.partition(_PANIC)
        if panic:
            return panic + rest.partition("\n")[0].rstrip()
    return str(parcel.crash["title"])


def log_record(parcel: Parcel, *, harvest_ns: int | None = None) -> dict[str, Any]:
    """A parcel as a record of a log.

    Its time is the crash's, by the clock of the boot that crashed; where that is not known, or was wrong, that of
    its collection, since storage that is sorted by time refuses a crash of 1970, or keeps it from being found.

    Args:
        parcel: what is sent.
        harvest_ns: the time to give it instead, for storage that refuses what is late (Loki).
    """
    time = parcel.crash["time"]
    collected_ns = unix_ns(parcel.last) or 0
    crashed_ns = None if time.get("doubtful") else unix_ns(time.get("wall"))
    number, text = SEVERITIES.get(parcel.crash["severity"], (17, "ERROR"))
    return {
        "timeUnixNano": str(harvest_ns or crashed_ns or collected_ns),
        "observedTimeUnixNano": str(collected_ns),
        "severityNumber": number,
        "severityText": text,
        "eventName": EVENT,
        "body": {"stringValue": body(parcel)},
        "attributes": key_values(record_attributes(parcel)),
    }


def logs_request(
    resource: Mapping[str, Value], records: Sequence[Mapping[str, Any]], *, version: str
) -> dict[str, Any]:
    """An ExportLogsServiceRequest."""
    scope = {"scope": {"name": SCOPE, "version": version}, "schemaUrl": SCHEMA_URL, "logRecords": list(records)}
    return {"resourceLogs": [{"resource": {"attributes": key_values(resource)}, "scopeLogs": [scope]}]}


def metrics_request(
    resource: Mapping[str, Value], families: Iterable[Family], *, version: str, now_ns: int
) -> dict[str, Any]:
    """An ExportMetricsServiceRequest; counters are cumulative, from the time their family says."""
    metrics = [_metric(family, now_ns) for family in families]
    scope = {"scope": {"name": SCOPE, "version": version}, "schemaUrl": SCHEMA_URL, "metrics": metrics}
    return {"resourceMetrics": [{"resource": {"attributes": key_values(resource)}, "scopeMetrics": [scope]}]}


_CUMULATIVE = 2
"""AGGREGATION_TEMPORALITY_CUMULATIVE."""


def _metric(family: Family, now_ns: int) -> dict[str, Any]:
    points = [
        {
            "attributes": key_values(labels),
            **({"startTimeUnixNano": str(family.start_ns)} if family.is_counter else {}),
            "timeUnixNano": str(now_ns),
            "asDouble": float(value),  # rotel 0.0.1a15 drops an asInt of JSON, which must be a string
        }
        for labels, value in family.samples
    ]
    kind: dict[str, Any] = {"gauge": {"dataPoints": points}}
    if family.is_counter:
        kind = {"sum": {"dataPoints": points, "aggregationTemporality": _CUMULATIVE, "isMonotonic": True}}
    return {"name": family.dotted, "description": family.help, "unit": family.unit, **kind}


def key_values(attributes: Mapping[str, Value]) -> list[dict[str, Any]]:
    """Attributes as a list of KeyValue."""
    return [{"key": key, "value": any_value(value)} for key, value in attributes.items()]


def any_value(value: Value) -> dict[str, Any]:
    """A value as an AnyValue."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    return {"arrayValue": {"values": [any_value(item) for item in value]}}


def unix_ns(text: str | None) -> int | None:
    """A time in ISO 8601 as Unix nanoseconds; None if it is none, or before 1970."""
    try:
        when = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    delta = (when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    found = (delta.days * 86400 + delta.seconds) * 10**9 + delta.microseconds * 1000
    return found if found >= 0 else None
