# SPDX-License-Identifier: Apache-2.0
"""What the listener keeps of its senders: a crash and what came before it, whatever the others send."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.daemon.senders import (
    LONGEST_S,
    MAX_BYTES,
    MAX_CRASH,
    MAX_SENDER,
    MAX_SENDERS,
    MOST,
    OVERHEAD,
    Crash,
    Fleet,
)
from pstored.daemon.wakeups import REPORTS

PANIC = b"[   12.000000] Kernel panic - not syncing: x\n"
OOPS = b"[   11.000000] BUG: kernel NULL pointer dereference, address: 0\n"


def fleet(lines: int = 100) -> Fleet:
    """One whose crashes are over after 5 s of silence."""
    return Fleet(lines=lines, quiet_s=5)


def feed(found: Fleet, address: str, data: Iterable[bytes], now: float = 0.0) -> None:
    """Datagrams of one sender at one moment."""
    for piece in data:
        found.take(address, 10**18, piece, now)


def chatter(count: int, first: int = 0) -> list[bytes]:
    """Messages of no interest."""
    return [b"[    1.%06d] usb 1-1: new device\n" % n for n in range(first, first + count)]


def texts(crash: Crash) -> list[bytes]:
    """What was sent."""
    return [data for _, data in crash.datagrams]


def test_crash_is_told_once_its_sender_is_quiet() -> None:
    """With the lines before it, as many as are asked for, and all behind it."""
    found = fleet(lines=10)
    feed(found, "a", chatter(50))
    assert found.due() is None
    feed(found, "a", [OOPS], 100)
    feed(found, "a", chatter(300), 103)
    assert found.due() == 108
    found.finish(107.9)
    assert not found.crashes
    found.finish(108)
    (crash,) = found.crashes
    assert (crash.address, crash.host) == ("a", "")
    assert texts(crash) == [*chatter(10, 40), OOPS, *chatter(300)]
    assert found.due() is None


def test_next_crash_of_a_boot_has_the_end_of_the_one_before() -> None:
    """So that the two can be known to be of one boot."""
    found = fleet()
    feed(found, "a", [OOPS])
    found.finish(10)
    feed(found, "a", [PANIC], 20)
    found.finish(30)
    assert [texts(crash) for crash in found.crashes] == [[OOPS], [OOPS, PANIC]]


@pytest.mark.parametrize(
    "first",
    [
        b"[    0.000000] Linux version 6.1.0\n",
        b"5,0,0,-;Linux version 6.1.0\n",
        b"[    3.000000] late\n",
        b"6.1.0,6,400,3000000,-;late\n",
    ],
)
def test_next_boot_ends_a_crash(first: bytes) -> None:
    """At once, and nothing of the one gets into the other."""
    found = fleet()
    extended = b"," in first
    feed(found, "a", [b"0,450,12000000,-;Kernel panic - not syncing: x\n" if extended else PANIC])
    feed(found, "a", [b"0,451,12000001,-;Rebooting\n" if extended else b"[   12.000001] Rebooting\n"], 1)
    feed(found, "a", [first], 2)
    (crash,) = found.crashes
    assert len(crash.datagrams) == 2
    feed(found, "a", [PANIC], 3)
    found.finish(10)
    assert texts(found.crashes[1]) == [first, PANIC]


def test_banner_begins_the_lines_anew() -> None:
    """What an earlier boot has sent stands before no crash of this one."""
    found = fleet()
    feed(found, "a", [*chatter(20), b"[    0.000000] Linux version 6.1.0\n", PANIC])
    found.finish(10)
    assert len(found.crashes[0].datagrams) == 2


def test_sender_that_never_pauses_is_told_all_the_same() -> None:
    """In pieces of a minute."""
    found = fleet()
    for second in range(100):
        feed(found, "a", [OOPS if second == 0 else chatter(1)[0]], second)
        found.finish(second)
    (crash,) = found.crashes
    assert len(crash.datagrams) == LONGEST_S + 1


def test_sender_that_sends_too_much_is_told_in_pieces() -> None:
    """No piece is larger than a crash may be."""
    found = fleet()
    feed(found, "a", [OOPS, *([b"x" * 1000] * 3000)])
    assert found.crashes
    assert all(crash.size <= MAX_CRASH + 1000 + OVERHEAD for crash in found.crashes)


def test_oops_in_a_loop_is_told_some_times_but_a_panic_still_is() -> None:
    """Until the machine boots anew."""
    found = fleet()
    for n in range(100):
        feed(found, "a", [OOPS], 10 * n)
        found.finish(10 * n + 9)
    assert len(found.crashes) == MOST
    feed(found, "a", [PANIC], 2000)
    found.finish(2010)
    assert len(found.crashes) == MOST + 1
    feed(found, "a", [b"Linux version 6.1.0\n", OOPS], 3000)
    found.finish(3010)
    assert len(found.crashes) == MOST + 2


def test_host_name_is_kept_from_long_ago() -> None:
    """It is said once, early in a boot."""
    found = fleet(lines=5)
    feed(found, "a", [b"[    2.000000] systemd[1]: Hostname set to <web3>.\n", *chatter(100), PANIC])
    feed(found, "b", [b"6,1,2,-;x\n hostname=db1\n", PANIC])
    found.finish(10)
    assert [(c.address, c.host) for c in found.crashes] == [("a", "web3"), ("b", "db1")]


def test_warnings_are_no_crashes() -> None:
    """The machine goes on."""
    found = fleet()
    feed(found, "a", [b"[    1.000000] WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2\n", *chatter(5)])
    assert found.due() is None


def test_all_is_told_at_the_end() -> None:
    """Though nobody is quiet yet."""
    found = fleet()
    for n in range(5):
        feed(found, str(n), [PANIC])
    found.finish_all()
    assert len(found.crashes) == 5
    assert found.due() is None


# -- floods


def held(found: Fleet) -> int:
    """Bytes by another count than its own."""
    return sum(len(d) + OVERHEAD for s in found.senders.values() for _, d in s.ring)


def test_flood_of_senders() -> None:
    """The oldest make room; whoever has crashed is told before."""
    found = fleet()
    feed(found, "victim", [PANIC])
    for n in range(5 * MAX_SENDERS):
        feed(found, f"spoofed {n}", chatter(1))
    assert len(found.senders) == MAX_SENDERS
    assert found.given_up == 4 * MAX_SENDERS + 1
    assert [c.address for c in found.crashes] == ["victim"]
    assert found.size == held(found)


def test_flood_of_bytes() -> None:
    """One sender has its share, all of them theirs."""
    found = fleet(lines=10**6)
    feed(found, "a", [b"x" * 1000] * 5000)
    assert found.size <= MAX_SENDER
    for n in range(1000):
        feed(found, str(n), [b"x" * 1000] * 300)
    assert MAX_BYTES // 2 < found.size <= MAX_BYTES
    assert found.size == held(found)


DATA = st.sampled_from(
    (
        PANIC,
        OOPS,
        b"[    0.000000] Linux version 6\n",
        b"6,1,99000000,-;x",
        b"6,9,1000000,-;x",
        b"x Hostname set to <a>",
        b"",
        b"\xff" * 900,
    )
)
EVENTS = st.lists(st.tuples(st.sampled_from("abc"), DATA | st.binary(max_size=40), st.floats(0, 9)), max_size=60)


@given(EVENTS, st.integers(1, 5))
def test_any_datagrams(events: list[tuple[str, bytes, float]], lines: int) -> None:
    """Sizes add up, nobody has more lines than are kept, and each crash has a line that may begin one."""
    found = fleet(lines=lines)
    now = 0.0
    for address, data, pause in events:
        now += pause
        found.take(address, 10**18, data, now)
        found.finish(now)
        assert found.size == held(found)
        assert all(len(s.ring) <= lines or s.since is not None for s in found.senders.values())
        due = found.due()
        assert due is None or due > now
    found.finish_all()
    for crash in found.crashes:
        assert crash.size == sum(len(d) + OVERHEAD for d in texts(crash))
        assert any(REPORTS.search(data) for data in texts(crash))
