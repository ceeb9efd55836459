# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server on the loopback interface, which takes what is posted, or behaves as badly as it is told."""

import contextlib
import gzip
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PATIENCE_S = 120
"""So long a server may take to start."""


class Posted(NamedTuple):
    """A request."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    """Unpacked."""


class Says(NamedTuple):
    """An answer."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = {"Content-Type": "application/json"}  # noqa: RUF012 - nobody changes it
    raw: bytes | None = None
    """Sent in the place of all that."""
    cut: bool = False
    """The connection is closed in the midst of the body."""
    drip_s: float = 0.0
    """It comes a byte at a time, so long apart."""


@dataclass
class Server:
    """A running server."""

    port: int
    posted: list[Posted] = field(default_factory=list)
    answer: Callable[[Posted, int], Says | None] = lambda *_: Says()
    """What to say to the n-th request; None: close without a word."""
    scheme: str = "http"
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://localhost:{self.port}"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], port: int, log: Path, *, directory: Path, env: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a server of somebody else's: it takes connections on *port* when this begins, and is ended after."""
    with log.open("ab") as f:
        process = subprocess.Popen(command, stdout=f, stderr=f, cwd=directory, env=env)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def serve(*, certificate: Path | None = None, client_ca: Path | None = None, port: int = 0) -> Iterator[Server]:
    """Run a server; with a certificate, by TLS; with a client's authority, for those only that it vouches for."""

    class Handler(BaseHTTPRequestHandler):
        """Takes what is posted."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            posted = Posted(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            made.posted.append(posted)
            self.close_connection = True
            says = made.answer(posted, len(made.posted))
            with contextlib.suppress(OSError):
                self._say(says)

        def _say(self, says: Says | None) -> None:
            if says is None:
                return
            if says.raw is not None:
                self._drip(says.raw, says.drip_s)
                return
            self.send_response(says.status)
            for name, value in says.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(says.body)))
            self.end_headers()
            self._drip(says.body[: len(says.body) // 2] if says.cut else says.body, says.drip_s)

        def _drip(self, data: bytes, seconds: float) -> None:
            if not seconds:
                self.wfile.write(data)
                return
            for byte in data:
                if made.ended.wait(seconds):
                    return
                self.wfile.write(bytes([byte]))
                self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    class Quiet(ThreadingHTTPServer):
        """Connections that fail are what is tested."""

        daemon_threads = True
        address_family = socket.AF_INET

        def handle_error(self, *_: Any) -> None:
            """Nothing."""

    http = Quiet(("localhost", port), Handler)
    made = Server(http.server_address[1], scheme="https" if certificate else "http")
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.ended.set()
        http.shutdown()
        http.server_close()
        thread.join()


def make_certificate(directory: Path, name: str) -> Path:
    """A certificate for localhost that vouches for itself, and its key beside it, made by openssl(1)."""
    path = directory / f"{name}.pem"
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    done = subprocess.run(
        [*command, *subject, "-keyout", path.with_suffix(".key"), "-out", path], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    path.with_suffix(".key").chmod(0o600)
    return path


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that takes all."""
    with serve() as made:
        yield made
