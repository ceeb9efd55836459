# SPDX-License-Identifier: Apache-2.0
"""MQTT 5 to a real mosquitto, with its limits, and to servers that fail: each crash arrives, once by its id."""

import contextlib
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pstored.archive import Archive
from pstored.delivery.cloudevent import CONTENT_TYPE
from pstored.delivery.outgoing import Item, State
from pstored.errors import SinkError
from pstored.sinks.base import Setting
from pstored.sinks.broker import GARBLED, MAX_RECEIVED, Address, Broker, Login, Message, split_address
from pstored.sinks.mqtt import MqttSink
from pstored.sinks.settings import Mqtt
from pstored.sinks.words import fill, require_topic
from tests.conftest import REPOSITORY, MakeRoot, Pstored, Root, require
from tests.loopback import free_port, make_certificate
from tests.mosquitto import (
    ANONYMOUS,
    CONNACK,
    CONNECT,
    PUBACK,
    PUBLISH,
    WELCOME,
    Packet,
    leave,
    mosquitto,
    polite,
    scripted,
    subscribed,
)
from tests.outgoing import copy_crashes, crash_id, lines
from tests.test_courier import REPORTER, Bench, run_killed
from tests.test_dispatch import configure, states

IDS = [crash_id(n) for n in range(3)]


@pytest.fixture
def three(root: MakeRoot) -> Root:
    """Three crashes, none like another."""
    made = root("panic", backend="efi_pstore")
    copy_crashes(made, 3)
    return made


def url(port: int) -> str:
    """Where a server on this port is."""
    return f"mqtt://127.0.0.1:{port}"


def test_events_are_published_and_acknowledged(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """In order, each once, as the CloudEvents binding for MQTT wants it, where the pattern says."""
    port = free_port()
    configure(
        three,
        mqtt={"server": url(port), "topic": "fleet/{machine_id}/{kind}/{signature}", "expiry_s": 3600},
    )
    with mosquitto(tmp_path, ANONYMOUS, port=port), subscribed(port) as subscriber:
        done = pstored("deliver", root=three)
        assert (done.status, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [f"mqtt: has crash {one}" for one in IDS]
        messages = subscriber.wait_for(3)
        assert pstored("deliver", root=three).stdout == ""
    assert subscriber.crashes() == IDS
    report = three.load(f"crashes/{IDS[0]}/crash.json")
    machine_id = (three.path / "etc/machine-id").read_text().strip()
    assert messages[0].topic == f"fleet/{machine_id}/{report['kind']}/{report['event']['signature']}"
    assert (messages[0].qos, messages[0].retain) == (1, False)
    properties: Any = messages[0].properties
    assert (properties.ContentType, properties.PayloadFormatIndicator) == (CONTENT_TYPE, 1)
    assert 3590 <= properties.MessageExpiryInterval <= 3600
    event = subscriber.events()[0]
    assert (event["specversion"], event["id"]) == ("1.0", f"{IDS[0]}.1")
    assert event["data"]["crash"]["id"] == IDS[0]
    assert "Kernel panic" in event["data"]["text"]
    assert event["data"]["uid"] == f"{event['id']}@{event['source'].removeprefix('urn:pstored:')}"


def test_what_nobody_has_subscribed_to_is_kept(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """A server that says that it has nobody to give it to would drop it; unless that is meant to count."""
    port = free_port()
    configure(three, mqtt={"server": url(port)})
    with mosquitto(tmp_path, ANONYMOUS, port=port):
        done = pstored("deliver", root=three)
        assert done.status == 75
        assert "nobody has subscribed to 'pstored/" in done.stderr
        assert states(three, "mqtt") == {Item(IDS[0], 1): State.FAILED}
        pstored("outbox", "--retry", root=three)
        with subscribed(port) as subscriber:
            assert pstored("deliver", root=three).status == 0
            subscriber.wait_for(3)
        assert subscriber.crashes() == IDS
        shutil.rmtree(three.archive / "outgoing")
        configure(three, mqtt={"server": url(port), "require_subscriber": False})
        assert pstored("deliver", root=three).status == 0


@pytest.mark.parametrize("limit", ["message_size_limit", "max_packet_size"])
def test_what_is_too_large_for_the_server_goes_shorter(
    three: Root, pstored: Pstored, tmp_path: Path, limit: str
) -> None:
    """Whether it says beforehand how much it takes, or refuses with a code that MQTT 5 does not have there."""
    port = free_port()
    configure(three, mqtt={"server": url(port)})
    with mosquitto(tmp_path, ANONYMOUS, f"{limit} 12000", port=port), subscribed(port) as subscriber:
        done = pstored("deliver", "--json", root=three)
        assert done.status == 0
        subscriber.wait_for(3)
    assert subscriber.crashes() == IDS
    assert all(one["receipt"]["shortened"] for one in done.json["outgoing"]["delivered"])
    for message, event in zip(subscriber.messages, subscriber.events(), strict=True):
        assert len(message.payload) <= 12000
        assert event["data"]["text_left_out"] > 0
        assert event["data"]["crash"]["event"]["signature"]
    if limit == "max_packet_size":  # as much as fits
        assert all(len(message.payload) > 10000 for message in subscriber.messages)
        assert "Kernel panic" in subscriber.events()[0]["data"]["text"]


def test_what_cannot_be_short_enough_is_set_aside(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """With the reason; a server that answers with rubbish might be well another time."""
    port = free_port()
    configure(three, mqtt={"server": url(port)})
    with mosquitto(tmp_path, ANONYMOUS, "max_packet_size 500", port=port):
        assert pstored("deliver", root=three).status == 0
    assert set(states(three, "mqtt").values()) == {State.REFUSED}
    why = pstored("outbox", "--json", root=three).json["outbox"][0]["why"]
    assert why == "it does not fit into the 500 bytes that may be sent, not even without text"
    pstored("outbox", "--retry", root=three)
    with mosquitto(tmp_path, ANONYMOUS, "message_size_limit 500", port=port):
        assert pstored("deliver", root=three).status == 75
    assert "does not take it, however short" in pstored("outbox", "--json", root=three).json["outbox"][0]["why"]


def test_our_own_limit(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """No packet is larger than the configuration says."""
    port = free_port()
    configure(three, mqtt={"server": url(port), "max_packet_bytes": 9000})
    with scripted(polite()) as server:
        configure(three, mqtt={"server": url(server.port), "max_packet_bytes": 9000})
        assert pstored("deliver", root=three).status == 0
    assert [8000 < packet.length <= 9000 for packet in server.published()] == [True] * 3


def test_sizes_are_those_on_the_wire() -> None:
    """The limit is about packets, so their headers count."""
    with scripted(polite()) as server:
        broker = Broker(Address("127.0.0.1", server.port, False), login=Login("x"), context=None, timeout_s=10)
        for payload in (0, 1, 100, 127, 128, 16_000, 16_383, 16_384, 300_000):
            message = Message("a/bä", b"x" * payload, "text/x", payload)
            assert broker.publish(message).code == 0
            assert server.published()[-1].length == message.size()
        broker.close()


# -- who may


@pytest.fixture
def passwords(tmp_path: Path) -> list[str]:
    """Lines for a mosquitto with one user, board, whose password is right, who may write below ok."""
    program = shutil.which("mosquitto_passwd")
    require(program, "mosquitto (apt-get install mosquitto)")
    assert program is not None
    (tmp_path / "passwords").touch(mode=0o600)
    subprocess.run([program, "-b", tmp_path / "passwords", "board", "right"], check=True)
    subprocess.run([program, "-b", tmp_path / "passwords", "reader", "right"], check=True)
    (tmp_path / "acl").write_text("user board\ntopic write ok/#\nuser reader\ntopic read #\n")
    return ["allow_anonymous false", f"password_file {tmp_path}/passwords", f"acl_file {tmp_path}/acl"]


def test_passwords_and_what_they_allow(three: Root, pstored: Pstored, tmp_path: Path, passwords: list[str]) -> None:
    """A wrong one blames no crash; a topic that is not allowed one, and the rest waits; then all arrive."""
    port = free_port()
    (tmp_path / "credentials").mkdir()
    secret = tmp_path / "credentials/broker"
    secret.write_text("wrong\n")
    secret.chmod(0o600)
    table = {"server": url(port), "username": "board", "password_file": "broker", "topic": "ok/{hostname}"}
    env = {"CREDENTIALS_DIRECTORY": str(secret.parent)}
    with mosquitto(tmp_path, *passwords, port=port), subscribed(port, login=("reader", "right")) as subscriber:
        configure(three, mqtt=table)
        done = pstored("deliver", root=three, env=env)
        assert done.status == 75
        assert f"{url(port)} refuses the connection: Not authorized (0x87)" in done.stderr
        assert "password_file=" in done.stderr
        assert states(three, "mqtt") == {}
        secret.write_text("right\n")
        configure(three, mqtt=table | {"topic": "elsewhere"})
        pstored("outbox", "--retry", root=three)
        assert pstored("deliver", root=three, env=env).status == 75
        assert states(three, "mqtt") == {Item(IDS[0], 1): State.REFUSED}
        assert "refuses 'elsewhere': Not authorized" in pstored("outbox", root=three).stdout
        assert subscriber.messages == []
        configure(three, mqtt=table)
        pstored("outbox", "--retry", root=three)
        secret.chmod(0o644)
        assert "has a secret, and mode 0644: not used" in pstored("deliver", root=three, env=env).stderr
        secret.chmod(0o600)
        pstored("outbox", "--retry", root=three)
        assert pstored("deliver", root=three, env=env).status == 0
        subscriber.wait_for(3)
    assert sorted(subscriber.crashes()) == IDS


def test_tls(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """Who vouches for the server must be known, and the client shows its own certificate; else nothing is sent."""
    require(shutil.which("openssl"), "openssl")
    port, inner = free_port(), free_port()
    ours, other, board = (make_certificate(tmp_path, name) for name in ("ours", "other", "board"))
    settings = (
        ANONYMOUS,
        f"certfile {ours}",
        f"keyfile {ours.with_suffix('.key')}",
        f"cafile {board}",
        "require_certificate true",
        f"listener {inner} 127.0.0.1",
    )
    table = {"server": f"mqtts://localhost:{port}"}
    with mosquitto(tmp_path, *settings, port=port), subscribed(inner) as subscriber:
        for more, why in (
            ({}, "is not who it should be: self-signed certificate"),
            ({"ca_file": str(other)}, "is not who it should be: self-signed certificate"),
            ({"ca_file": str(tmp_path / "nowhere")}, "the certificates cannot be used: No such file"),
            ({"ca_file": str(ours)}, "mqtts://localhost"),  # it shows none of its own
            ({"server": f"mqtt://localhost:{port}"}, "closes the connection without an answer"),
        ):
            configure(three, delivery={"timeout_s": 5}, mqtt=table | more)
            done = pstored("deliver", root=three)
            assert done.status == 75
            assert why in done.stderr
            assert states(three, "mqtt") == {}
            pstored("outbox", "--retry", root=three)
        assert subscriber.messages == []
        configure(
            three,
            mqtt=table | {"ca_file": str(ours), "cert_file": str(board), "key_file": str(board.with_suffix(".key"))},
        )
        done = pstored("deliver", root=three)
        assert (done.status, done.stderr) == (0, "")
        subscriber.wait_for(3)
    assert subscriber.crashes() == IDS


# -- birth and will


def test_birth_and_will(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """While it delivers the board is online; afterwards, in order or cut off, it is not, and that is retained."""
    port = free_port()
    configure(three, mqtt={"server": url(port), "status_topic": "board/{machine_id}/status"})
    with mosquitto(tmp_path, ANONYMOUS, port=port), subscribed(port) as subscriber:
        assert pstored("deliver", root=three).status == 0
        messages = subscriber.wait_for(5)
        assert [m.payload if len(m.payload) < 10 else b"event" for m in messages] == [
            b"online",
            *[b"event"] * 3,
            b"offline",
        ]
        assert (
            messages[0].topic
            == messages[-1].topic
            == f"board/{(three.path / 'etc/machine-id').read_text().strip()}/status"
        )
        table = Mqtt(server=url(port), status_topic="s")
        sink = MqttSink(table, Setting(REPORTER, 10, {}))
        assert subscriber.wait_for(6)[-1].payload == b"online"
        sink._broker.drop()
        assert subscriber.wait_for(7)[-1].payload == b"offline"
        with subscribed(port, topic="s") as late:
            (kept,) = late.wait_for(1)
        assert (kept.payload, kept.retain) == (b"offline", True)


def test_a_birth_that_is_refused_keeps_no_crash_from_going(
    three: Root, pstored: Pstored, tmp_path: Path, passwords: list[str]
) -> None:
    """It is said."""
    port = free_port()
    (tmp_path / "secret").write_text("right")
    (tmp_path / "secret").chmod(0o600)
    configure(
        three,
        mqtt={
            "server": url(port),
            "username": "board",
            "password_file": str(tmp_path / "secret"),
            "topic": "ok/x",
            "status_topic": "elsewhere",
        },
    )
    with mosquitto(tmp_path, *passwords, port=port), subscribed(port, login=("reader", "right")) as subscriber:
        done = pstored("deliver", root=three)
        assert done.status == 0
        assert "refuses 'elsewhere': Not authorized" in done.stderr
        subscriber.wait_for(3)
    assert subscriber.crashes() == IDS


# -- servers that fail


@pytest.mark.parametrize(
    ("code", "state", "sent"),
    [
        (0x00, State.SENT, 3),
        (0x10, State.FAILED, 1),
        (0x80, State.FAILED, 1),
        (0x83, State.FAILED, 1),
        (0x87, State.REFUSED, 1),
        (0x90, State.REFUSED, 1),
        (0x91, State.FAILED, 1),
        (0x97, State.FAILED, 1),
        (0x99, State.REFUSED, 3),
    ],
)
def test_reason_codes_are_judged(three: Root, pstored: Pstored, code: int, state: State, sent: int) -> None:
    """Not now; never this one; never any: then the rest waits. As an acknowledgement, and where it can, on leaving."""
    for leaves in (False, True):
        shutil.rmtree(three.archive / "outgoing", ignore_errors=True)
        if leaves and code in (0x00, 0x10, 0x91):
            continue  # not there in a DISCONNECT, or no failure

        def answer(packet: Packet, leaves: bool = leaves) -> bytes | None:
            return leave(code) if leaves and packet.kind == PUBLISH else polite(code)(packet)

        with scripted(answer) as server:
            configure(three, mqtt={"server": url(server.port)})
            done = pstored("deliver", root=three)
            assert len(server.published()) == sent
        assert list(states(three, "mqtt").values()) == [state] * sent
        assert done.status == (75 if sent == 1 else 0)


def always(data: bytes | None) -> Callable[[Packet], bytes | None]:
    """Says the same to whatever comes; None: closes the connection."""
    return lambda _: data


def then(data: bytes | None) -> Callable[[Packet], bytes | None]:
    """Takes the connection, and then says the same."""
    return lambda packet: WELCOME if packet.kind == CONNECT else data


FAULTS = {
    "closes at once": always(None),
    "is silent": always(b""),
    "refuses": always(bytes((CONNACK << 4, 3, 0, 0x88, 0))),
    "is of MQTT 3.1.1": always(bytes((CONNACK << 4, 2, 0, 1))),
    "has no QoS 1": always(bytes((CONNACK << 4, 5, 0, 0, 2, 36, 0))),
    "is of HTTP": always(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "garbage": always(bytes(range(255, 0, -1))),
    "huge": always(b"\x30\xff\xff\xff\x7f" + b"x" * 10_000_000),
    "closes on publish": then(None),
    "never acknowledges": then(b""),
    "acknowledges another": then(bytes((PUBACK << 4, 2, 0xFF, 0xFE))),
    "acknowledges half": then(bytes((PUBACK << 4, 2, 0))),
    "acknowledges with rubbish": then(bytes((PUBACK << 4, 1, 0))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_server_does_each_crash_arrives(three: Root, pstored: Pstored, tmp_path: Path, fault: str) -> None:
    """None counts as delivered; the other sink has all; and the server that is well gets each, once by its id."""
    out = {"path": str(tmp_path / "out")}
    with scripted(FAULTS[fault]) as server:
        port = server.port
        configure(three, delivery={"timeout_s": 1, "retry_s": 0}, mqtt={"server": url(port)}, file=out)
        for _ in range(2):
            done = pstored("deliver", root=three)
            assert done.status == 75
            assert "mqtt://127.0.0.1" in done.stderr
            assert "bug" not in done.stderr
            assert "Traceback" not in done.stderr
    assert State.SENT not in states(three, "mqtt").values()
    assert State.REFUSED not in states(three, "mqtt").values()
    assert [line["crash"]["id"] for line in lines(tmp_path / "out")] == IDS
    done = pstored("deliver", root=three)
    assert "cannot be reached: Connection refused" in done.stderr
    with mosquitto(tmp_path, ANONYMOUS, port=port), subscribed(port) as subscriber:
        pstored("outbox", "--retry", root=three)
        assert pstored("deliver", root=three).status == 0
        subscriber.wait_for(3)
    assert sorted(subscriber.crashes()) == IDS
    assert len({event["id"] for event in subscriber.events()}) == 3


def test_a_server_that_sends_too_much_is_left() -> None:
    """A packet of 256 MiB is not taken into memory."""
    with scripted(FAULTS["huge"]) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(SinkError, match="closes the connection"):
            Broker(Address("127.0.0.1", server.port, False), login=Login("x"), context=None, timeout_s=10).connect()
        assert (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
        )  # KiB, of which most the server's
    assert MAX_RECEIVED < 1 << 20


WORDS = (
    WELCOME,
    b"\x20\x08\x00\x00\x05\x27\x00\x00\x10\x00",
    b"\x40\x04\x00\x01\x00\x00",
    b"\x40\x0b\x00\x01\x87\x07\x1f\x00\x04nope",
    b"\x30\x05\x00\x01a\x00x",
    b"\x62\x02\x00\x01",
    b"\xd0\x00",
    b"\xf0\x00",
    leave(0x95),
)
"""What a server may say, at some time or another."""


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Something like that."""
    data = bytearray(draw(st.sampled_from(WORDS)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 1))] = draw(st.binary(max_size=2))
        data = data or bytearray(b"\0")
    return bytes(data)


@given(first=st.just(WELCOME) | mutated(), others=st.lists(mutated(), min_size=1, max_size=3))
@settings(max_examples=60)
def test_any_answers(first: bytes, others: list[bytes]) -> None:
    """Said to be none, or one of MQTT's; the connection is left in any case."""
    with scripted(lambda packet: first if packet.kind == CONNECT else b"".join(others)) as server:
        broker = Broker(Address("127.0.0.1", server.port, False), login=Login("x"), context=None, timeout_s=0.1)
        with contextlib.suppress(SinkError):
            assert broker.publish(Message("a", b"1")).code in {GARBLED, *range(0x100)}
        broker.close()


def test_a_server_that_leaves_between_two_is_found_again() -> None:
    """A connection that has been closed meanwhile is not taken for one."""
    with scripted(polite()) as server:
        broker = Broker(Address("127.0.0.1", server.port, False), login=Login("x"), context=None, timeout_s=10)
        assert broker.publish(Message("a", b"1")).code == 0
        server.answer = lambda packet: leave(0x8B) if packet.kind == PUBLISH else polite()(packet)
        assert broker.publish(Message("a", b"2")).code == 0x8B
        server.answer = polite()
        assert broker.publish(Message("a", b"3")).code == 0
    time.sleep(0.1)
    with pytest.raises(SinkError, match="cannot be reached"):
        broker.publish(Message("a", b"4"))


def test_killed_at_every_step_nothing_is_lost(three: Root, tmp_path: Path) -> None:
    """The next round sends what is not noted as sent: each crash arrives, at most one of them twice, under one id."""
    archive, port = Archive(str(three.archive)), free_port()
    table = Mqtt(server=url(port))
    killed = 0
    with mosquitto(tmp_path, ANONYMOUS, port=port):
        for at in range(1, 200):
            shutil.rmtree(archive.outgoing, ignore_errors=True)
            bench = Bench(archive)
            with subscribed(port) as subscriber:
                status = run_killed(lambda b=bench: b.round(MqttSink(table, Setting(REPORTER, 10, {}))), at)  # type: ignore[misc]
                bench.round(MqttSink(table, Setting(REPORTER, 10, {})))
                subscriber.wait_for_crashes(3)
                events = Counter(event["id"] for event in subscriber.events())
            assert sorted(events) == [f"{one}.1" for one in IDS]
            assert sum(events.values()) <= 4
            assert bench.survey().waiting == ()
            if status == 0:
                break
            killed += 1
    assert killed > 12


def test_a_broker_that_is_killed_and_comes_back_gets_the_rest(three: Root, pstored: Pstored, tmp_path: Path) -> None:
    """One a minute: the first arrives, then the server is gone for a while."""
    port = free_port()
    configure(three, delivery={"retry_s": 0, "per_minute": 1}, mqtt={"server": url(port)})
    got = []
    for number in range(3):
        with mosquitto(tmp_path, ANONYMOUS, port=port), subscribed(port) as subscriber:
            pstored("outbox", "--retry", root=three)
            pstored("deliver", root=three)
            subscriber.wait_for(1)
            got += subscriber.crashes()
        pstored("outbox", "--retry", root=three)
        done = pstored("deliver", root=three)
        assert ("Connection refused" in done.stderr) is (number < 2)
    assert got == IDS


# -- configuration


def without_paho(root: Root, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program where paho is not installed."""
    code = "import sys\nsys.modules['paho'] = None\nfrom pstored.cli import run\nsys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "--root", str(root.path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)


def test_without_the_extra_nothing_is_lost(three: Root, pstored: Pstored) -> None:
    """Said, with what to do; the crashes wait. check-config says it, too."""
    configure(three, mqtt={"server": "mqtt://127.0.0.1:1"})
    done = without_paho(three, "deliver")
    assert done.returncode == 75
    assert "paho-mqtt is not installed, which [mqtt] needs" in done.stderr
    assert "pip install 'pstored[mqtt]'" in done.stderr
    assert states(three, "mqtt") == {}
    checked = without_paho(three, "check-config")
    assert checked.returncode == 78
    assert "problem: [mqtt] needs paho-mqtt, which is not installed" in checked.stdout
    assert pstored("check-config", root=three).status == 0


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mqtt://h", Address("h", 1883, False)),
        ("mqtts://h/", Address("h", 8883, True)),
        ("mqtts://[::1]:1", Address("::1", 1, True)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """Ports as usual; IPv6 in brackets."""
    assert split_address(text) == address
    assert split_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "http://h",
        "mqtt://",
        "mqtt://h:0",
        "mqtt://h:99999",
        "mqtt://h:x",
        "mqtt://a b",
        "mqtt://h/t",
        "mqtt://u:p@h",
    ],
)
def test_what_is_no_address_is_said(text: str) -> None:
    """And a password in it is not repeated."""
    with pytest.raises(SinkError) as caught:
        split_address(text)
    assert "u:p" not in str(caught.value)


def test_patterns_are_filled() -> None:
    """What would make another level of a topic does not; what is not known is; what there is not is an error."""
    fields = {"a": "x/+#\ty z", "b": None, "c": "0" * 500}
    assert fill("{a}/{b}", fields, key="k") == "x____y_z/unknown"
    assert len(fill("{c}", fields, key="k")) == 200
    with pytest.raises(SinkError, match=r"k has \{d\}, which is none of \{a\}, \{b\}, \{c\}"):
        fill("{d}", fields, key="k")
    for topic in ("", "a/#", "+", "a\0", "x" * 65536):
        with pytest.raises(SinkError, match="is no topic"):
            require_topic(topic, key="k")
    assert require_topic("/a//b", key="k") == "/a//b"


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({}, "server in [mqtt] must be set"),
        ({"server": "mqtt://127.0.0.1:1", "client_id": "{serial}"}, "client_id in [mqtt] has {serial}"),
        ({"server": "mqtt://127.0.0.1:1", "status_topic": "#"}, "status_topic in [mqtt] = '#' is no topic"),
        ({"server": "mqtt://127.0.0.1:1", "password_file": "x"}, "there is no credential 'x'"),
    ],
)
def test_a_table_that_cannot_be_used_is_said(three: Root, pstored: Pstored, table: dict[str, Any], why: str) -> None:
    """And nothing is lost."""
    configure(three, mqtt=table)
    done = pstored("deliver", root=three)
    assert done.status == 75
    assert why in done.stderr
    assert states(three, "mqtt") == {}
