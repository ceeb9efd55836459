# SPDX-License-Identifier: Apache-2.0
"""The listener as a process: real sockets in, crashes in the archive out."""

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_pstore import capture
from pstored.daemon.receive import open_socket
from pstored.daemon.senders import MAX_SENDERS, Fleet
from pstored.errors import PstoredError
from tests.conftest import REPOSITORY, MakeRoot, Pstored, Root, require
from tests.test_watch import Start, start

__all__ = ["start"]

PANIC = b"[   12.000000] Kernel panic - not syncing: x\n"
PATIENCE_S = 60
SPOOL = "var/lib/pstored-netconsole"


class Listener:
    """``pstored netconsole`` on a port of its own."""

    def __init__(self, root: Root, *options: str, env: dict[str, str] | None = None) -> None:
        self.root = root
        self.port = free_port()
        listen = options or ("--listen", f"127.0.0.1:{self.port}")
        command = [sys.executable, "-m", "pstored", "--root", str(root.path), "netconsole", "--quiet", "0.3", *listen]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})}
        self.output = root.path / "output"
        with self.output.open("wb") as f:
            self.process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=f, stderr=f)

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self.output.read_text(errors="backslashreplace")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something to become true."""
        until = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, f"it has ended: {self.said}"
            assert time.monotonic() < until, f"no {what}: {self.said}"
            time.sleep(0.02)

    def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kilobytes(self) -> int:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def listening(root: Root, *options: str, env: dict[str, str] | None = None) -> Iterator[Listener]:
    """A listener that is ready, and is gone in the end."""
    found = Listener(root, *options, env=env)
    try:
        found.wait_for(lambda: "listening on" in found.said, "listener")
        yield found
    finally:
        found.process.kill()
        found.process.wait()


def send(port: int, datagrams: Iterable[bytes], *, source: str = "127.0.0.1", to: str = "127.0.0.1") -> None:
    """What a kernel at that address would send."""
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        for data in datagrams:
            sender.sendto(data, (to, port))


def captured(name: str) -> list[bytes]:
    """The datagrams of a real crash."""
    lines = capture.load(name).raw("datagrams.jsonl").splitlines()
    return [json.loads(line)["data"].encode("latin-1") for line in lines]


def has_ipv6() -> bool:
    """Whether the loopback has it."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as found:
            found.bind(("::1", 0))
    except OSError:
        return False
    return True


def crashes(root: Root) -> list[dict[str, Any]]:
    """All reports, oldest first."""
    return [root.load(f"crashes/{path.name}/crash.json") for path in root.crashes() if (path / "crash.json").exists()]


@pytest.mark.parametrize("name", ["lab-netconsole-plain", "lab-netconsole-ext"])
def test_real_crash(name: str, root: MakeRoot, pstored: Pstored) -> None:
    """Received, archived and analyzed: one crash, of its sender, of no boot of this machine."""
    made = root()
    with listening(made) as listener:
        send(listener.port, captured(name))
        listener.wait_for(lambda: "Kernel panic: sysrq triggered crash" in listener.said, "crash")
        listener.wait_for(lambda: not os.listdir(made.path / SPOOL), "end of the import")
        assert listener.stop() == 0
    (crash,) = crashes(made)
    assert (crash["title"], crash["severity"]) == ("Kernel panic: sysrq triggered crash", "panic")
    assert crash["sender"] == {"address": "127.0.0.1", "host": None}
    assert (crash["boot"]["id"], crash["machine_id"]) == (None, None)
    assert crash["boot"]["evidence"] == ["it came over the net, and bears no stamp (pstored: boot <boot-id>)"]
    assert crash["complete"]
    assert not crash["time"]["doubtful"]
    assert "127.0.0.1" in pstored("list", root=made).stdout
    assert "sender  127.0.0.1\n" in pstored("show", root=made).stdout


def test_senders_at_once_over_both_protocols(root: MakeRoot) -> None:
    """Eight machines, their messages mixed; one over IPv6; one that does not crash."""
    require(has_ipv6(), "IPv6 on the loopback: sysctl net.ipv6.conf.lo.disable_ipv6=0")
    made = root()
    port, other = free_port(), free_port()
    sources = [f"127.0.0.{n}" for n in range(2, 9)]
    with listening(made, "--listen", f"127.0.0.1:{port}", "--listen", f"[::1]:{other}") as listener:
        assert f"listening on 127.0.0.1:{port}, [::1]:{other}\n" in listener.said
        for data in captured("lab-netconsole-plain"):
            for source in sources:
                send(port, [data], source=source)
            send(other, [data], source="::1", to="::1")
        send(port, [b"[    1.000000] all is well\n"], source="127.0.0.99")
        listener.wait_for(lambda: len(crashes(made)) == 8, "eight crashes")
        listener.stop()
    found = crashes(made)
    assert sorted(c["sender"]["address"] for c in found) == [*sources, "::1"]
    assert len({json.dumps([e["title"] for e in c["other_events"]]) for c in found}) == 1


def test_two_boots_are_two_crashes(root: MakeRoot) -> None:
    """The second boots while the first is not over."""
    made = root()
    with listening(made) as listener:
        send(listener.port, [*captured("lab-netconsole-ext"), *captured("lab-netconsole-plain")])
        listener.wait_for(lambda: len(crashes(made)) == 2, "second crash")
    assert [len(c["records"]) for c in crashes(made)] == [1, 1]


def test_oops_and_later_panic_are_one_crash(root: MakeRoot) -> None:
    """The machine lives on for a while; what is told later adds to what was told."""
    made = root()
    datagrams = captured("lab-netconsole-ext")
    at = next(n for n, d in enumerate(datagrams) if b"sysrq: Trigger" in d)
    with listening(made) as listener:
        send(listener.port, datagrams[:at])
        listener.wait_for(lambda: len(crashes(made)) == 1, "oops")
        assert crashes(made)[0]["severity"] == "oops"
        send(listener.port, datagrams[at:])
        listener.wait_for(lambda: crashes(made)[0]["severity"] == "panic", "panic")
    (crash,) = crashes(made)
    assert crash["revision"] == 2


def test_end_writes_what_is_pending(root: MakeRoot) -> None:
    """SIGTERM, right after the last datagram."""
    made = root()
    with listening(made) as listener:
        send(listener.port, [PANIC])
        assert listener.stop() == 0
    assert [c["title"] for c in crashes(made)] == ["Kernel panic: x"]


def test_nothing_that_crashes_is_nothing_to_be_told(root: MakeRoot) -> None:
    """A line that only looks like it is received, looked at, and dropped."""
    made = root()
    with listening(made) as listener:
        send(listener.port, [b"[    1.000000] usb: no BUG here\n"])
        listener.wait_for(lambda: "seems to have crashed" in listener.said, "look")
        assert listener.stop() == 0
    assert crashes(made) == []
    assert not os.listdir(made.path / SPOOL)


def test_daemon_is_woken_and_does_the_rest(root: MakeRoot) -> None:
    """Where one runs, the listener writes to its own directory and to nothing else."""
    made = root()
    (made.path / SPOOL).mkdir(parents=True)
    fifo = made.path / SPOOL / "wake"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with listening(made) as listener:
        send(listener.port, [PANIC])
        listener.wait_for(lambda: [n for n in os.listdir(made.path / SPOOL) if n != "wake"], "file")
        listener.wait_for(lambda: select_ready(fd), "byte in the FIFO")
        assert listener.stop() == 0
    assert os.read(fd, 100) == b"\n"
    os.close(fd)
    assert not made.archive.exists()
    (file,) = (made.path / SPOOL).glob("*.jsonl")
    assert file.stat().st_mode & 0o777 == 0o644


def select_ready(fd: int) -> bool:
    """Whether there is something to be read."""
    import select

    return bool(select.select([fd], [], [], 0)[0])


def test_directory_that_cannot_be_written(root: MakeRoot) -> None:
    """Crashes are kept in memory, that is said, and they are tried again: here, at the end."""
    made = root()
    spool = made.path / SPOOL
    spool.parent.mkdir(parents=True, exist_ok=True)
    spool.write_text("in the way")
    with listening(made) as listener:
        send(listener.port, [PANIC])
        listener.wait_for(lambda: "kept in memory: 1" in listener.said, "warning")
        spool.unlink()
        assert listener.stop() == 0
    assert [c["title"] for c in crashes(made)] == ["Kernel panic: x"]


def test_address_that_is_taken(root: MakeRoot) -> None:
    """Is an error, and says which."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        listener = Listener(root(), "--listen", where)
        assert listener.process.wait(PATIENCE_S) == 1
    assert f"error: cannot listen on {where}: Address already in use" in listener.said


def test_kernel_without_ipv6() -> None:
    """All addresses are those of IPv4, then."""

    def make(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return socket.socket(family, kind)

    receiver = open_socket("::", port := free_port(), make=make)
    assert receiver.address == f"0.0.0.0:{port}"
    receiver.close()
    with pytest.raises(PstoredError, match=r"cannot listen on \[::1\]:\d+: Address family not supported"):
        open_socket("::1", port, make=make)


def test_all_addresses_are_those_of_both_protocols() -> None:
    """By default; senders over IPv4 keep their own."""
    require(has_ipv6(), "IPv6 on the loopback: sysctl net.ipv6.conf.lo.disable_ipv6=0")
    receiver = open_socket("::", port := free_port())
    fleet = Fleet(lines=5, quiet_s=1)
    send(port, [b"a"])
    send(port, [b"b"], source="::1", to="::1")
    until = time.monotonic() + PATIENCE_S
    while fleet.messages < 2 and time.monotonic() < until:
        receiver.drain(fleet, 0.0)
    receiver.close()
    assert sorted(fleet.senders) == ["127.0.0.1", "::1"]


@pytest.mark.parametrize("option", ["x", "1.2.3.4:0", "1.2.3.4:65536", "[::1]x", "6670"])
def test_wrong_addresses_are_wrong_usage(option: str, pstored: Pstored) -> None:
    """Before anything is listened on."""
    done = pstored("netconsole", "--listen", option)
    assert done.status == 2
    assert "is not ADDRESS[:PORT]" in done.stderr


def test_service_manager_is_told(root: MakeRoot, tmp_path: Path) -> None:
    """sd_notify: ready, how things stand, and that it ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        with listening(root(), env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as listener:
            assert manager.recv(4096).startswith(b"READY=1\nSTATUS=listening on 127.0.0.1:")
            send(listener.port, [PANIC])
            assert manager.recv(4096) == b"STATUS=senders: 1; crashes: 1, the last from 127.0.0.1"
            listener.stop()
            assert manager.recv(4096) == b"STOPPING=1\nSTATUS=stopping"


def test_socket_of_the_service_manager(root: MakeRoot) -> None:
    """Is used instead of our own; that is how the service, which has no network, receives."""
    activate = shutil.which("systemd-socket-activate")
    require(activate, "systemd, for systemd-socket-activate")
    made = root()
    port = free_port()
    program = [sys.executable, "-m", "pstored", "--root", str(made.path), "netconsole", "--quiet", "0.3"]
    command = [str(activate), "--datagram", f"--listen=127.0.0.1:{port}", f"--setenv=PYTHONPATH={REPOSITORY}", *program]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"Listening on 127.0.0.1" in process.stderr.readline()
        try:
            send(port, [PANIC])
            until = time.monotonic() + PATIENCE_S
            while not crashes(made) and time.monotonic() < until:
                time.sleep(0.05)
        finally:
            process.terminate()
    assert [c["title"] for c in crashes(made)] == ["Kernel panic: x"]


def is_idle(listener: Listener) -> bool:
    """Whether it uses no CPU any more."""
    ticks = []
    for _ in range(2):
        ticks.append(Path(f"/proc/{listener.process.pid}/stat").read_text().split()[13:15])
        time.sleep(0.2)
    return ticks[0] == ticks[1]


def test_flood_takes_bounded_memory(root: MakeRoot) -> None:
    """More senders than are followed, datagrams of any size; the crash in the middle is told."""
    made = root()
    with listening(made) as listener:
        before = listener.kilobytes()
        for n in range(MAX_SENDERS + 200):
            source = f"127.1.{n // 250}.{n % 250 + 1}"
            send(listener.port, [b"[    1.000000] x\n", b"\xff" * 60_000, b""] * 10, source=source)
        # the kernel has dropped some of that, but has room again
        listener.wait_for(lambda: is_idle(listener), "pause")
        send(listener.port, [PANIC], source="127.9.9.9")
        listener.wait_for(lambda: len(crashes(made)) == 1, "crash")
        assert listener.kilobytes() - before < 64 * 1024
        listener.stop()
        assert "times a sender was given up for another" in listener.said
    assert crashes(made)[0]["sender"]["address"] == "127.9.9.9"


def test_daemon_takes_what_was_received(root: MakeRoot, start: Start) -> None:
    """Both processes, as their services run them: woken once, it archives the crash, and the directory is empty."""
    made = root()
    made.configure("[archive]\nallow_volatile = true\n")
    (made.path / SPOOL).mkdir(parents=True)
    daemon = start(made)
    daemon.wait_for_end_of_run()
    with listening(made) as listener:
        send(listener.port, [PANIC])
        assert "1 crash, newest" in daemon.wait_for_end_of_run()
        assert listener.stop() == 0
        assert "imported" not in listener.said
    assert daemon.runs()[1:] == ["netconsole has received a crash"]
    assert os.listdir(made.path / SPOOL) == ["wake"]
    assert (made.path / SPOOL / "wake").stat().st_mode & 0o777 == 0o620
    assert [c["title"] for c in crashes(made)] == ["Kernel panic: x"]
    assert daemon.end() == 0
    # and again, with the FIFO that is there
    daemon = start(made)
    daemon.wait_for_end_of_run()
    with listening(made) as listener:
        send(listener.port, [PANIC.replace(b": x", b": y")])
        assert "2 crashes, newest" in daemon.wait_for_end_of_run()


def test_what_is_no_fifo_wakes_nobody(root: MakeRoot, start: Start) -> None:
    """Somebody else has put a file there: that is said, and the rest goes on."""
    made = root()
    (made.path / SPOOL).mkdir(parents=True)
    (made.path / SPOOL / "wake").write_text("x")
    daemon = start(made)
    daemon.wait_for_end_of_run()
    assert "what pstored netconsole receives cannot be watched: [Errno 22] it is no FIFO" in daemon.said()
