# SPDX-License-Identifier: Apache-2.0
"""The bugs of a fleet that never was: what they look like, how common each is, which builds have it.

A few bugs make most crashes of a fleet, and most bugs are rare (Zipf's law).  Some come with a build and go with a
later one; the newest build brings a bad one of its own, so that there is a regression to be found.
"""

from collections.abc import Mapping
from itertools import accumulate
from random import Random
from typing import Any, NamedTuple

from pstored.oops import signature

BUGS = 400
TRACE = ("do_syscall_64", "entry_SYSCALL_64_after_hwframe")
REGRESSION = 0.3
"""Weight of the newest build's own bug against all others together."""

_SUBSYSTEMS = (
    ("ext4", ("da_write_begin", "es_insert_extent", "mb_new_blocks", "map_blocks", "readpage_inline", "evict_inode")),
    ("nvme", ("queue_rq", "pci_complete_rq", "setup_cmd", "reset_work", "timeout", "submit_cmds")),
    ("wlan", ("rx_napi", "tx_status", "sta_remove", "scan_done", "reorder_timer", "key_enable")),
    ("drm", ("atomic_commit_tail", "gem_object_free", "vblank_get", "mode_setcrtc", "syncobj_wait", "sched_job_run")),
    (
        "usb",
        ("hcd_giveback_urb", "hub_event", "autosuspend_delay", "kill_anchored_urbs", "serial_write", "set_interface"),
    ),
    (
        "tcp",
        ("retransmit_timer", "clean_rtx_queue", "sendmsg_locked", "fastretrans_alert", "rcv_established", "v4_do_rcv"),
    ),
    ("can", ("rx_offload_irq", "restart_work", "put_echo_skb", "bcm_rx_handler", "raw_sendmsg", "isotp_tx_timer")),
    ("i2c", ("transfer_irq", "smbus_xfer", "recover_bus", "slave_event", "dw_isr", "imx_xfer")),
    ("mmc", ("blk_mq_complete", "wait_for_req", "hs400_tuning", "cqe_recovery", "sdio_irq_thread", "rescan")),
    (
        "snd",
        ("pcm_period_elapsed", "dma_pointer", "soc_dapm_update", "timer_interrupt", "rawmidi_receive", "ctl_notify"),
    ),
)
#   kind, severity, share, title
_KINDS = (
    ("null-deref", "panic", 30, "BUG: kernel NULL pointer dereference, address: 0000000000000018"),
    ("paging-fault", "panic", 16, "BUG: unable to handle page fault for address: ffffc90000c0ffee"),
    ("bug-on", "panic", 10, "kernel BUG at {file}.c:{line}!"),
    ("gpf", "panic", 9, "general protection fault, probably for non-canonical address 0xdead000000000108"),
    ("soft-lockup", "panic", 8, "watchdog: BUG: soft lockup - CPU#1 stuck for 26s!"),
    ("hung-task", "panic", 7, "INFO: task {file}d:412 blocked for more than 120 seconds."),
    ("rcu-stall", "panic", 6, "rcu: INFO: rcu_preempt self-detected stall on CPU"),
    ("null-deref", "oops", 6, "BUG: kernel NULL pointer dereference, address: 0000000000000008"),
    ("oom", "panic", 3, "Kernel panic: Out of memory: system-wide panic_on_oom is enabled"),
    ("mce", "panic", 2, "fatal machine check on CPU 0, bank 4"),
)
#   what leaves no trace of the kernel's; kind, share, title
_RESETS = (
    ("reset", 6, "the boot broke off: no orderly end, and no word of the kernel"),
    ("watchdog", 2, "the watchdog reset the machine"),
)


class Bug(NamedTuple):
    """One bug."""

    kind: str
    severity: str
    title: str
    function: str | None
    trace: tuple[str, ...]
    signature: str | None
    signature_loose: str | None
    first_build: int
    """The first that has it, by number."""
    last_build: int
    weight: float

    def event(self) -> dict[str, Any] | None:
        """What crash.json has under ``event``; None for a reset."""
        if self.signature is None:
            return None
        frames = [
            {"function": name, "offset": 0x1A + n, "size": 0x120, "module": None, "reliable": True}
            for n, name in enumerate(self.trace)
        ]
        return {"signature": self.signature, "signature_loose": self.signature_loose, "call_trace": frames}


def make_bugs(builds: int, random: Random) -> list[Bug]:
    """The bugs of a fleet with so many builds."""
    found = []
    for n in range(BUGS):
        weight = 1 / (n + 1)
        if n % 13 == 12:
            kind, _, title = random.choices(_RESETS, weights=[share for _, share, _ in _RESETS])[0]
            found.append(Bug(kind, "reset", title, None, (), None, None, 0, builds - 1, weight))
            continue
        first = random.randrange(builds) if random.random() < 0.4 else 0
        last = random.randrange(first, builds) if random.random() < 0.3 else builds - 1
        found.append(_bug(random, first, last, weight))
    here = sum(bug.weight for bug in found if bug.last_build == builds - 1)
    return [*found, _bug(random, builds - 1, builds - 1, here * REGRESSION)]


def _bug(random: Random, first: int, last: int, weight: float) -> Bug:
    kind, severity, _, words = random.choices(_KINDS, weights=[share for _, _, share, _ in _KINDS])[0]
    subsystem, functions = random.choice(_SUBSYSTEMS)
    names = [f"{subsystem}_{function}" for function in random.sample(functions, 3)]
    function = None if kind in ("oom", "mce") else names[0]
    title = words.format(file=subsystem, line=random.randrange(100, 4000)) + (f" in {function}" if function else "")
    trace = (*names, *TRACE) if function else ()
    return Bug(
        kind,
        severity,
        title,
        function,
        trace,
        signature.strict(kind, trace, function, title),
        signature.loose(kind, function, title),
        first,
        last,
        weight,
    )


class Choice:
    """Which bug it was, on each build."""

    def __init__(self, bugs: list[Bug], builds: int) -> None:
        self._bugs: Mapping[int, list[Bug]] = {
            build: [bug for bug in bugs if bug.first_build <= build <= bug.last_build] for build in range(builds)
        }
        self._weights = {build: list(accumulate(bug.weight for bug in there)) for build, there in self._bugs.items()}

    def bug(self, build: int, random: Random) -> Bug:
        """One of a build's bugs, the common ones more often."""
        return random.choices(self._bugs[build], cum_weights=self._weights[build])[0]
