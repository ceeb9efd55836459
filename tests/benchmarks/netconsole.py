# SPDX-License-Identifier: Apache-2.0
"""How fast ``pstored netconsole`` receives: ``python tests/benchmarks/netconsole.py [SECONDS]`` (10 by default).

A fleet of 50 senders, addresses of the loopback, sends messages of a real boot: first at the rate of the budget, of
which none may be lost; then as fast as can be.  The listener has a core of its own, where there are two.  What counts
is its CPU time for each message, so that a busy host does not change the figure.  A miss is the exit status.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fake_pstore.capture import load

RATE = 10_000
"""Messages a second: the budget."""
BURST = 50
PORT = 16_666
REPOSITORY = Path(__file__).parents[2]
TICK = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, seconds."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICK


def messages(name: str) -> list[bytes]:
    """What a real boot sends until it oopses."""
    lines = load(name).raw("datagrams.jsonl").splitlines()
    return [json.loads(line)["data"].encode("latin-1") for line in lines][:250]


def fleet(count: int) -> list[socket.socket]:
    """Sockets with an address each."""
    found = []
    for n in range(count):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind((f"127.0.1.{n + 1}", 0))
        sender.connect(("127.0.0.1", PORT))
        found.append(sender)
    return found


def run(name: str, seconds: float, rate: int | None) -> tuple[int, int, float, int]:
    """Messages sent and received, the listener's CPU seconds for them, and its memory in kB."""
    data, senders = messages(name), fleet(50)
    with tempfile.TemporaryDirectory(prefix="pstored-netconsole-") as root:
        command = [sys.executable, "-m", "pstored", "--root", root, "netconsole", "--listen", f"127.0.0.1:{PORT}"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        listener = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert listener.stdout is not None
        assert "listening on" in listener.stdout.readline()
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(listener.pid, cores[:1])
        os.sched_setaffinity(0, cores[1:] or cores)
        before = cpu_s(listener.pid)
        began = time.monotonic()
        sent = 0
        while time.monotonic() < began + seconds:
            for _ in range(BURST):
                senders[sent % 50].send(data[sent // 50 % len(data)])
                sent += 1
            if rate is not None and (wait := began + sent / rate - time.monotonic()) > 0:
                time.sleep(wait)
        time.sleep(1)
        used = cpu_s(listener.pid) - before
        rss = int(Path(f"/proc/{listener.pid}/status").read_text().split("VmRSS:")[1].split()[0])
        listener.send_signal(signal.SIGTERM)
        said = listener.communicate(timeout=60)[0]
        os.sched_setaffinity(0, cores)
    return sent, int(said.split(" messages received")[0].split()[-1]), used, rss


def main() -> int:
    """Measure, print, give 1 if the budget is missed."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    missed = False
    for name in ("lab-netconsole-plain", "lab-netconsole-ext"):
        for rate in (RATE, None):
            sent, received, used, rss = run(name, seconds, rate)
            capacity = received / used
            what = "as fast as can be" if rate is None else f"{rate} a second"
            print(
                f"{name} {what}: {sent} sent in {seconds:.0f} s, {received} received, {used:.2f} s of CPU: "
                f"{capacity:.0f} messages a second on one core; RSS {rss / 1024:.1f} MiB"
            )
            missed = missed or capacity < RATE or (rate is not None and received < sent)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
