# SPDX-License-Identifier: Apache-2.0
"""One HTTP request: sent, answered in time, and judged.  What a sink that posts has in common with the others.

``http.client`` and nothing else: a request is rare, and a client library costs 100 ms and 18 MB to import.  Redirects
are not followed: a POST that ends elsewhere would take the headers' secrets with it.
"""

import contextlib
import http.client
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from pstored import __version__
from pstored.errors import SinkError
from pstored.sinks.link import Tls, make_context, reaching

MAX_ANSWER = 4 * 1024 * 1024
"""Of an answer no more is read (OTLP 1.11, "Limits")."""
SAID = 300
"""Characters of an answer that are kept as the reason."""
ABOUT_THIS = frozenset((400, 413, 415, 422))
"""Refusals of what was sent; any other is of who sends, or of where to, and the next would be refused as well."""


class Answer(NamedTuple):
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def said(self) -> str:
        """Its words, for a person."""
        text = " ".join(self.body[: 4 * SAID].decode(errors="replace").split())[:SAID]
        return f"{self.status} {http.client.responses.get(self.status, '')}".rstrip() + (f": {text}" if text else "")

    def header(self, name: str) -> str:
        """The value of a header, whatever the case of its name; empty if it is not there."""
        return next((v for k, v in self.headers.items() if k.lower() == name.lower()), "").strip()

    def retry_after_s(self, now: datetime) -> float | None:
        """How long the server wants to be left alone, if it says so: seconds, or a date (RFC 9110, 10.2.3)."""
        value = self.header("Retry-After")
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            when = parsedate_to_datetime(value)
        except (ValueError, TypeError, OverflowError):
            return None
        return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds())


class Server:
    """Where requests go."""

    def __init__(self, url: str, *, tls: Tls, timeout_s: float, environ: Mapping[str, str]) -> None:
        """Raises SinkError: the URL or the certificates cannot be used."""
        self.url = url
        self._timeout_s = timeout_s
        self._parts = split_url(url)
        self._context = make_context(tls, environ) if self._parts.scheme == "https" else None

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send *body* to the URL, and wait for the whole answer.

        Raises:
            SinkError: there was none, or not in time, or it was none of HTTP; to be tried again.
        """
        target = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
        every = {"User-Agent": f"pstored/{__version__}", "Connection": "close"}
        with reaching(self._where(), self._timeout_s), contextlib.closing(self._connect()) as connection:
            try:
                connection.request("POST", target, body, {**every, **headers})
                return _read(connection)
            except http.client.HTTPException as e:
                raise SinkError(f"{self._where()} cannot be reached: {_reason(e)}") from e

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._context is not None:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)

    def _where(self) -> str:
        return f"{self._parts.scheme}://{self._parts.netloc}"


def _read(connection: http.client.HTTPConnection) -> Answer:
    with contextlib.closing(connection.getresponse()) as response:
        data = response.read(MAX_ANSWER)
        if response.length and len(data) < MAX_ANSWER:  # read() with a limit does not tell
            raise http.client.IncompleteRead(data)
        return Answer(response.status, dict(response.getheaders()), data)


def split_url(url: str) -> SplitResult:
    """The parts of an http or https URL; raises SinkError if it is none, or has a password in it."""
    try:
        parts = urlsplit(url)
        port_is_number = parts.port is None or parts.port > 0
    except ValueError as e:
        raise SinkError(f"{url!r} is no URL: {e}") from e
    is_word = url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_number or not is_word:
        raise SinkError(f"{url!r} is no http:// or https:// URL", hint="see pstored check-config")
    if parts.password is not None:
        raise SinkError("a URL in the configuration has a password: not used", hint="put it into headers_file=")
    return parts


def judge(answer: Answer, *, again: frozenset[int], where: str, now: datetime | None = None) -> None:
    """Nothing if the server took it.

    Args:
        answer: the server's.
        again: statuses that may be others later.
        where: the URL, for the message.
        now: the time, for a date in Retry-After.

    Raises:
        SinkError: it did not.
    """
    if 200 <= answer.status < 300:
        return
    said = f"{where} says {answer.said()}"
    if answer.status in again:
        raise SinkError(said, after_s=answer.retry_after_s(datetime.now(UTC) if now is None else now))
    raise SinkError(said, retry=False, pause=answer.status not in ABOUT_THIS)


def _reason(error: http.client.HTTPException) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "its answer breaks off"
    return f"its answer is not HTTP ({type(error).__name__})"
