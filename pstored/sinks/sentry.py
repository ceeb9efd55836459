# SPDX-License-Identifier: Apache-2.0
"""Sentry: each parcel an event in an envelope, to Sentry itself or what takes the same (Bugsink, GlitchTip).

What its clients have to heed (develop.sentry.dev, "Rate Limiting"): after a 429 nothing is sent until the limits' time,
or Retry-After's, or a minute is over, and a success may tell of limits, too.  Unlike them this one has a disk, and
tries again what failed.
"""

import gzip
import json
from datetime import UTC, datetime
from typing import Any

from pstored import __version__
from pstored.delivery import sentry
from pstored.delivery.credentials import read_secret
from pstored.delivery.payload import Parcel
from pstored.errors import SinkError
from pstored.sinks.base import OutgoingSink, Setting
from pstored.sinks.http import Answer, Server, judge
from pstored.sinks.link import Tls
from pstored.sinks.settings import Grouping, Sentry
from pstored.sinks.words import pairs

AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
TOO_MANY, TOO_LARGE = 429, 413
DEFAULT_WAIT_S = 60.0
"""After a 429 that does not say more."""


class SentrySink(OutgoingSink):
    """Delivers to a project of Sentry's."""

    def __init__(self, table: Sentry, setting: Setting) -> None:
        """Raises SinkError: something in the table cannot be used."""
        if not table.dsn_file:
            raise SinkError("dsn_file in [sentry] must be set", hint="see pstored check-config")
        dsn = sentry.parse_dsn(read_secret(table.dsn_file, setting.environ))
        tls = Tls(table.ca_file, table.cert_file, table.key_file)
        self._server = Server(dsn.url, tls=tls, timeout_s=setting.timeout_s, environ=setting.environ)
        self._key = dsn.key.encode()
        auth = f"Sentry sentry_version=7, sentry_client=pstored/{__version__}, sentry_key={dsn.key}"
        self._headers = {"Content-Type": sentry.CONTENT_TYPE, "Content-Encoding": "gzip", "X-Sentry-Auth": auth}
        self._environment = table.environment
        self._tags = pairs(table.tags, key="tags in [sentry]")
        self._loose = table.group_by is Grouping.LOOSE

    def deliver(self, parcel: Parcel) -> dict[str, Any]:
        """Post one event; raises SinkError."""
        event = sentry.event(parcel, environment=self._environment, tags=self._tags, loose=self._loose)
        answer = self._post(parcel, event, attach=True)
        is_cut = answer.status == TOO_LARGE and parcel.text is not None
        if is_cut:
            answer = self._post(parcel, event, attach=False)
        limit = sentry.wait_s(answer.header("X-Sentry-Rate-Limits"))
        if answer.status == TOO_MANY:
            after = limit if limit is not None else answer.retry_after_s(datetime.now(UTC))
            raise SinkError(
                f"{self._server.url} says {answer.said()}", after_s=DEFAULT_WAIT_S if after is None else after
            )
        judge(answer, again=AGAIN, where=self._server.url)
        _require_taken(answer, event["event_id"], self._server.url)
        receipt: dict[str, Any] = {"status": answer.status, "event": event["event_id"]}
        return receipt | ({"shortened": True} if is_cut else {}) | ({"pause_s": limit} if limit else {})

    def _post(self, parcel: Parcel, event: dict[str, Any], *, attach: bool) -> Answer:
        data = sentry.envelope(parcel, event, now=datetime.now(UTC), attach=attach)
        answer = self._server.post(gzip.compress(data, 6, mtime=0), self._headers)
        return answer._replace(body=answer.body.replace(self._key, b"KEY"))  # Bugsink says it back, and we would log it


def _require_taken(answer: Answer, event_id: str, where: str) -> None:
    """Raises SinkError if a success is none of Sentry's, but the login page of a network, say: tried again."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        found = None
    if not isinstance(found, dict) or str(found.get("id", "")).replace("-", "") != event_id:
        raise SinkError(
            f"{where} says {answer.status}, but not which event it has",
            hint="does something else answer in its place, a proxy, or a login page?",
        )
