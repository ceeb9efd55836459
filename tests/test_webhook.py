# SPDX-License-Identifier: Apache-2.0
"""The webhook: CloudEvents to a real server, and every fault of one: each crash arrives, once by its id."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pstored.archive import Archive
from pstored.delivery.cloudevent import CONTENT_TYPE
from pstored.sinks.base import Setting
from pstored.sinks.settings import Webhook
from pstored.sinks.webhook import WebhookSink
from tests.conftest import MakeRoot, Pstored, Root
from tests.loopback import Posted, Says, Server, serve, server  # noqa: F401 - a fixture
from tests.outgoing import copy_crashes, crash_id, deliver_until_done
from tests.test_courier import REPORTER, Bench, run_killed
from tests.test_dispatch import configure

IDS = [crash_id(n) for n in range(3)]


@pytest.fixture
def three(root: MakeRoot) -> Root:
    """Three crashes, none like another."""
    made = root("panic", backend="efi_pstore")
    copy_crashes(made, 3)
    return made


def crashes(server: Server) -> list[str]:  # noqa: F811
    """Which crashes were posted, in order."""
    return [json.loads(posted.body)["subject"] for posted in server.posted]


def test_a_cloudevent_is_posted(three: Root, pstored: Pstored, server: Server) -> None:  # noqa: F811
    """Every attribute that the specification wants, with its form; the parcel is its data."""
    configure(three, webhook={"url": f"{server.url}/hook?a=b"})
    done = pstored("deliver", root=three)
    assert (done.status, done.stderr) == (0, "")
    assert crashes(server) == IDS
    posted = server.posted[0]
    assert (posted.path, posted.headers["content-type"]) == ("/hook?a=b", CONTENT_TYPE)
    event = json.loads(posted.body)
    assert (event["specversion"], event["type"], event["datacontenttype"]) == (
        "1.0",
        "org.pstored.crash.v1",
        "application/json",
    )
    assert event["id"] == f"{IDS[0]}.1"
    assert event["source"].startswith("urn:pstored:")
    assert event["time"] == event["data"]["crash"]["time"]["wall"]
    assert event["data"]["uid"] == f"{event['id']}@{event['source'].removeprefix('urn:pstored:')}"
    assert "Kernel panic" in event["data"]["text"]


def test_secrets_come_from_files(three: Root, pstored: Pstored, server: Server, tmp_path: Path) -> None:  # noqa: F811
    """A token and headers; one that everybody may read is not used, and nothing is sent without it."""
    (tmp_path / "token").write_text("t0ken\n")
    (tmp_path / "token").chmod(0o644)
    configure(three, webhook={"url": server.url, "token_file": str(tmp_path / "token"), "compression": "gzip"})
    done = pstored("deliver", root=three)
    assert done.status == 75
    assert "has a secret, and mode 0644: not used" in done.stderr
    assert "t0ken" not in done.stderr
    assert server.posted == []
    (tmp_path / "token").chmod(0o640)
    pstored("outbox", "--retry", root=three)
    assert pstored("deliver", root=three).status == 0
    assert server.posted[0].headers["authorization"] == "Bearer t0ken"
    assert server.posted[0].headers["content-encoding"] == "gzip"


def test_without_a_url_nothing_is_lost(three: Root, pstored: Pstored) -> None:
    """Said, and kept."""
    configure(three, webhook={})
    done = pstored("deliver", root=three)
    assert done.status == 75
    assert "url in [webhook] must be set" in done.stderr


OVER = "Wed, 01 Jan 2020 00:00:00 GMT"
FAULTS: dict[str, Callable[[Posted, int], Says | None]] = {
    "closes": lambda _, n: None if n <= 2 else Says(),
    "500": lambda _, n: Says(500) if n <= 2 else Says(),
    "503, later": lambda _, n: Says(503, b"", {"Retry-After": "1"}) if n <= 2 else Says(),
    "429 with a date": lambda _, n: Says(429, b"", {"Retry-After": OVER}) if n == 2 else Says(),
    "garbage": lambda _, n: Says(raw=b"\x00" * 100) if n % 2 else Says(),
    "breaks off": lambda _, n: Says(200, b"x" * 100, cut=True) if n == 1 else Says(),
    "too slow": lambda _, n: Says(200, b"x" * 100, drip_s=0.5) if n == 1 else Says(),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_server_does_each_crash_arrives(
    three: Root,
    pstored: Pstored,
    server: Server,  # noqa: F811
    tmp_path: Path,
    fault: str,
) -> None:
    """In order, by its id once; the other sink has all at once, whatever this one does."""
    server.answer = FAULTS[fault]
    configure(
        three,
        delivery={"timeout_s": 1, "retry_s": 0},
        webhook={"url": server.url},
        file={"path": str(tmp_path / "out")},
    )
    assert deliver_until_done(pstored, three, tmp_path / "out", IDS)
    assert list(dict.fromkeys(crashes(server))) == IDS
    events = Counter(json.loads(posted.body)["id"] for posted in server.posted)
    assert len(events) == 3


@pytest.mark.parametrize(("status", "posted"), [(400, 3), (413, 3), (401, 1), (404, 1)])
def test_what_is_refused_is_set_aside(
    three: Root,
    pstored: Pstored,
    server: Server,  # noqa: F811
    status: int,
    posted: int,
) -> None:
    """Each for itself, if it is its own fault; else one, and the sink is left alone. Tried again when told to."""
    server.answer = lambda *_: Says(status, b"no")
    configure(three, webhook={"url": server.url})
    pstored("deliver", root=three)
    assert len(server.posted) == posted
    rows = pstored("outbox", "--json", root=three).json["outbox"]
    assert [row["state"] for row in rows] == ["refused"] * posted + ["new"] * (3 - posted)
    assert f"says {status}" in rows[0]["why"]
    server.answer = lambda *_: Says()
    pstored("outbox", "--retry", "webhook", root=three)
    assert pstored("deliver", root=three).status == 0
    assert sorted(crashes(server)[posted:]) == IDS


def test_a_server_that_comes_back_gets_all(three: Root, pstored: Pstored) -> None:
    """Down, then up on the same port."""
    with serve() as made:
        port = made.port
    configure(three, delivery={"retry_s": 0}, webhook={"url": f"http://localhost:{port}"})
    for _ in range(3):
        done = pstored("deliver", root=three)
        assert done.status == 75
        assert "cannot be reached: Connection refused" in done.stderr
    with serve(port=port) as made:
        assert pstored("deliver", root=three).status == 0
        assert crashes(made) == IDS


def test_killed_at_every_step_nothing_is_lost(three: Root, server: Server) -> None:  # noqa: F811
    """The next round sends what is not noted as sent: each crash arrives, at most one of them twice, under one id."""
    archive = Archive(str(three.archive))
    table = Webhook(url=server.url)
    killed = 0
    for at in range(1, 200):
        shutil.rmtree(archive.outgoing, ignore_errors=True)
        server.posted.clear()
        bench = Bench(archive)
        status = run_killed(lambda b=bench: b.round(WebhookSink(table, Setting(REPORTER, 10, {}))), at)  # type: ignore[misc]
        bench.round(WebhookSink(table, Setting(REPORTER, 10, {})))
        events = Counter(json.loads(posted.body)["id"] for posted in server.posted)
        assert sorted(events) == [f"{one}.1" for one in IDS]
        assert sum(events.values()) <= 4
        assert list(dict.fromkeys(crashes(server))) == IDS
        assert bench.survey().waiting == ()
        if status == 0:
            break
        killed += 1
    assert killed > 12
