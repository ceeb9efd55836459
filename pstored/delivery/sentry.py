# SPDX-License-Identifier: Apache-2.0
"""A parcel as an event of Sentry's, in an envelope; and what its servers say of how often they want to be asked.

Pure.  Of the protocol (develop.sentry.dev, "Envelopes", "Event Payloads", "Rate Limiting") what matters here: the id,
which is the same for the same, so that what arrives twice is one event; the fingerprint, by which the same bug is one
issue whatever board has it; the user, who is the machine, so that an issue counts machines.
"""

import json
import math
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from pstored.delivery.payload import Parcel
from pstored.errors import SinkError
from pstored.oops.helpers import ALWAYS, is_helper

CONTENT_TYPE = "application/x-sentry-envelope"
LOGGER = "pstored.crash"
NAMESPACE = uuid.UUID("7d0e8c5e-4d0f-4f7a-9c36-8d0e0f0d6a11")
"""Of the events' ids (RFC 9562, 5.5)."""
MAX_FRAMES = 250
"""Relay keeps no more."""
MAX_LINES = 100
"""Of the log as breadcrumbs; Relay keeps no more."""
MAX_LINE = 1000
MAX_VALUE = 8192
"""Characters of a message (Relay's limit for an exception's value)."""
MAX_TAG = 200
MAX_SYMBOL = 256
MAX_RELEASE, MAX_ENVIRONMENT = 250, 64
LEVELS = {"panic": "fatal"}
"""Severity to level; the others are errors."""


class Dsn(NamedTuple):
    """Where a project's events go, and by what key."""

    url: str
    """Of the envelopes."""
    key: str


def parse_dsn(text: str) -> Dsn:
    """``https://KEY@HOST[/PATH]/PROJECT``; raises SinkError if it is none, without telling the key."""
    try:
        parts = urlsplit(text.strip())
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        netloc = host if parts.port is None else f"{host}:{parts.port}"
    except ValueError:
        parts, host, netloc = urlsplit(""), "", ""
    path, _, project = parts.path.rstrip("/").rpartition("/")
    key = parts.username or ""
    is_word = text.strip().isprintable() and " " not in text.strip()
    if parts.scheme not in ("http", "https") or not host or not project.isalnum() or not key.isalnum() or not is_word:
        raise SinkError("what dsn_file in [sentry] names is no DSN", hint="as https://KEY@sentry.example.org/PROJECT")
    return Dsn(urlunsplit((parts.scheme, netloc, f"{path}/api/{project}/envelope/", "", "")), key)


def event_id(parcel: Parcel) -> str:
    """The event's id: 32 hexadecimal digits, the same whenever the same is sent."""
    return uuid.uuid5(NAMESPACE, parcel.uid).hex


def envelope(parcel: Parcel, found: Mapping[str, Any], *, now: datetime, attach: bool) -> bytes:
    """An event, and with *attach* the kernel's log as a file beside it.

    Args:
        parcel: what is sent.
        found: the event.
        now: by the clock that the event's times are of; Sentry corrects them where it is far off.
        attach: whether the log goes, too, if there is any.
    """
    items = [({"type": "event", "content_type": "application/json"}, _json(found))]
    if attach and parcel.text is not None:
        header = {"type": "attachment", "filename": "dmesg.txt", "content_type": "text/plain"}
        items.append((header, parcel.text.encode()))
    lines = [_json({"event_id": found["event_id"], "sent_at": now.astimezone(UTC).isoformat()})]
    for header, data in items:
        lines += [_json(header | {"length": len(data)}), data]
    return b"\n".join(lines) + b"\n"


def event(parcel: Parcel, *, environment: str, tags: Mapping[str, str], loose: bool) -> dict[str, Any]:
    """The event; what is not known is not there.

    Args:
        parcel: what is sent.
        environment: of the machine, as "production"; empty: none is told.
        tags: of the configuration.
        loose: whether the loose signature is the fingerprint, not the strict one.
    """
    crash, reporter = parcel.crash, parcel.reporter
    time = crash["time"]
    when = parcel.last if time.get("doubtful") or time.get("wall") is None else time["wall"]
    found = {
        "event_id": event_id(parcel),
        "timestamp": when,
        "platform": "native",
        "level": LEVELS.get(crash["severity"], "error"),
        "logger": LOGGER,
        "server_name": reporter.hostname or reporter.machine_id,
        "release": release(parcel),
        "environment": _word(environment, MAX_ENVIRONMENT) or None,
        "fingerprint": fingerprint(crash, loose=loose),
        "exception": {"values": [_exception(crash)]},
        "transaction": crash.get("function"),
        "user": {"id": reporter.machine_id} if reporter.machine_id else None,
        "tags": {name: value[:MAX_TAG] for name, value in (_tags(parcel) | dict(tags)).items()},
        "contexts": _contexts(parcel),
        "breadcrumbs": {"values": list(_breadcrumbs(parcel))},
    }
    return {name: value for name, value in found.items() if value is not None}


def fingerprint(crash: Mapping[str, Any], *, loose: bool) -> list[str]:
    """What makes events one issue: the signature; of what has none, a reset say, the kind."""
    known = crash.get("event") or {}
    signature = known.get("signature_loose" if loose else "signature")
    return ["pstored", signature or crash["kind"]]


def release(parcel: Parcel) -> str | None:
    """The system that crashed, as ``acme@1.2+b77``; None if it is not known, since the reporter may run another."""
    version, build = parcel.system
    if version is None and build is None:
        return None
    name = f"{parcel.reporter.os_id or 'linux'}@{version or build}"
    name += f"+{build}" if version and build and build != version else ""
    return _word(name, MAX_RELEASE)


def _exception(crash: Mapping[str, Any]) -> dict[str, Any]:
    known = crash.get("event") or {}
    frames = [_frame(frame, crash.get("function")) for frame in (known.get("call_trace") or ())[:MAX_FRAMES]]
    found: dict[str, Any] = {
        "type": crash["kind"],
        "value": str(crash["title"])[:MAX_VALUE],
        "mechanism": {"type": "pstore", "handled": False},
    }
    return found | ({"stacktrace": {"frames": frames[::-1]}} if frames else {})  # the innermost is last


def _frame(frame: Mapping[str, Any], blamed: str | None) -> dict[str, Any]:
    """A frame; of the bug (``in_app``) are those that the kernel is sure of, and that are not there for others."""
    function = (frame.get("function") or "?")[:MAX_SYMBOL]
    where = None if frame.get("offset") is None else f"{frame['offset']:#x}"
    if where is not None and frame.get("size") is not None:
        where += f"/{frame['size']:#x}"
    counts = bool(frame.get("reliable")) and (function == blamed or not is_helper(function, ALWAYS))
    found = {"function": function, "module": frame.get("module") or "vmlinux", "in_app": counts}
    return found | ({"vars": {"offset": where}} if where else {})


def _tags(parcel: Parcel) -> dict[str, str]:
    crash = parcel.crash
    known = crash.get("event") or {}
    found = {
        "kind": crash["kind"],
        "severity": crash["severity"],
        "function": crash.get("function"),
        "signature": known.get("signature"),
        "signature_loose": known.get("signature_loose"),
        "kernel": crash["kernel"].get("release"),
        "taint": "".join(t["letter"] for t in known.get("taint") or ()),
        "backend": crash.get("backend"),
        "architecture": parcel.reporter.architecture,
        "model": parcel.reporter.model,
        "boot_confidence": crash["boot"]["confidence"],
        "crash_id": crash["id"],
        "revision": str(crash["revision"]),
        "count": str(parcel.stands_for),
    }
    return {name: " ".join(value.split()) for name, value in found.items() if value}


def _contexts(parcel: Parcel) -> dict[str, Any]:
    crash, reporter = parcel.crash, parcel.reporter
    contexts: dict[str, dict[str, Any]] = {
        "os": {
            "name": reporter.os_id,
            "version": parcel.system.os_version,
            "build": parcel.system.os_build,
            "kernel_version": crash["kernel"].get("release"),
        },
        "device": {
            "arch": reporter.architecture,
            "name": reporter.hostname,
            "manufacturer": reporter.vendor,
            "model": reporter.model,
        },
        "crash": {
            "uid": parcel.uid,
            "boot_id": crash["boot"]["id"],
            "boot_method": crash["boot"]["method"],
            "comm": crash.get("comm"),
            "hardware": (crash.get("event") or {}).get("hardware"),
            "uptime_s": crash["time"].get("uptime_s"),
            "time": crash["time"].get("wall"),
            "time_doubtful": bool(crash["time"].get("doubtful")),
            "complete": bool(crash.get("complete")),
            "count": parcel.stands_for,
            "first": parcel.first,
            "last": parcel.last,
            "redacted": sum(parcel.redacted.values()),
            "text_left_out": parcel.left_out,
        },
    }
    for values in contexts.values():
        for name in [name for name, value in values.items() if value is None]:
            del values[name]
    return contexts


def _breadcrumbs(parcel: Parcel) -> Iterator[dict[str, str]]:
    """The last lines of the kernel's log."""
    for line in (parcel.text or "").splitlines()[-MAX_LINES:]:
        yield {"type": "default", "category": "kernel", "level": "info", "message": line[:MAX_LINE]}


def _word(text: str, most: int) -> str:
    """What may be a release or an environment: without blanks and slashes."""
    return "".join("-" if char.isspace() or char in "/\\" or not char.isprintable() else char for char in text)[:most]


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


# -- rate limits

CATEGORIES = frozenset(("", "error", "default"))
"""Of events with an exception; an empty list of categories is all of them."""
MAX_WAIT_S = 1e9


def wait_s(limits: str) -> float | None:
    """How long no event is to be sent: ``X-Sentry-Rate-Limits`` has ``60:error;security:organization:why, ...``."""
    longest = None
    for limit in limits[:4096].split(","):
        seconds, _, rest = limit.strip().partition(":")
        categories = {category.strip() for category in rest.partition(":")[0].split(";")}
        if categories & CATEGORIES:
            try:
                found = float(seconds)
            except ValueError:
                continue
            if not math.isnan(found):
                longest = max(longest or 0.0, min(found, MAX_WAIT_S))
    return longest
