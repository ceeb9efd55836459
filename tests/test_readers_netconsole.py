# SPDX-License-Identifier: Apache-2.0
"""netconsole: from datagrams, in any order and from anybody, to the crashes of their senders."""

import random
import resource
from collections.abc import Callable, Iterable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture, kernels
from fake_pstore import netconsole as fake
from fake_pstore.klog import Message
from fake_pstore.machine import run
from fake_pstore.model import BootTruth
from fake_pstore.model import Options as Made
from fake_pstore.scenarios import SCENARIOS
from pstored.logs import Log
from pstored.readers.memory import Held
from pstored.readers.model import Remark, Salvaged, Sender
from pstored.readers.netcapture import READER
from pstored.readers.netconsole import find_host, parse_extended
from pstored.readers.senders import MAX_STREAMS, Datagram, Senders
from tests import readers
from tests.conftest import forked

NOW = 1_795_407_862.5
LONG = "long: " + "".join(f"{n:04d} " for n in range(500))


def boots(scenario: str, seed: int = 0) -> list[BootTruth]:
    """What happened to the boots of a scenario."""
    made = Made(backend="ramoops", era=kernels.ERAS[kernels.default_era("ramoops")], seed=seed)
    return run(SCENARIOS[scenario], made).boots


def sent(truth: BootTruth, *, extended: bool, source: str = "10.0.0.5", **options: object) -> list[fake.Datagram]:
    """What a boot sends, each datagram at the time of its message."""
    found = []
    for number, message in enumerate(truth.messages):
        send = partial(fake.extended, sequence=number) if extended else fake.plain
        data = send(message, **options)  # type: ignore[arg-type]
        found += [fake.Datagram(truth.began + message.time_us / 1e6, source, d) for d in data]
    return found


def receive(datagrams: Iterable[fake.Datagram]) -> tuple[list[Salvaged], list[Remark]]:
    """The crashes, and what was said."""
    senders = Senders()
    found: list[Salvaged | Remark] = []
    for d in datagrams:
        found += senders.feed(Datagram(round(d.seconds * 1e6) * 1000, d.source, d.data))
    found += senders.end()
    return [f for f in found if isinstance(f, Salvaged)], [f for f in found if isinstance(f, Remark)]


def wanted(truth: BootTruth, *, levels: bool) -> list[bytes]:
    """The lines of a boot's console."""
    found = []
    for m in truth.messages:
        prefix = (b"<%d>" % m.level if levels else b"") + b"[%5d.%06d] " % divmod(m.time_us, 10**6)
        found += [prefix + line for line in m.text.encode().split(b"\n")]
    return found


# -- real captures


@pytest.mark.parametrize("name", ["lab-netconsole-plain", "lab-netconsole-ext"])
def test_real_capture_is_the_crash_of_the_serial_log(name: str) -> None:
    """One crash, equal to that of the serial console of the same run: title, signature, end, and every line of it."""
    taken = capture.load(name)
    data = taken.raw("datagrams.jsonl")
    assert readers.kind_of(data) == "netconsole"
    (record,), _ = readers.read("netconsole", data)
    (serial,), _ = readers.read("serial", taken.serial("crash"))
    ours, theirs = Log(record.data), Log(serial.data)
    assert record.name == "console-netconsole-1"
    assert ours.distinctive == theirs.distinctive
    assert (ours.kernel.release, ours.kernel.banner) == (theirs.kernel.release, theirs.kernel.banner)
    for one, two in zip(ours.reports, theirs.reports, strict=True):
        assert (one.title, one.severity, one.strict, one.call_trace) == (
            two.title,
            two.severity,
            two.strict,
            two.call_trace,
        )
    assert 0 < record.mtime_ns / 1e9 - taken.crash_boot_time < 15
    assert record.damage == ()


# -- the wire


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("callers", [False, True])
def test_text_is_what_was_logged(extended: bool, callers: bool) -> None:
    """Of both formats; a crash is told with its sender and its time."""
    (truth,) = boots("panic")
    (record,), remarks = receive(sent(truth, extended=extended, callers=callers))
    lines = wanted(truth, levels=extended)
    if callers:
        assert len(record.data.splitlines()) == len(lines)
        assert b"][   T1] " in record.data or b"][    T1] " in record.data
    else:
        assert record.data.splitlines() == lines
    panic = next(m for m in truth.messages if "Kernel panic" in m.text)
    assert record.mtime_ns / 1e9 == pytest.approx(truth.began + panic.time_us / 1e6, abs=1e-5)
    assert (record.notes, record.damage, record.sender) == ((), (), Sender("10.0.0.5"))
    assert remarks == [Remark("1 boot, 1 with a crash")]


@pytest.mark.parametrize("release", ["", "6.12.1-rc1", "6.12.0"])
@pytest.mark.parametrize("text", [LONG, "back\\slash \t tab \x1b[31m", "two\nlines", "ends with \\x", ""])
def test_extended_message_comes_out_as_it_was_logged(release: str, text: str) -> None:
    """Escaped, in pieces, with the kernel's release before it and a user's data behind."""
    message = Message(6, 12_345_678, "T1", text)
    pieces = fake.extended(message, 416, release=release, data=["rack=a7", "hostname=web3", f"x={'y' * 200}"])
    assert (len(pieces) > 1) == (text is LONG)
    panic = fake.extended(Message(0, 12_400_000, "T1", "Kernel panic - not syncing: x"), 417, release=release)
    (record,), _ = receive(fake.Datagram(NOW, "::1", d) for d in [*pieces, *panic])
    shown = b"".join(b"<6>[   12.345678] " + line + b"\n" for line in text.encode().split(b"\n"))
    assert record.data == shown + b"<0>[   12.400000] Kernel panic - not syncing: x\n"
    assert record.sender == Sender("::1", "web3")
    part = parse_extended(pieces[0])
    assert part is not None
    assert part.release == (release.encode() or None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[    1.000000] 6,1,2,-;x\n",
        b"6,1,2,-",
        b"6,1,-;x",
        b"a,b,6,1,2,-;x",
        b"6,1,2,-\n;x",
        b",6,1,2,-;x",
        b"x" * 70 + b",6,1,2,-;x",
        b"6," + b"1" * 21 + b",2,-;x",
    ],
)
def test_what_is_not_extended(data: bytes) -> None:
    """Is text, whatever it is."""
    assert parse_extended(data) is None


@pytest.mark.parametrize(
    ("data", "host"),
    [
        (b"30,5,1,-;systemd[1]: Hostname set to <web3.example.org>.\n", "web3.example.org"),
        (b"[    1.000000] systemd[1]: Set hostname to <web3>.\n", "web3"),
        (b"6,5,1,-;x\n hostname=web3\n", "web3"),
        (b"6,5,1,-;hostname=web3\n", None),
        (b"6,5,1,-;Hostname set to <web\x1b3>\n", None),
        (b"6,5,1,-;Hostname set to <" + b"x" * 70 + b">\n", None),
        (b"6,5,1,-;x\n", None),
    ],
)
def test_host_name_is_taken_from_the_text(data: bytes, host: str | None) -> None:
    """Where it says it in so many words; nobody is asked."""
    assert find_host(data) == host


# -- order, loss


def test_order_is_that_of_the_numbers() -> None:
    """Datagrams that overtake each other; some come twice."""
    (truth,) = boots("panic")
    datagrams = sent(truth, extended=True)
    rng = random.Random(1)
    order = sorted(range(len(datagrams)), key=lambda n: datagrams[n].seconds + rng.random() / 50)
    mixed = [datagrams[n] for n in order]
    mixed[100:100] = mixed[90:100]
    (record,), _ = receive(mixed)
    assert record.data.splitlines() == wanted(truth, levels=True)
    late = sum(n < max(order[:at], default=0) for at, n in enumerate(order))
    assert record.notes == (
        f"{late} messages put where they belong: they came late",
        "10 messages left out: they came twice",
    )
    assert record.damage == ()


def test_missing_numbers_are_said_but_are_no_proof_of_loss() -> None:
    """What is not for consoles is not sent."""
    (truth,) = boots("panic")
    datagrams = sent(truth, extended=True)
    (record,), _ = receive(d for n, d in enumerate(datagrams) if n % 10)
    (note,) = record.notes
    assert note == f"{(len(datagrams) - 1) // 10} messages lost on the way, or not for consoles: numbers are missing"
    assert record.damage == ()


def test_loss_that_is_proven_stands_in_the_text() -> None:
    """The kernel counts what it sends."""
    (truth,) = boots("panic")
    datagrams = []
    for number, message in enumerate(truth.messages):
        data = fake.extended(message, 2 * number, msgid=(number + 2**32 - 5) % 2**32)
        datagrams += [fake.Datagram(NOW, "a", d) for d in data]
    del datagrams[20:25], datagrams[60]
    (record,), _ = receive(datagrams)
    assert record.damage == ("6 messages lost on the way",)
    assert record.data.count(b"--- pstored: 5 messages are lost here ---\n") == 1
    assert record.data.count(b"--- pstored: 1 messages are lost here ---\n") == 1
    assert record.notes == ()


def test_piece_that_did_not_come() -> None:
    """The rest of its message is there, and said to be the rest."""
    pieces = fake.extended(Message(6, 1_000_000, "T1", LONG), 1)
    panic = fake.extended(Message(0, 2_000_000, "T1", "Kernel panic - not syncing: x"), 2)
    (record,), _ = receive(fake.Datagram(NOW, "a", d) for d in [*pieces[:1], *pieces[2:], *panic])
    lost = len(parse_extended(pieces[1]).body)  # type: ignore[union-attr]
    assert b"--- pstored: %d bytes of this message are missing ---\n" % lost in record.data
    assert record.damage == ("1 message without some of their pieces",)
    assert b"long: 0000 0001" in record.data


def test_plain_text_in_pieces() -> None:
    """The kernel cuts after 1000 bytes, in the middle of a line."""
    (truth,) = boots("panic")
    message = Message(6, 1, "T1", LONG)
    assert len(fake.plain(message)) == 3
    whole = truth._replace(messages=(message, *truth.messages))
    (record,), _ = receive(sent(whole, extended=False))
    assert record.data.splitlines() == wanted(whole, levels=False)


def test_plain_line_without_an_end_is_ended_by_the_next() -> None:
    """A continuation that never came, or was lost."""
    lines = [b"[    1.000000] one", b"[    2.000000] Kernel panic - not syncing: x\n"]
    (record,), _ = receive(fake.Datagram(NOW, "a", d) for d in lines)
    assert record.data == b"[    1.000000] one\n[    2.000000] Kernel panic - not syncing: x\n"


# -- boots, senders


@pytest.mark.parametrize("extended", [False, True])
def test_boots_are_told_apart(extended: bool) -> None:
    """Each crash is a record of its own; of an orderly boot there is none."""
    truths = boots("two-boots") + boots("shutdown", seed=1) + boots("panic", seed=2)
    datagrams = [d for truth in truths for d in sent(truth, extended=extended)]
    records, remarks = receive(datagrams)
    assert [r.name for r in records] == [f"console-netconsole-{n}" for n in (1, 2, 4)]
    assert remarks == [Remark("4 boots, 3 with a crash")]
    for record, truth in zip(records, [truths[0], truths[1], truths[3]], strict=True):
        assert record.data.splitlines() == wanted(truth, levels=extended)
        assert record.notes == ()


def test_boot_that_sends_only_its_end() -> None:
    """The module was loaded late: numbers go back, but not to the beginning."""
    first, second = boots("two-boots")
    datagrams = sent(first, extended=True)[-30:] + sent(second, extended=True)[-28:]
    records, _ = receive(datagrams)
    assert len(records) == 2
    assert [r.data.splitlines()[-1] for r in records] == [wanted(t, levels=True)[-1] for t in (first, second)]


def test_senders_at_once() -> None:
    """Twenty machines crash in the same second, in both formats; nothing of one gets into another's."""
    fleet = {f"10.0.0.{n}": boots("panic", seed=n)[0] for n in range(20)}
    datagrams = [d for n, (a, t) in enumerate(fleet.items()) for d in sent(t, extended=n % 2 == 0, source=a)]
    rounds = sorted(datagrams, key=lambda d: d.seconds - fleet[d.source].began)
    records, remarks = receive(rounds)
    assert remarks == [Remark("20 boots, 20 with a crash")]
    assert sorted(r.sender.address for r in records if r.sender) == sorted(fleet)
    assert len({r.name for r in records}) == 20
    for record in records:
        assert record.sender is not None
        lines = record.data.splitlines()
        assert lines == wanted(fleet[record.sender.address], levels=lines[0].startswith(b"<"))


def test_more_senders_than_are_followed() -> None:
    """A crash of one that is given up is told all the same."""
    crash = fake.Datagram(NOW, "victim", b"[    1.000000] Kernel panic - not syncing: x\n")
    flood = [fake.Datagram(NOW, f"spoofed {n}", b"[    1.000000] x\n") for n in range(3 * MAX_STREAMS)]
    records, remarks = receive([crash, *flood])
    assert [r.sender for r in records] == [Sender("victim")]
    assert remarks[0].text.startswith(f"more than {MAX_STREAMS} senders: {2 * MAX_STREAMS + 1} times")


# -- files

FORMATS: dict[str, Callable[[list[fake.Datagram]], bytes]] = {
    "json": fake.json_lines,
    "pcap": fake.pcap,
    "pcap-big-nano": lambda d: fake.pcap(d, order=">", nano=True),
    "pcapng": fake.pcapng,
    "pcapng-big-nano": lambda d: fake.pcapng(d, order=">", nano=True),
    **{f"link-{n}": lambda d, n=n: fake.pcap(d, link=n) for n in (0, 12, 14, 101, 108, 113, 276)},  # type: ignore[misc]
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("extended", [False, True])
def test_files(name: str, extended: bool) -> None:
    """Every form gives the crashes of both senders, one over IPv6, with their times."""
    (one,), (two,) = boots("panic"), boots("panic", seed=1)
    datagrams = sent(one, extended=extended) + sent(two, extended=extended, source="2001:db8::7")
    data = FORMATS[name](datagrams)
    assert readers.kind_of(data) == "netconsole"
    records, remarks = readers.read("netconsole", data)
    assert [r.sender for r in records] == [Sender("10.0.0.5"), Sender("2001:db8::7")]
    assert [r.data.splitlines() for r in records] == [wanted(t, levels=extended) for t in (one, two)]
    for record, truth in zip(records, (one, two), strict=True):
        assert 0 < record.mtime_ns / 1e9 - truth.began < 100
    assert [r.is_damage for r in remarks] == [False]


def test_text_of_extended_datagrams() -> None:
    """What nc writes: neither who sent it, nor when."""
    (truth,) = boots("panic")
    data = b"".join(d.data for d in sent(truth, extended=True, data=["hostname=web3"]) if b"ncfrag" not in d.data)
    assert readers.kind_of(data) == "netconsole"
    (record,), _ = readers.read("netconsole", data)
    assert record.data.splitlines() == wanted(truth, levels=True)
    assert (record.sender, record.mtime_ns) == (Sender("", "web3"), 0)


def test_other_packets_are_passed_over() -> None:
    """Of a capture only what goes to the port, and what is extended, counts."""
    (truth,) = boots("panic")
    plain, extended = sent(truth, extended=False), sent(truth, extended=True, source="10.0.0.6")
    capture_ = fake.pcap([*plain, *extended], port=6670)
    assert [r.sender for r in readers.read("netconsole", capture_)[0]] == [Sender("10.0.0.6")]
    everything, _ = readers.read("netconsole", capture_, parameters={"netconsole.port": "6670"})
    assert len(everything) == 2
    assert not READER.recognize(Held(fake.pcap(plain, port=53)))


@pytest.mark.parametrize("name", ["pcap", "pcapng"])
def test_capture_that_was_cut(name: str) -> None:
    """What is there counts; that it is not all is said."""
    (truth,) = boots("panic")
    data = FORMATS[name](sent(truth, extended=False))[:-7]
    (record,), remarks = readers.read("netconsole", data)
    assert record.data.splitlines() == wanted(truth, levels=False)[:-1]
    assert [r.is_damage for r in remarks] == [False, True]
    assert "within a packet" in remarks[1].text


def test_lines_that_are_no_datagrams() -> None:
    """Are counted, and the rest is read."""
    (truth,) = boots("panic")
    data = fake.json_lines(sent(truth, extended=False))
    junk = b'{"data": 5}\nnonsense\n[]\n{"t": -1, "data": ""}\n{"t": true, "data": ""}\n{"data": "\\u1234"}\n'
    (record,), remarks = readers.read("netconsole", data + junk)
    assert record.data.splitlines() == wanted(truth, levels=False)
    assert remarks[-1] == Remark("6 lines are no datagrams", is_damage=True)


@pytest.mark.parametrize("data", [b"", b"{}\n", b"\xa1\xb2\xc3\xd4", b"\x0a\x0d\x0d\x0a" + bytes(20), b"a,b,c;d\n" * 9])
def test_other_files_are_not_recognized(data: bytes) -> None:
    """And give no record."""
    assert not READER.recognize(Held(data))
    assert readers.read("netconsole", data)[0] == []


# -- whatever comes

FIELDS = st.sampled_from((0, 1, 2, 63, 64, 65, 2**31, 2**32 - 1, 2**64 - 1)) | st.integers(0, 300)
HEADERS = st.tuples(
    st.sampled_from((b"", b"6.4.0,")), FIELDS, FIELDS, st.sampled_from((b"-", b"c", b"")), FIELDS, FIELDS, st.booleans()
).map(lambda f: f[0] + b"6,%d,%d,%b%b;" % (f[1], f[2], f[3], b",ncfrag=%d/%d" % (f[4], f[5]) if f[6] else b""))
BODIES = st.sampled_from(
    (b"Kernel panic - not syncing: x\n", b"x\n msgid=4294967295\n", b"\\x0a\\x", b"[    1.000000] BUG: x", b"\n", b"")
) | st.binary(max_size=30)
HOSTILE = st.lists(
    st.tuples(st.sampled_from(("a", "b")), (HEADERS | st.just(b"")), BODIES).map(
        lambda t: fake.Datagram(NOW, t[0], t[1] + t[2])
    ),
    max_size=60,
)


@given(HOSTILE)
def test_any_datagrams_give_crashes_and_a_sentence(datagrams: list[fake.Datagram]) -> None:
    """Never an exception; whatever is given tells of a crash."""
    records, remarks = receive(datagrams)
    assert remarks
    assert all(Log(r.data).event is not None for r in records)


@given(st.integers(0, 2**32), st.sampled_from(sorted(FORMATS)))
def test_damaged_files_are_read_as_far_as_possible(seed: int, name: str) -> None:
    """Bytes changed, cut off, moved."""
    datagrams = [fake.Datagram(5.0, "10.0.0.5", b"[    1.000000] Kernel panic - not syncing: x\n")] * 3
    readers.never_fails("netconsole", lambda _: FORMATS[name](datagrams), seed)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: fake.Datagram(NOW, f"{n}", b"[    1.000000] BUG: x\n"),  # spoofed senders
        lambda n: fake.Datagram(NOW, "a", b"6,%d,%d,-,ncfrag=0/60000;" % (n, n) + b"x" * 900),  # pieces of nothing
        lambda n: fake.Datagram(NOW, "a", b"6,5,5,-,ncfrag=%d/60000;x" % (n % 60000)),  # too many pieces
        lambda n: fake.Datagram(NOW, f"{n % 60}", b"6,%d,%d,-;" % (n, n) + b"x" * 8_000),  # all that can be held back
        lambda n: fake.Datagram(NOW, "a", b"6,%d,%d,-;" % (10**9 - n, 10**9 - n)),  # each late
        lambda n: fake.Datagram(NOW, "a", b"6,%d,%d,-;" % (n % 2 * 10**9, n % 2 * 10**9)),  # boots without end
        lambda n: fake.Datagram(NOW, "a", b"x" * (1000 + n % 2)),  # one line without end
        lambda n: fake.Datagram(NOW, "a", b"6,%d,%d,-;" % (n, n) + b"\\x0a" * 100),  # lines of nothing
    ],
)
def test_floods_take_bounded_memory_and_time(make: Callable[[int], fake.Datagram]) -> None:
    """Twenty thousand datagrams made to hurt: 150 MiB, and less than a millisecond each."""

    def cost() -> tuple[int, float]:
        before = resource.getrusage(resource.RUSAGE_SELF)
        receive(make(n) for n in range(20_000))
        after = resource.getrusage(resource.RUSAGE_SELF)
        return after.ru_maxrss - before.ru_maxrss, after.ru_utime - before.ru_utime

    grown, seconds = forked(cost)
    assert grown < 150 * 1024
    assert seconds < 20
