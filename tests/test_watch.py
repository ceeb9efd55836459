# SPDX-License-Identifier: Apache-2.0
"""The daemon, as a process: what it tells the service manager, what makes it run, what it does with a child in trouble.

The service manager is a socket of the test's own.  A run is made to hang by what makes real ones hang: somebody else
holds the archive's lock.
"""

import contextlib
import fcntl
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from pstored.schedule import SETTLE_MAX_S
from tests.conftest import BOOT_ID, REPOSITORY, MakeRoot, Pstored, Root, can_mount, require
from tests.test_wakeups import bound_device

PATIENCE_S = 60
"""For what must come; a busy machine takes longer, and nothing is concluded from how long."""
OOPS = b"1,339,5140900,-;BUG: kernel NULL pointer dereference, address: 0000000000000008\n"
LINE = b"6,340,5140901,-;NET: Registered PF_INET protocol family\n"
NUMBERS = itertools.count()


class Daemon:
    """A running ``pstored watch`` on a tree, and what it has said."""

    def __init__(self, root: Root, *, before: tuple[str, ...] = (), env: Mapping[str, str] | None = None) -> None:
        self.root = root
        name = f"{root.path.name}-{next(NUMBERS)}"
        address = root.path.parent / f"{name}.notify"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(address))
        self.told: list[str] = []
        self.output = root.path.parent / f"{name}.output"
        command = [*before, sys.executable, "-m", "pstored", "--root", str(root.path), "watch"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "NOTIFY_SOCKET": str(address), **(env or {})}
        with self.output.open("wb") as f:
            self.process = subprocess.Popen(command, env=environment, cwd="/", stdout=f, stderr=f)

    def wait_for(self, what: str) -> str:
        """The next message with a line that begins with *what*."""
        self.manager.settimeout(PATIENCE_S)
        while True:
            message = self.manager.recv(65536).decode()
            self.told.append(message)
            for line in message.splitlines():
                if line.startswith(what):
                    return message

    def wait_for_end_of_run(self) -> str:
        """The status after the next run that ends."""
        while (status := self.wait_for("STATUS=")).startswith("STATUS=collecting"):
            pass
        return status.removeprefix("STATUS=")

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Look until it is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.said()
            assert self.process.poll() is None, self.said()
            time.sleep(0.02)

    def rest(self) -> list[str]:
        """All that it has told, to the last."""
        self.manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.told.append(self.manager.recv(65536).decode())
        return self.told

    def said(self) -> str:
        """What it and its children have written."""
        return self.output.read_text(errors="replace")

    def runs(self) -> list[str]:
        """The reasons of all runs so far."""
        return re.findall(r"^collecting: (.*)$", self.said(), re.MULTILINE)

    def child(self) -> int:
        """The run's process, once there is one."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.wait_until(lambda: path.read_text() and b"collect" in command(int(path.read_text())))
        return int(path.read_text())

    def hup(self) -> None:
        """Have it reload, and collect."""
        self.process.send_signal(signal.SIGHUP)

    def end(self) -> int:
        """SIGTERM; gives the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def woken(self) -> int:
        """How often it has gone to sleep of its own will."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def command(pid: int) -> list[bytes]:
    """A process's command line; of a fork, still its parent's."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


@pytest.fixture
def start() -> Iterator[Callable[..., Daemon]]:
    """Start daemons; what still runs at the end is killed, with its child."""
    started: list[Daemon] = []

    def make(root: Root, **options: object) -> Daemon:
        started.append(Daemon(root, **options))  # type: ignore[arg-type]  # handed through
        return started[-1]

    yield make
    for daemon in started:
        if daemon.process.poll() is None:
            for pid in map(
                int, Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
            ):
                os.kill(pid, signal.SIGKILL)
            daemon.process.kill()
            daemon.process.wait()
        daemon.manager.close()


Start = Callable[..., Daemon]


@contextlib.contextmanager
def held(root: Root) -> Iterator[None]:
    """Hold the archive's lock, so that a run waits."""
    for name in ("harvests", "crashes"):
        (root.archive / name).mkdir(parents=True, exist_ok=True)
    fd = os.open(root.archive, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


def kmsg(root: Root) -> int:
    """A pipe in the place of the kernel's log; the descriptor to write lines to."""
    path = root.path / "dev/kmsg"
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)


def a_crash(root: Root, number: int) -> str:
    """Put a small crash of its own boot into the store."""
    text = b"Panic#1 Part1\n<0>[   12.000000] Kernel panic - not syncing: number %d\n" % number
    return root.add_erst_crash(number, text)


# -- start, status, end


def test_it_starts_collects_and_tells_how_things_stand(root: MakeRoot, start: Start) -> None:
    """READY, a run at once, the status: how many crashes, the newest and its boot, what is due.  SIGTERM ends it."""
    made = root("lab-efi-twoboots")
    daemon = start(made)
    daemon.wait_for("READY=1")
    assert daemon.wait_for_end_of_run() == (
        "2 crashes, newest 2026-11-23 04:18 a1e203f3 (boot 29ba41b6) "
        "panic: Kernel panic: sysrq triggered crash; nothing due"
    )
    assert made.names() == []
    assert daemon.end() == 0
    assert daemon.rest()[-1].startswith("STOPPING=1")
    assert daemon.runs() == ["start"]


def test_ready_does_not_wait_for_the_first_run(root: MakeRoot, start: Start) -> None:
    """A slow sink or disk does not hold up what is ordered after the daemon."""
    made = root("lab-erst")
    with held(made):
        daemon = start(made)
        daemon.wait_for("READY=1")
        daemon.child()
        assert made.names()
    assert "1 crash" in daemon.wait_for_end_of_run()


def test_it_does_without_a_service_manager(root: MakeRoot, start: Start) -> None:
    """On a terminal: no NOTIFY_SOCKET, or nobody listening there."""
    for address in ("", "/nonexistent/notify"):
        made = root("lab-erst")
        daemon = start(made, env={"NOTIFY_SOCKET": address} if address else {})
        daemon.wait_until(made.crashes)
        assert daemon.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_its_end_is_its_runs_end(root: MakeRoot, start: Start, number: signal.Signals) -> None:
    """The child is asked to end, and the exit status is 0."""
    made = root("lab-erst")
    with held(made):
        daemon = start(made)
        child = daemon.child()
        daemon.process.send_signal(number)
        assert daemon.process.wait(PATIENCE_S) == 0
        assert not Path(f"/proc/{child}").exists()
    assert made.names()
    assert "STOPPING=1\nSTATUS=stopping" in daemon.rest()


def test_a_second_one_is_refused(root: MakeRoot, start: Start, pstored: Pstored) -> None:
    """With the first one's process id; the lock goes with the process, however that ends."""
    made = root()
    daemon = start(made)
    daemon.wait_for("READY=1")
    refused = pstored("watch", root=made)
    assert refused.status == 1
    assert f"another pstored watch is running: process {daemon.process.pid} holds" in refused.stderr
    daemon.process.kill()
    daemon.process.wait()
    third = start(made)
    third.wait_for("READY=1")
    assert third.end() == 0


def test_a_lock_that_cannot_be_made_is_said(root: MakeRoot, pstored: Pstored) -> None:
    """/run is a file: nothing has been started."""
    made = root()
    made.write("run", "a file")
    refused = pstored("watch", root=made)
    assert (refused.status, refused.stdout) == (1, "")
    assert "error: cannot make" in refused.stderr
    assert "hint: " in refused.stderr


# -- the service manager


def test_the_watchdog_hears_from_it(root: MakeRoot, start: Start) -> None:
    """Also while a run hangs."""
    made = root("lab-erst")
    with held(made):
        daemon = start(made, env={"WATCHDOG_USEC": "200000"})
        daemon.child()
        for _ in range(3):
            daemon.wait_for("WATCHDOG=1")


def test_a_watchdog_of_somebody_else_does_not(root: MakeRoot, start: Start) -> None:
    """WATCHDOG_PID says who is meant; and rubbish is no time."""
    for env in ({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}):
        daemon = start(root("lab-erst"), env=env)
        daemon.wait_for_end_of_run()
        assert daemon.end() == 0
        assert not [message for message in daemon.rest() if "WATCHDOG" in message]


def test_its_children_do_not_speak_for_it(root: MakeRoot, start: Start) -> None:
    """What systemd tells the daemon alone is not handed on."""
    made = root("lab-erst")
    with held(made):
        daemon = start(made, env={"WATCHDOG_USEC": "60000000"})
        environment = Path(f"/proc/{daemon.child()}/environ").read_bytes()
        assert b"PYTHONPATH=" in environment
        assert b"NOTIFY_SOCKET" not in environment
        assert b"WATCHDOG" not in environment


def test_a_reload_takes_what_has_changed(root: MakeRoot, start: Start) -> None:
    """RELOADING with the monotonic time, READY, and a run with the new configuration."""
    made = root("lab-erst")
    daemon = start(made)
    daemon.wait_for_end_of_run()
    made.configure('[archive]\npath = "/srv/elsewhere"\n')
    a_crash(made, 7)
    before = time.monotonic_ns() // 1000
    daemon.hup()
    message = daemon.wait_for("RELOADING=1")
    assert before <= int(message.partition("MONOTONIC_USEC=")[2]) <= time.monotonic_ns() // 1000
    daemon.wait_for("READY=1")
    assert "1 crash, newest" in daemon.wait_for_end_of_run()
    assert (made.path / "srv/elsewhere/harvests").is_dir()
    assert daemon.runs() == ["start", "reload"]


@pytest.mark.parametrize("text", ["[watch", "[watch]\ntimeout_s = -1\n", "[wotch]\n"])
def test_a_broken_configuration_is_said_and_done_without(root: MakeRoot, start: Start, text: str) -> None:
    """The daemon goes on with the defaults, as every other command does."""
    made = root()
    daemon = start(made)
    daemon.wait_for_end_of_run()
    made.configure(text)
    a_crash(made, 7)
    daemon.hup()
    daemon.wait_for("READY=1")
    assert "1 crash" in daemon.wait_for_end_of_run()
    assert "pstored.conf" in daemon.said()
    assert daemon.end() == 0


# -- what wakes it


def test_an_oops_of_the_running_boot_is_one_run(root: MakeRoot, start: Start) -> None:
    """With the kernel's log; user space that quotes the kernel makes none."""
    made = root()
    pen = kmsg(made)
    daemon = start(made)
    daemon.wait_for_end_of_run()
    os.write(pen, OOPS.replace(b"1,", b"12,", 1) + LINE)
    with held(made):
        os.write(pen, OOPS + LINE * 50)
        assert b"--kernel-log" in command(daemon.child())
    daemon.wait_for_end_of_run()
    assert daemon.runs() == ["start", "a report in the kernel's log"]


def test_a_report_is_waited_for_to_its_end(root: MakeRoot, start: Start) -> None:
    """As long as lines come, the run waits, up to some seconds."""
    made = root()
    pen = kmsg(made)
    daemon = start(made)
    daemon.wait_for_end_of_run()
    began = time.monotonic()
    os.write(pen, OOPS)
    while len(daemon.runs()) == 1:
        os.write(pen, LINE)
        time.sleep(0.05)
    assert time.monotonic() - began >= SETTLE_MAX_S


def test_an_oops_before_its_start_is_looked_for(root: MakeRoot, start: Start) -> None:
    """The first run has the kernel's log, too, if there is one to be read."""
    made = root()
    kmsg(made)
    for tree, wanted in ((made, True), (root(), False)):
        with held(tree):
            daemon = start(tree)
            assert (b"--kernel-log" in command(daemon.child())) is wanted
        daemon.wait_for_end_of_run()


def test_the_kernels_own_rescan_is_waited_for(root: MakeRoot, start: Start) -> None:
    """With pstore.update_ms the record of the oops comes later: a second run looks for it."""
    made = root()
    made.write("sys/module/pstore/parameters/update_ms", "500\n")
    pen = kmsg(made)
    daemon = start(made)
    daemon.wait_for_end_of_run()
    os.write(pen, OOPS)
    daemon.wait_for_end_of_run()
    a_crash(made, 7)
    assert "1 crash" in daemon.wait_for_end_of_run()
    assert daemon.runs()[2:] == ["the kernel should show the oops in pstore by now"]


def test_a_new_backend_is_a_run(root: MakeRoot, start: Start) -> None:
    """The kernel says so in its log, or sysfs shows it at the next wake-up, whatever that is; so with oopses."""
    made = root()
    pen = kmsg(made)
    daemon = start(made)
    daemon.wait_for_end_of_run()
    os.write(pen, b"6,341,5140902,-;pstore: Registered erst as persistent store backend\n")
    daemon.wait_for_end_of_run()
    made.write("sys/module/pstore/parameters/backend", "efi_pstore\n")
    os.write(pen, LINE)
    daemon.wait_for_end_of_run()
    made.write("sys/kernel/oops_count", "1\n")
    os.write(pen, LINE)
    daemon.wait_for_end_of_run()
    assert daemon.runs() == ["start", *["pstore has another backend"] * 2, "a report in the kernel's log"]


def test_a_mount_on_the_store_is_a_run(root: MakeRoot, start: Start) -> None:
    """A real mount, in the daemon's own mount namespace; one elsewhere is none."""
    require(can_mount(), "mount namespaces need root")
    made, other = root(), root("lab-erst")
    daemon = start(made, before=("unshare", "-m", "--propagation", "private"))
    daemon.wait_for_end_of_run()
    inside = ["nsenter", "-t", str(daemon.process.pid), "-m", "mount"]
    subprocess.run([*inside, "-t", "tmpfs", "none", "/mnt"], check=True)
    subprocess.run([*inside, "--bind", str(other.store), str(made.store)], check=True)
    assert "1 crash" in daemon.wait_for_end_of_run()
    assert other.names() == []
    assert daemon.runs() == ["start", "the store was mounted or unmounted"]


def test_a_uevent_of_something_else_is_no_run(root: MakeRoot, start: Start) -> None:
    """It wakes, and finds that nothing is wanted."""
    device = bound_device()
    made = root()
    daemon = start(made)
    daemon.wait_for_end_of_run()
    before = daemon.woken()
    (device / "uevent").write_text("bind")
    daemon.wait_until(lambda: daemon.woken() > before)
    assert daemon.end() == 0
    assert daemon.runs() == ["start"]


def test_what_comes_during_a_run_is_one_run_more(root: MakeRoot, start: Start) -> None:
    """However much that is."""
    made = root()
    pen = kmsg(made)
    with held(made):
        a_crash(made, 1)
        daemon = start(made)
        daemon.child()
        for number in range(5):
            os.write(pen, OOPS)
            made.write("sys/module/pstore/parameters/backend", f"backend{number}\n")
        daemon.hup()
        daemon.wait_for("RELOADING=1")
    daemon.wait_for_end_of_run()
    daemon.wait_for_end_of_run()
    assert daemon.end() == 0
    assert len(daemon.runs()) == 2
    assert {"a report in the kernel's log", "reload"} <= set(daemon.runs()[1].split(", "))


# -- sources that are not there, or too much


@pytest.mark.parametrize("what", ["missing", "a plain file", "a directory"])
def test_a_kernel_log_that_cannot_be_watched_is_said_once(root: MakeRoot, start: Start, what: str) -> None:
    """The rest works."""
    made = root()
    path = made.path / "dev/kmsg"
    if what == "a plain file":
        path.write_bytes(b"")
    elif what == "a directory":
        path.mkdir()
    daemon = start(made)
    daemon.wait_for_end_of_run()
    a_crash(made, 7)
    daemon.hup()
    daemon.wait_for("READY=1")
    assert "1 crash" in daemon.wait_for_end_of_run()
    assert daemon.said().count("the kernel's log cannot be watched") == 1


def test_a_kernel_log_that_ends_is_closed(root: MakeRoot, start: Start) -> None:
    """Said once; it does not spin on a descriptor that is ready for ever."""
    made = root()
    pen = kmsg(made)
    daemon = start(made)
    daemon.wait_for_end_of_run()
    os.close(pen)
    daemon.wait_until(lambda: "the kernel's log can no longer be watched" in daemon.said())
    daemon.hup()
    daemon.wait_for("READY=1")
    daemon.wait_for_end_of_run()
    assert daemon.said().count("the kernel's log can no longer be watched") == 1
    descriptors = [os.readlink(link) for link in Path(f"/proc/{daemon.process.pid}/fd").iterdir()]
    assert not [path for path in descriptors if "kmsg" in path]
    assert daemon.end() == 0


def test_a_flood_does_not_keep_it_from_its_signals(root: MakeRoot, start: Start) -> None:
    """Lines without end, oopses among them: SIGHUP is obeyed, SIGTERM ends it, and there is no run for each oops."""
    made = root()
    pen = kmsg(made)
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            with contextlib.suppress(BlockingIOError):
                os.write(pen, LINE * 20 + OOPS)

    writer = threading.Thread(target=flood)
    daemon = start(made)
    daemon.wait_for_end_of_run()
    writer.start()
    try:
        daemon.wait_until(lambda: len(daemon.runs()) >= 2)
        daemon.hup()
        daemon.wait_for("RELOADING=1")
        assert daemon.end() == 0
    finally:
        stop.set()
        writer.join()
        os.close(pen)
    assert len(daemon.runs()) <= 5


def test_it_sleeps(root: MakeRoot, start: Start) -> None:
    """Nothing happens, nothing is due: not one wake-up.  Uevents are the host's, so it gets more than one chance."""
    made = root()
    kmsg(made)
    daemon = start(made)
    daemon.wait_for_end_of_run()
    counts = [daemon.woken()]
    while len(counts) < 10 and counts[-2:] != [counts[-1]] * 2:
        time.sleep(2)
        counts.append(daemon.woken())
    assert counts[-2] == counts[-1], counts


# -- a child in trouble


def test_a_run_that_was_killed_is_tried_again(root: MakeRoot, start: Start) -> None:
    """It is said, in the status, too; the next try does it."""
    made = root("lab-erst")
    made.configure("[watch]\nretry_s = 1\n")
    daemon = start(made)
    with held(made):
        os.kill(daemon.child(), signal.SIGKILL)
        assert re.search(r"died of SIGKILL; the next try is at \d\d:\d\d:\d\d", daemon.wait_for_end_of_run())
    assert daemon.wait_for_end_of_run().endswith("nothing due")
    assert daemon.runs() == ["start", "trying again"]
    assert "warning: the run died of SIGKILL;" in daemon.said()
    assert made.names() == []


def test_a_run_that_hangs_is_ended(root: MakeRoot, start: Start) -> None:
    """After the configured time it is asked to end; then it is tried again."""
    made = root("lab-erst")
    made.configure("[watch]\nretry_s = 1\ntimeout_s = 1\n")
    daemon = start(made)
    with held(made):
        assert "died of SIGTERM, which it was sent" in daemon.wait_for_end_of_run()
    made.configure("[watch]\ntimeout_s = 60\n")
    daemon.hup()
    daemon.wait_for("READY=1")
    daemon.wait_until(lambda: not made.names())
    assert "warning: the run takes longer than 1 s: sent SIGTERM" in daemon.said()


def test_a_run_that_does_not_end_is_killed(root: MakeRoot, start: Start) -> None:
    """One that is stopped does not hear SIGTERM."""
    made = root("lab-erst")
    made.configure("[watch]\ntimeout_s = 1\n")
    daemon = start(made, env={"PSTORED_STEPS": "/dev/null", "PSTORED_STEP_STOP": "3"})
    assert "died of SIGKILL, which it was sent" in daemon.wait_for_end_of_run()
    assert made.names()
    assert [line for line in daemon.said().splitlines() if "sent SIG" in line and "longer" in line][-1].endswith(
        "SIGKILL"
    )


def test_a_daemon_that_is_to_end_does_not_wait_for_ever(root: MakeRoot, start: Start) -> None:
    """A run that does not end within seconds is killed, and the exit status is 0."""
    made = root("lab-erst")
    daemon = start(made, env={"PSTORED_STEPS": "/dev/null", "PSTORED_STEP_STOP": "3"})
    child = daemon.child()
    daemon.wait_until(lambda: "\nState:\tT" in Path(f"/proc/{child}/status").read_text())
    assert daemon.end() == 0
    assert not Path(f"/proc/{child}").exists()


def test_an_archive_that_cannot_be_written_is_tried_again(root: MakeRoot, start: Start) -> None:
    """The run's own words are in the status; after a reload, at the times that are configured then."""
    made = root("lab-erst")
    made.write("var/lib/pstored", "a file")
    daemon = start(made)
    status = daemon.wait_for_end_of_run()
    made.configure("[watch]\nretry_s = 1\n")
    daemon.hup()
    daemon.wait_for("READY=1")
    daemon.wait_for_end_of_run()
    assert "var/lib/pstored" in status
    assert "exit status 73" in status
    assert "the next try is at" in status
    (made.path / "var/lib/pstored").unlink()
    daemon.wait_until(lambda: not made.names())


def test_deferred_records_are_in_the_status(root: MakeRoot, start: Start) -> None:
    """What waits for another mount or boot is due."""
    made = root("x86_64-6.1-ramoops-all")
    made.write("sys/kernel/oops_count", "1\n")
    daemon = start(made)
    assert re.search(r"2 records in the store: deferred; the run left something", daemon.wait_for_end_of_run())


def test_a_status_never_controls_a_terminal(root: MakeRoot, start: Start) -> None:
    """A crash's title is the kernel's, and what programs had it say."""
    made = root()
    text = b"Panic#1 Part1\n<0>[   12.000000] Kernel panic - not syncing: \x1b[2J\x07\xff\n"
    made.add_erst_crash(7, text)
    daemon = start(made)
    status = daemon.wait_for_end_of_run()
    assert "not syncing" not in status
    assert "\\x1b[2J\\x07" in status
    assert status.isprintable()


# -- the descriptor


def test_the_status_descriptor_gets_one_line(root: MakeRoot) -> None:
    """Also when the run fails; BOOT_ID is no crash's, so none is named."""
    made = root()
    for prepare, wanted in (
        (lambda: None, "no crashes; nothing due"),
        (lambda: a_crash(made, 7), "1 crash, newest "),
        (lambda: (made.path / "sys/fs/pstore").rename(made.path / "sys/fs/away"), "1 crash, newest "),
    ):
        prepare()
        read_fd, write_fd = os.pipe()
        arguments = [sys.executable, "-m", "pstored", "--root", str(made.path), "collect", "--status-fd", str(write_fd)]
        subprocess.run(arguments, cwd=REPOSITORY, pass_fds=(write_fd,), check=True, capture_output=True)
        os.close(write_fd)
        with open(read_fd, encoding="utf-8") as f:
            (line,) = f.read().splitlines()
        assert line.startswith(wanted)
        assert BOOT_ID[:8] not in line


def test_a_descriptor_that_is_none_is_a_warning(root: MakeRoot, pstored: Pstored) -> None:
    """The run has been done all the same."""
    made = root("lab-erst")
    done = pstored("collect", "--status-fd=99", root=made)
    assert done.status == 0
    assert "cannot write the status to descriptor 99" in done.stderr
    assert made.crashes()
