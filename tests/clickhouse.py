# SPDX-License-Identifier: Apache-2.0
"""The real ClickHouse engine (chdb) within a test, and its HTTP interface for who writes to it on the loopback."""

import contextlib
import functools
import json
import re
import tempfile
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from chdb import ChdbError
from chdb.session import Session

from tests.conftest import REPOSITORY

FLEET = REPOSITORY / "units/fleet"


@functools.cache
def engine() -> tuple[Any, threading.Lock]:
    """The one engine that a process can have; it takes one query at a time."""
    return Session(), threading.Lock()  # type: ignore[no-untyped-call]


class ClickHouse:
    """A database of its own."""

    def __init__(self) -> None:
        self._session, self._lock = engine()
        self.name = f"test_{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {self.name}")

    def drop(self) -> None:
        """Remove it, and all that is in it."""
        self.run(f"DROP DATABASE {self.name}")

    def run(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        """The rows that statements give, those of the last; parameters as ``{name:Type}`` stands for them."""
        rows: list[dict[str, Any]] = []
        for statement in re.split(r";\s*\n", sql):
            if not re.sub(r"--[^\n]*", "", statement).strip(" \n;"):
                continue
            used = {name: value for name, value in parameters.items() if f"{{{name}:" in statement}
            with self._lock:
                self._session.query(f"USE {self.name if 'CREATE DATABASE' not in statement else 'default'}")
                answer = str(self._session.query(statement, "JSONEachRow", **({"params": used} if used else {})))
            rows = [json.loads(line) for line in answer.splitlines()]
        return rows

    def run_file(self, name: str, **parameters: object) -> list[dict[str, Any]]:
        """The same of a file of units/fleet."""
        return self.run((FLEET / name).read_text(), **parameters)

    def insert(self, statement: str, data: bytes) -> None:
        """``INSERT INTO ... FORMAT RowBinary``, with its data behind it."""
        before, _, kind = statement.rpartition(" FORMAT ")
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            self.run(f"{before} FROM INFILE '{file.name}' FORMAT {kind}")

    @contextlib.contextmanager
    def listen(self) -> Iterator[str]:
        """Take INSERTs over HTTP, as a server does; gives the URL."""
        database = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                query = parse_qs(urlsplit(self.path).query).get("query", [""])[0]
                data = self._body()
                try:
                    database.insert(query, data)
                    status, said = 200, b""
                except ChdbError as e:
                    status, said = 500, str(e).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers["Content-Length"]))
                pieces = []
                while size := int(self.rfile.readline(), 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's name
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()
