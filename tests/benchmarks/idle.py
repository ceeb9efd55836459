# SPDX-License-Identifier: Apache-2.0
"""What the sleeping daemon costs: ``python tests/benchmarks/idle.py [SECONDS]`` (600 by default).

The daemon runs on a tree in which a real crash was collected, with a configuration file, a service manager to talk to
(a socket of ours), and mounts of its own; the kernel's log is a pipe that stays silent; uevents are the host's, and
counted.  Once the first run is over: memory from smaps_rollup, and how often it was woken, from the context switches in
/proc/PID/status, before and after.  A miss of the budget is the exit status.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fake_pstore.capture import load, populate_root

RSS_KB = 16 * 1024
"""The budget."""
REPOSITORY = Path(__file__).parents[2]


def numbers(path: str) -> dict[str, int]:
    """The ``Name: 123 kB`` lines of a file of /proc."""
    found = {}
    for line in Path(path).read_text().splitlines():
        name, _, rest = line.partition(":")
        if (words := rest.split()) and words[0].isdigit():
            found[name] = int(words[0])
    return found


def figures(pid: int) -> dict[str, int]:
    """Memory in kB, context switches, CPU ticks."""
    memory, status = numbers(f"/proc/{pid}/smaps_rollup"), numbers(f"/proc/{pid}/status")
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {
        "rss_kb": memory["Rss"],
        "private_dirty_kb": memory["Private_Dirty"],
        "voluntary": status["voluntary_ctxt_switches"],
        "involuntary": status["nonvoluntary_ctxt_switches"],
        "cpu_ticks": int(ticks[11]) + int(ticks[12]),
    }


def start(root: Path, manager: Path) -> subprocess.Popen[bytes]:
    """The daemon."""
    environment = {**os.environ, "NOTIFY_SOCKET": str(manager), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "pstored", "--root", str(root), "watch"]
    return subprocess.Popen(command, env=environment, cwd=REPOSITORY)


def wait_for_first_run(manager: socket.socket) -> str:
    """The status line after it."""
    manager.settimeout(60)
    while True:
        for line in manager.recv(65536).decode().splitlines():
            if line.startswith("STATUS=") and "collecting" not in line:
                return line.removeprefix("STATUS=")


def count_uevents(listener: socket.socket) -> int:
    """How many have come since the last call; each may wake the daemon."""
    count = 0
    try:
        while listener.recv(65536):
            count += 1
    except BlockingIOError:
        return count
    return count


def main() -> int:
    """Measure, print, give 1 if the budget is missed."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    if os.geteuid() == 0:
        ctypes.CDLL(None).unshare(0x20000)  # CLONE_NEWNS
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    with tempfile.TemporaryDirectory(prefix="pstored-idle-") as name:
        root = Path(name, "root")
        root.mkdir()
        populate_root(root, load("x86_64-6.1deb-efi"))
        (root / "etc/pstored.conf").write_text("[watch]\ntimeout_s = 60\n")
        (root / "dev").mkdir(exist_ok=True)
        os.mkfifo(root / "dev/kmsg")
        kmsg = os.open(root / "dev/kmsg", os.O_RDWR)
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)  # NETLINK_KOBJECT_UEVENT
        with netlink as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            listener.bind((0, 1))
            listener.setblocking(False)
            manager.bind(str(Path(name, "notify")))
            daemon = start(root, Path(name, "notify"))
            print("status:", wait_for_first_run(manager))
            time.sleep(2)
            count_uevents(listener)
            before = figures(daemon.pid)
            time.sleep(seconds)
            after = figures(daemon.pid)
            uevents = count_uevents(listener)
            daemon.send_signal(signal.SIGTERM)
            print("exit status:", daemon.wait(30))
        os.close(kmsg)
    woken = after["voluntary"] - before["voluntary"]
    for figure, value in after.items():
        print(f"{figure:20} {before[figure]:>8} -> {value:>8}")
    print(f"RSS {after['rss_kb'] / 1024:.1f} MiB (budget {RSS_KB / 1024:.0f})")
    print(
        f"woken {woken} times in {seconds:.0f} s, in which the host had {uevents} uevents (budget: no more than these)"
    )
    return int(after["rss_kb"] > RSS_KB or woken > uevents)


if __name__ == "__main__":
    sys.exit(main())
