# SPDX-License-Identifier: Apache-2.0
"""A webhook: each parcel as a CloudEvent 1.0, structured JSON, in one POST."""

import gzip
import json
from typing import Any

from pstored.delivery import cloudevent
from pstored.delivery.payload import Parcel
from pstored.errors import SinkError
from pstored.sinks.base import OutgoingSink, Setting
from pstored.sinks.http import Server, judge
from pstored.sinks.link import Tls
from pstored.sinks.otlp import secret_headers
from pstored.sinks.settings import Compression, Webhook

AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))


class WebhookSink(OutgoingSink):
    """Delivers to a URL."""

    def __init__(self, table: Webhook, setting: Setting) -> None:
        """Raises SinkError: something in the table cannot be used."""
        if not table.url:
            raise SinkError("url in [webhook] must be set", hint="see pstored check-config")
        tls = Tls(table.ca_file, table.cert_file, table.key_file)
        self._server = Server(table.url, tls=tls, timeout_s=setting.timeout_s, environ=setting.environ)
        self._headers = {"Content-Type": cloudevent.CONTENT_TYPE} | secret_headers(
            table.headers_file, table.token_file, setting.environ
        )
        self._gzip = table.compression is Compression.GZIP

    def deliver(self, parcel: Parcel) -> dict[str, Any]:
        """Post one event; raises SinkError."""
        data = json.dumps(cloudevent.event(parcel)).encode()
        headers = self._headers
        if self._gzip:
            data, headers = gzip.compress(data, 6, mtime=0), headers | {"Content-Encoding": "gzip"}
        answer = self._server.post(data, headers)
        judge(answer, again=AGAIN, where=self._server.url)
        return {"status": answer.status}
