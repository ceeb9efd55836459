# SPDX-License-Identifier: Apache-2.0
"""What a configuration gives as words: a pattern, as ``fleet/{machine_id}/crash``, and ``key=value``.  Pure."""

import re
from collections.abc import Mapping, Sequence

from pstored.delivery.payload import Parcel, Reporter
from pstored.errors import SinkError

MAX_TOPIC = 65535
"""Bytes (MQTT 5, 1.5.4)."""
MAX_VALUE = 200
"""Characters of what stands for a field."""
UNKNOWN = "unknown"
_FIELD = re.compile(r"\{([^{}]*)\}")
_LEVELS = frozenset("/+#")
"""What parts or matches the levels of a topic: not in a value."""


def reporter_fields(reporter: Reporter) -> dict[str, str | None]:
    """What may stand in braces wherever a pattern is."""
    return {
        "machine_id": reporter.machine_id,
        "hostname": reporter.hostname,
        "architecture": reporter.architecture,
        "model": reporter.model,
        "os_id": reporter.os_id,
        "os_version": reporter.os_version,
        "os_build": reporter.os_build,
    }


def crash_fields(parcel: Parcel) -> dict[str, str | None]:
    """And where the pattern is for a crash."""
    event = parcel.crash.get("event") or {}
    return reporter_fields(parcel.reporter) | {
        "crash_id": parcel.crash["id"],
        "kind": parcel.crash["kind"],
        "severity": parcel.crash["severity"],
        "signature": event.get("signature"),
        "signature_loose": event.get("signature_loose"),
    }


def fill(pattern: str, fields: Mapping[str, str | None], *, key: str) -> str:
    """*pattern* with the values in it; what is not known is ``unknown``.

    Raises:
        SinkError: *key* of the configuration names a field that there is not.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in fields:
            raise SinkError(f"{key} has {found[0]}, which is none of " + ", ".join(f"{{{name}}}" for name in fields))
        text = (fields[found[1]] or UNKNOWN)[:MAX_VALUE]
        return "".join("_" if char in _LEVELS or not char.isprintable() or char == " " else char for char in text)

    return _FIELD.sub(value, pattern)


def require_topic(topic: str, *, key: str) -> str:
    """*topic*, if something can be published to it; raises SinkError."""
    if not topic or not topic.isprintable() or _LEVELS & set(topic) - {"/"} or len(topic.encode()) > MAX_TOPIC:
        raise SinkError(
            f"{key} = {topic!r} is no topic to publish to", hint="without + and #; see pstored check-config"
        )
    return topic


def pairs(words: Sequence[str], *, key: str) -> dict[str, str]:
    """``["key=value"]``; raises SinkError if one is none, which *key* of the configuration has."""
    found = {}
    for text in words:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise SinkError(f"{key} must be as 'key=value', not {text!r}", hint="see pstored check-config")
        found[name.strip()] = value.strip()
    return found
