# SPDX-License-Identifier: Apache-2.0
"""Requests to real servers that are down, slow, rude, or somebody else."""

import os
import shutil
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pstored.errors import SinkError
from pstored.sinks.http import MAX_ANSWER, Answer, judge, split_url
from pstored.sinks.http import Server as Client
from pstored.sinks.link import Tls
from tests.conftest import require
from tests.loopback import Says, Server, make_certificate, serve, server  # noqa: F401 - a fixture

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


def client(url: str, *, tls: Tls = Tls(), timeout_s: float = 10, environ: Mapping[str, str] = {}) -> Client:  # noqa: B008
    """What posts to a URL."""
    return Client(url, tls=tls, timeout_s=timeout_s, environ=environ)


def failure(url: str, **more: float) -> SinkError:
    """Why a post fails."""
    with pytest.raises(SinkError) as caught:
        client(url, **more).post(b"x", {})  # type: ignore[arg-type]
    return caught.value


def test_a_post_arrives_and_is_answered(server: Server) -> None:  # noqa: F811
    """Path, with a slash at its end, query and headers as given; the answer whole."""
    server.answer = lambda *_: Says(202, b'{"a": 1}', {"X-Y": "z"})
    answer = client(f"{server.url}/base/v1/?q=1").post(b"body", {"Content-Type": "text/x"})
    assert (answer.status, answer.body, answer.headers["X-Y"]) == (202, b'{"a": 1}', "z")
    (posted,) = server.posted
    assert (posted.path, posted.body, posted.headers["content-type"]) == ("/base/v1/?q=1", b"body", "text/x")
    assert posted.headers["user-agent"].startswith("pstored/")


def test_nobody_listens() -> None:
    """To be tried again."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    error = failure(f"http://localhost:{port}")
    assert (str(error), error.retry) == (f"http://localhost:{port} cannot be reached: Connection refused", True)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (None, "not HTTP (RemoteDisconnected)"),
        (Says(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), "not HTTP (BadStatusLine)"),
        (Says(raw=b"\x00\xff" * 1000), "not HTTP"),
        (Says(raw=b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n"), "not HTTP"),
        (Says(raw=b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "breaks off"),
        (Says(200, b"x" * 1000, cut=True), "its answer breaks off"),
        (Says(503, b"x" * 1000, cut=True), "its answer breaks off"),
    ],
)
def test_an_answer_that_is_none_is_tried_again(server: Server, says: Says | None, why: str) -> None:  # noqa: F811
    """Whether it was taken is not known: so it is sent again, under the same id."""
    server.answer = lambda *_: says
    error = failure(server.url)
    assert error.retry
    assert why in str(error)


@pytest.mark.parametrize(
    "says", [Says(raw=b"HTTP/1.1 200 OK\r\n" * 100, drip_s=0.2), Says(200, b"x" * 100, drip_s=0.2)]
)
def test_a_server_that_drips_has_so_long_in_all(server: Server, says: Says) -> None:  # noqa: F811
    """Not so long for each byte."""
    server.answer = lambda *_: says
    begin = time.monotonic()
    assert "takes longer than 1 s" in str(failure(server.url, timeout_s=1))
    assert time.monotonic() - begin < 10


def test_a_server_that_says_nothing() -> None:
    """It accepts, and that is all."""
    with socket.create_server(("localhost", 0)) as s:
        error = failure(f"http://localhost:{s.getsockname()[1]}", timeout_s=0.3)
    assert "takes longer than 0.3 s" in str(error)


def test_no_more_than_so_much_of_an_answer_is_read(server: Server) -> None:  # noqa: F811
    """A server that never ends costs no memory."""
    server.answer = lambda *_: Says(200, b"x" * (MAX_ANSWER + 100))
    assert len(client(server.url).post(b"", {}).body) == MAX_ANSWER


def test_a_redirect_is_not_followed(server: Server) -> None:  # noqa: F811
    """It would carry the headers' secrets elsewhere."""
    server.answer = lambda *_: Says(307, b"", {"Location": f"{server.url}/other"})
    answer = client(server.url).post(b"x", {"Authorization": "Bearer x"})
    assert answer.status == 307
    assert len(server.posted) == 1
    with pytest.raises(SinkError) as caught:
        judge(answer, again=frozenset(), where=server.url)
    assert (caught.value.retry, caught.value.pause) == (False, True)


@pytest.mark.parametrize(
    ("status", "retry", "pause"),
    [
        (429, True, False),
        (503, True, False),
        (400, False, False),
        (413, False, False),
        (401, False, True),
        (404, False, True),
        (500, False, True),
    ],
)
def test_judgement(status: int, retry: bool, pause: bool) -> None:
    """Later, never, or never and nothing else either; its words are the reason, cut short."""
    with pytest.raises(SinkError) as caught:
        judge(Answer(status, {}, b"no\n way " * 1000), again=frozenset((429, 503)), where="http://x")
    assert (caught.value.retry, caught.value.pause) == (retry, pause)
    assert "no way no way" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_success_is_one(status: int) -> None:
    """2xx."""
    judge(Answer(status, {}, b""), again=frozenset(), where="")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("99999999999999999999", 999999999.0),
        ("Mon, 23 Nov 2026 04:01:00 GMT", 60.0),
        ("Mon, 23 Nov 2026 03:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    """Seconds or a date; whatever else it is, it is as if it were not there."""
    assert Answer(503, {"retry-AFTER": value}, b"").retry_after_s(NOW) == seconds


@pytest.mark.parametrize(
    "url", ["", "x", "ftp://x", "http://", "https://x:99999", "http://x:y", "http://a b", "http://[::1"]
)
def test_urls_that_are_none(url: str) -> None:
    """Said, and nothing is sent anywhere."""
    with pytest.raises(SinkError):
        split_url(url)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    """The configuration may be read by everybody; the message goes to the log."""
    with pytest.raises(SinkError) as caught:
        split_url("https://user:hunter2@host/")
    assert "hunter2" not in str(caught.value)


# -- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's, a client's, and somebody else's."""
    require(shutil.which("openssl"), "openssl (apt-get install openssl)")
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("server", "client", "other"):
        make_certificate(directory, name)
    return directory


def test_tls_with_an_authority_of_its_own(certificates: Path) -> None:
    """``ca_file`` names who vouches for the server; without, and with another, nothing is sent."""
    with serve(certificate=certificates / "server.pem") as made:
        tls = Tls(ca_file=str(certificates / "server.pem"))
        assert client(made.url, tls=tls).post(b"x", {}).status == 200
        for wrong in (Tls(), Tls(ca_file=str(certificates / "other.pem"))):
            with pytest.raises(SinkError) as caught:
                client(made.url, tls=wrong).post(b"secret", {})
            assert "is not who it should be" in str(caught.value)
            assert caught.value.retry
        assert [posted.body for posted in made.posted] == [b"x"]
        with pytest.raises(SinkError) as caught:
            client(made.url.replace("localhost", "127.0.0.1"), tls=tls).post(b"secret", {})
        assert "IP address mismatch" in str(caught.value)


def test_a_client_that_shows_who_it_is(certificates: Path) -> None:
    """The key from a credential, the certificate from a file; without, the server says no."""
    ca = str(certificates / "server.pem")
    with serve(certificate=certificates / "server.pem", client_ca=certificates / "client.pem") as made:
        tls = Tls(ca, str(certificates / "client.pem"), "client.key")
        environ = {"CREDENTIALS_DIRECTORY": str(certificates)}
        assert client(made.url, tls=tls, environ=environ).post(b"x", {}).status == 200
        with pytest.raises(SinkError) as caught:
            client(made.url, tls=Tls(ca)).post(b"x", {})
        assert caught.value.retry


def test_certificates_that_cannot_be_used(certificates: Path, tmp_path: Path) -> None:
    """Not there, no certificate, another's key, a key that everybody may read: each is said."""
    (tmp_path / "no.pem").write_text("nothing")
    shutil.copy(certificates / "client.key", tmp_path / "open.key")
    os.chmod(tmp_path / "open.key", 0o644)
    pem = str(certificates / "client.pem")
    for tls, why in (
        (Tls(ca_file="/nowhere"), "No such file"),
        (Tls(ca_file=str(tmp_path / "no.pem")), "certificates cannot be used"),
        (Tls(cert_file=pem, key_file=str(certificates / "other.key")), "certificates cannot be used"),
        (Tls(cert_file=pem, key_file=str(tmp_path / "open.key")), "mode 0644: not used"),
        (Tls(cert_file=pem, key_file="a-credential"), "there is no credential 'a-credential'"),
    ):
        with pytest.raises(SinkError) as caught:
            client("https://localhost", tls=tls)
        assert why in str(caught.value)


def test_plain_http_where_tls_is_spoken(certificates: Path, server: Server) -> None:  # noqa: F811
    """And the other way round: kept, said."""
    with serve(certificate=certificates / "server.pem") as made:
        assert failure(made.url.replace("https", "http")).retry
    assert "cannot be reached" in str(failure(server.url.replace("http", "https")))
