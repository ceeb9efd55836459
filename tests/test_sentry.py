# SPDX-License-Identifier: Apache-2.0
"""Sentry's protocol, to a real Bugsink, and to servers that fail: one bug one issue, each crash one event."""

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.archive import Archive
from pstored.delivery.outgoing import Item, Outgoing, State
from pstored.delivery.payload import Parcel, System
from pstored.delivery.sentry import Dsn, envelope, event, event_id, parse_dsn, release, wait_s
from pstored.errors import SinkError
from pstored.sinks.base import Setting
from pstored.sinks.sentry import SentrySink
from pstored.sinks.settings import Sentry
from tests.bugsink import Bugsink, bugsink
from tests.conftest import MakeRoot, Pstored, Root, run_pstored
from tests.loopback import Posted, Says, Server, server  # noqa: F401 - a fixture
from tests.outgoing import copy_crashes, crash_id, deliver_until_done
from tests.test_courier import REPORTER, Bench, run_killed
from tests.test_dispatch import configure, states

IDS = [crash_id(n) for n in range(3)]


@pytest.fixture
def three(root: MakeRoot) -> Root:
    """Three crashes, of one bug."""
    made = root("oops-panic", backend="efi_pstore")
    copy_crashes(made, 3)
    made.write("etc/os-release", 'ID=acme\nVERSION_ID="1.2"\nBUILD_ID=b77\n')
    return made


def secret(root: Root, dsn: str) -> str:
    """A file with a DSN."""
    path = root.path / "etc/dsn"
    path.write_text(f"{dsn}\n")
    path.chmod(0o600)
    return str(path)


# -- to a real server


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bugsink]:
    """One for all tests: it takes seconds to start."""
    with bugsink(tmp_path_factory.mktemp("bugsink")) as running:
        yield running


@pytest.fixture
def sentry(started: Bugsink) -> Bugsink:
    """One without events."""
    started.empty()
    return started


@pytest.mark.servers
def test_one_bug_on_two_boards_is_one_issue(root: MakeRoot, pstored: Pstored, sentry: Bugsink) -> None:
    """And another bug another; each board is a user of its own, and each crash an event."""
    for number, scenario in enumerate(("oops-panic", "oops-panic", "panic")):
        made = root(scenario, backend="efi_pstore")
        made.write("etc/machine-id", f"{number:032x}\n")
        made.write("proc/sys/kernel/hostname", f"board{number}\n")
        assert pstored("collect", root=made).status == 0
        configure(made, sentry={"dsn_file": secret(made, sentry.dsn)})
        done = pstored("deliver", root=made)
        assert (done.status, done.stderr) == (0, "")
    assert [issue.events for issue in sentry.issues()] == [2, 1]
    assert sentry.issues()[0].title.startswith("null-deref: BUG: kernel NULL pointer dereference")
    events = sentry.events()
    assert [one["user"]["id"] for one in events] == [f"{number:032x}" for number in range(3)]
    assert [one["server_name"] for one in events] == ["board0", "board1", "board2"]
    assert events[0]["event_id"] != events[1]["event_id"]
    assert events[0]["fingerprint"] == events[1]["fingerprint"] != events[2]["fingerprint"]


@pytest.mark.servers
def test_all_of_a_crash_is_there(three: Root, pstored: Pstored, sentry: Bugsink) -> None:
    """Trace, tags, contexts, the log; and what is sent again, after a power cut say, counts once."""
    table = {"dsn_file": secret(three, sentry.dsn), "environment": "field test", "tags": ["fleet=blue"]}
    configure(three, sentry=table)
    done = pstored("deliver", root=three)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"sentry: has crash {one}" for one in IDS]
    (issue,) = sentry.issues()
    assert issue.events == 3
    report = three.load(f"crashes/{IDS[0]}/crash.json")
    found = sentry.events()[0]
    (exception,) = found["exception"]["values"]
    assert (exception["type"], exception["value"]) == (report["kind"], report["title"])
    assert exception["mechanism"] == {"type": "pstore", "handled": False}
    frames = exception["stacktrace"]["frames"]
    trace = report["event"]["call_trace"]
    assert [frame["function"] for frame in frames] == [frame["function"] for frame in reversed(trace)]
    assert frames[-1] == {
        "function": "gauge_show_range",
        "module": "gauge",
        "in_app": True,
        "vars": {"offset": f"{trace[0]['offset']:#x}/{trace[0]['size']:#x}"},
    }
    assert {"vmlinux", "gauge"} == {frame["module"] for frame in frames}
    assert (found["level"], found["environment"], found["platform"]) == ("fatal", "field-test", "native")
    assert found["timestamp"] == report["time"]["wall"]
    assert found["fingerprint"] == ["pstored", report["event"]["signature"]]
    assert (
        found["tags"].items()
        >= {
            "fleet": "blue",
            "kernel": report["kernel"]["release"],
            "signature_loose": report["event"]["signature_loose"],
            "crash_id": IDS[0],
            "taint": "O",
        }.items()
    )
    assert found["contexts"]["crash"]["boot_id"] == report["boot"]["id"]
    said = [line["message"] for line in found["breadcrumbs"]["values"]]
    assert len(said) == 100
    assert [line for line in said if "Kernel panic - not syncing: Fatal exception" in line]
    again = {one["event_id"] for one in sentry.events()}
    shutil.rmtree(three.archive / "outgoing")
    assert pstored("deliver", root=three).status == 0
    assert {one["event_id"] for one in sentry.events()} == again
    assert sentry.issues() == [issue]


@pytest.mark.servers
def test_a_key_that_is_none(three: Root, pstored: Pstored, sentry: Bugsink) -> None:
    """Refused, and the rest waits; the key is told to nobody."""
    key = "0" * 32
    configure(three, sentry={"dsn_file": secret(three, sentry.dsn.replace(sentry.key, key))})
    done = pstored("deliver", root=three)
    assert done.status == 75
    assert states(three, "sentry") == {Item(IDS[0], 1): State.REFUSED}
    said = done.stderr + pstored("outbox", root=three).stdout
    assert "Project not found or key incorrect" in said
    assert key not in said
    secret(three, sentry.dsn)
    pstored("outbox", "--retry", root=three)
    assert pstored("deliver", root=three).status == 0
    assert [issue.events for issue in sentry.issues()] == [3]


@pytest.mark.servers
def test_killed_at_every_step_each_counts_once(three: Root, sentry: Bugsink) -> None:
    """Nothing is lost, and nothing is there twice, though it may have been sent twice."""
    archive = Archive(str(three.archive))
    table, setting = Sentry(dsn_file=secret(three, sentry.dsn)), Setting(REPORTER, 10, {})
    killed = 0
    for at in range(1, 200):
        shutil.rmtree(archive.outgoing, ignore_errors=True)
        sentry.empty()
        bench = Bench(archive)
        status = run_killed(lambda b=bench: b.round(SentrySink(table, setting)), at)  # type: ignore[misc]
        bench.round(SentrySink(table, setting))
        assert [issue.events for issue in sentry.issues()] == [3]
        assert sorted(one["tags"]["crash_id"] for one in sentry.events()) == IDS
        assert bench.survey().waiting == ()
        if status == 0:
            break
        killed += 1
    assert killed > 12


# -- servers that fail


def taken(posted: Posted, *_: Any) -> Says:
    """As a server that has it."""
    return Says(200, json.dumps({"id": json.loads(posted.body.split(b"\n")[0])["event_id"]}).encode())


def dsn(server: Server) -> str:  # noqa: F811
    """Of a project there."""
    return f"http://{'a' * 32}@localhost:{server.port}/7"


def crashes(server: Server) -> list[str]:  # noqa: F811
    """Which crashes were posted, in order."""
    return [json.loads(posted.body.split(b"\n")[2])["tags"]["crash_id"] for posted in server.posted]


FAULTS: dict[str, Callable[[Posted, int], Says | None]] = {
    "closes": lambda p, n: None if n <= 2 else taken(p),
    "500": lambda p, n: Says(500) if n <= 2 else taken(p),
    "503, later": lambda p, n: Says(503, b"", {"Retry-After": "1"}) if n <= 2 else taken(p),
    "429, later": lambda p, n: Says(429, b"{}", {"Retry-After": "1"}) if n == 2 else taken(p),
    "429, limits": lambda p, n: Says(429, b"", {"X-Sentry-Rate-Limits": "1:error:key"}) if n == 2 else taken(p),
    "garbage": lambda p, n: Says(raw=b"\x00" * 100) if n % 2 else taken(p),
    "a login page": lambda p, n: Says(200, b"<html>", {"Content-Type": "text/html"}) if n == 1 else taken(p),
    "another's": lambda p, n: Says(200, b'{"id": "0"}') if n == 1 else taken(p),
    "breaks off": lambda p, n: Says(200, b"x" * 100, cut=True) if n == 1 else taken(p),
    "too slow": lambda p, n: Says(200, b"x" * 100, drip_s=0.5) if n == 1 else taken(p),
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
        sentry={"dsn_file": secret(three, dsn(server))},
        file={"path": str(tmp_path / "out")},
    )
    assert deliver_until_done(pstored, three, tmp_path / "out", IDS)
    assert list(dict.fromkeys(crashes(server))) == IDS
    assert len({json.loads(p.body.split(b"\n")[0])["event_id"] for p in server.posted}) == 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 60),
        ({"Retry-After": "120"}, 120),
        ({"X-Sentry-Rate-Limits": "300:error:key, 900:transaction:key, 10::organization"}, 300),
        ({"X-Sentry-Rate-Limits": "700::organization", "Retry-After": "10"}, 700),
        ({"X-Sentry-Rate-Limits": "700:session:key", "Retry-After": "130"}, 130),
    ],
)
def test_too_many(three: Root, pstored: Pstored, server: Server, headers: dict[str, str], seconds: float) -> None:  # noqa: F811
    """Left alone as long as it says: of its limits the longest that is for events, else Retry-After, else a minute."""
    server.answer = lambda *_: Says(429, b"", headers)
    configure(three, delivery={"retry_s": 1}, sentry={"dsn_file": secret(three, dsn(server))})
    before = time.time()
    assert pstored("deliver", root=three).status == 75
    assert len(server.posted) == 1
    due = Outgoing(Archive(str(three.archive)), "sentry").health().next
    assert due is not None
    assert before + seconds <= due < time.time() + seconds + 1


def test_limits_of_a_success_are_heeded(three: Root, pstored: Pstored, server: Server) -> None:  # noqa: F811
    """The one that it had counts, the next is not sent before its time, in this round or another; it is no failure."""
    server.answer = lambda p, _: taken(p)._replace(headers={"X-Sentry-Rate-Limits": "200:error:key"})
    configure(three, delivery={"retry_s": 1}, sentry={"dsn_file": secret(three, dsn(server))})
    before = time.time()
    for _ in range(2):
        assert pstored("deliver", root=three).status == 75
        assert crashes(server) == IDS[:1]
    assert states(three, "sentry") == {Item(IDS[0], 1): State.SENT}
    health = Outgoing(Archive(str(three.archive)), "sentry").health()
    assert (health.failures, health.failed) == (0, 0)
    assert health.next is not None
    assert before + 200 <= health.next < time.time() + 201


@pytest.mark.parametrize(("status", "posted"), [(400, 3), (401, 1), (403, 1), (404, 1), (413, 6)])
def test_what_is_refused_is_set_aside(
    three: Root,
    pstored: Pstored,
    server: Server,  # noqa: F811
    status: int,
    posted: int,
) -> None:
    """Each for itself, if it is its own fault, one that is too large without its log, too; else one, and a pause."""
    server.answer = lambda *_: Says(status, b'{"detail": "no"}')
    configure(three, sentry={"dsn_file": secret(three, dsn(server))})
    pstored("deliver", root=three)
    assert len(server.posted) == posted
    refused = [state for state in states(three, "sentry").values() if state is State.REFUSED]
    assert len(refused) == min(posted, 3)


def test_one_that_is_too_large_goes_without_its_log(three: Root, pstored: Pstored, server: Server) -> None:  # noqa: F811
    """The last lines stay in the event."""
    server.answer = lambda p, _: Says(413) if b'"attachment"' in p.body else taken(p)
    configure(three, sentry={"dsn_file": secret(three, dsn(server))})
    done = pstored("deliver", "--json", root=three)
    assert done.status == 0
    assert [one["receipt"]["shortened"] for one in done.json["outgoing"]["delivered"]] == [True] * 3
    assert b"Kernel panic" in server.posted[-1].body


def test_what_is_posted(three: Root, server: Server) -> None:  # noqa: F811
    """An envelope whose lengths are right, with the log beside the event; the key in a header, not in the URL."""
    server.answer = lambda p, _: taken(p)
    configure(three, sentry={"dsn_file": secret(three, dsn(server)), "group_by": "loose"})
    assert run_pstored("deliver", root=three).status == 0
    posted = server.posted[0]
    assert posted.path == "/api/7/envelope/"
    assert posted.headers["content-type"] == "application/x-sentry-envelope"
    assert posted.headers["x-sentry-auth"].startswith("Sentry sentry_version=7, sentry_client=pstored/")
    assert posted.headers["x-sentry-auth"].endswith(f"sentry_key={'a' * 32}")
    items = unpack(posted.body)
    assert [item["type"] for item, _ in items] == ["event", "attachment"]
    assert (
        json.loads(items[0][1])["fingerprint"][1]
        == three.load(f"crashes/{IDS[0]}/crash.json")["event"]["signature_loose"]
    )
    assert items[1][0]["filename"] == "dmesg.txt"
    assert b"Kernel panic - not syncing" in items[1][1]
    configure(three, delivery={"text": "none"}, sentry={"dsn_file": secret(three, dsn(server))})
    shutil.rmtree(three.archive / "outgoing")
    assert run_pstored("deliver", root=three).status == 0
    ((_, data),) = unpack(server.posted[-1].body)
    assert json.loads(data)["breadcrumbs"] == {"values": []}


def unpack(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """The items of an envelope, by their lengths."""
    _, _, data = data.partition(b"\n")
    items = []
    while data:
        header, _, data = data.partition(b"\n")
        length = json.loads(header)["length"]
        items.append((json.loads(header), data[:length]))
        assert data[length : length + 1] == b"\n"
        data = data[length + 1 :]
    return items


# -- events


def parcel(**more: Any) -> Parcel:
    """One of a crash of which next to nothing is known."""
    crash = {
        "id": IDS[0],
        "revision": 1,
        "kind": "reset",
        "severity": "reset",
        "title": "reset",
        "event": None,
        "boot": {"id": None, "method": "none", "confidence": "unknown"},
        "time": {"wall": None, "doubtful": False},
        "kernel": {},
        "records": [],
    }
    return Parcel("u", crash | more, None, 0, 1, "2026-11-27T00:00:00Z", "2026-11-27T00:00:01Z", {}, REPORTER, System())


def test_a_reset_has_neither_trace_nor_signature() -> None:
    """The kind groups it; its time is that of the collection."""
    found = event(parcel(), environment="", tags={}, loose=False)
    assert found["fingerprint"] == ["pstored", "reset"]
    assert found["exception"]["values"] == [
        {"type": "reset", "value": "reset", "mechanism": {"type": "pstore", "handled": False}}
    ]
    assert (found["timestamp"], found["level"]) == ("2026-11-27T00:00:01Z", "error")
    assert not {"release", "environment", "transaction"} & found.keys()


def test_ids_are_stable_and_differ() -> None:
    """By the parcel's uid; hexadecimal digits of a UUID."""
    one = parcel()
    assert event_id(one) == event_id(one)
    assert event_id(one) != event_id(one._replace(uid="v"))
    assert uuid.UUID(event_id(one)).version == 5


@pytest.mark.parametrize(
    ("version", "build", "name"),
    [
        (None, None, None),
        ("1.2", "b 7/x", "os@1.2+b-7-x"),
        ("1.2", None, "os@1.2"),
        (None, "b7", "os@b7"),
        ("1", "1", "os@1"),
    ],
)
def test_releases(version: str | None, build: str | None, name: str | None) -> None:
    """Of the system that crashed; without what Sentry does not take."""
    assert release(parcel()._replace(system=System(version, build))) == name


def test_an_event_has_a_bounded_size() -> None:
    """Whatever a crash brings: Relay takes events of up to 1 MiB."""
    frames = [{"function": "f" * 10_000, "offset": 1, "size": 2, "module": "m", "reliable": True}] * 5000
    hostile = parcel(title="t" * 1_000_000, function="f", event={"call_trace": frames, "signature": "s"})
    hostile = hostile._replace(text=("\x1b" * 5000 + "\n") * 500)
    found = event(hostile, environment="e" * 5000, tags={"x": "y" * 5000}, loose=False)
    assert len(json.dumps(found)) < 1 << 20
    assert len(found["exception"]["values"][0]["stacktrace"]["frames"]) == 250
    from datetime import UTC, datetime

    data = envelope(hostile, found, now=datetime(2026, 11, 27, tzinfo=UTC), attach=True)
    assert [item["type"] for item, _ in unpack(data)] == ["event", "attachment"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://abc@h/1", Dsn("https://h/api/1/envelope/", "abc")),
        ("http://abc:secret@h:81/base/path/22/", Dsn("http://h:81/base/path/api/22/envelope/", "abc")),
        ("https://abc@[::1]:9/p", Dsn("https://[::1]:9/api/p/envelope/", "abc")),
    ],
)
def test_dsns(text: str, wanted: Dsn) -> None:
    """A path before the project stays; the old secret is not used."""
    assert parse_dsn(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "https://h/1",
        "https://abc@h",
        "https://abc@h/",
        "ftp://abc@h/1",
        "https://a,b@h/1",
        "https://abc@h:x/1",
        "https://abc@/1",
        "https://abc@h/a b",
    ],
)
def test_what_is_no_dsn_is_said(text: str) -> None:
    """Without telling what it is."""
    with pytest.raises(SinkError) as caught:
        parse_dsn(text)
    assert str(caught.value) == "what dsn_file in [sentry] names is no DSN"


@given(st.text(alphabet="0123456789:;,. erordefaultx-", max_size=200))
def test_any_limits(text: str) -> None:
    """A number, or none."""
    found = wait_s(text)
    assert found is None or 0 <= found <= 1e9


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("60:error:key", 60),
        ("60:transaction:key", None),
        ("60::organization:quota", 60),
        ("60:transaction;error:key:why, 2700:default;security:organization", 2700),
        ("x:error:key, 1.5:error:key", 1.5),
        ("nan:error:key", None),
        ("inf:error:key", 1e9),
        ("-5:error:key", 0),
    ],
)
def test_limits(text: str, seconds: float | None) -> None:
    """The longest one that is for events."""
    assert wait_s(text) == seconds
