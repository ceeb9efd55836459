# SPDX-License-Identifier: Apache-2.0
"""The kernel log of one boot: what it says while starting, when it oopses, panics or reboots.

The shape is that of real logs; names and numbers are made up, from a seed.  Two boots of one seed differ in every
timestamp and address that would differ on a real machine.
"""

import random
from typing import NamedTuple

from .host import banner
from .kernels import Era

KERN_EMERG, KERN_ALERT, KERN_ERR, KERN_WARNING, KERN_NOTICE, KERN_INFO, KERN_DEBUG = 0, 1, 3, 4, 5, 6, 7
USER_WARNING = 12  # facility 1: what a program writes to /dev/kmsg as "<4>..."
DAEMON_INFO = 30  # facility 3: systemd's own messages

STAMP_PREFIX = "pstored: boot "

CMDLINE = "BOOT_IMAGE=/boot/vmlinuz root=UUID=6f1d3c52-9a0e-4a57-8e0b-2d1f4c7b9a10 ro loglevel=7"

_START = (
    (KERN_INFO, "BIOS-provided physical RAM map:"),
    (KERN_INFO, "BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable"),
    (KERN_INFO, "BIOS-e820: [mem 0x0000000000100000-0x000000007ffdefff] usable"),
    (KERN_INFO, "BIOS-e820: [mem 0x000000007ffdf000-0x000000007fffffff] reserved"),
    (KERN_INFO, "NX (Execute Disable) protection: active"),
    (KERN_INFO, "tsc: Detected 2400.{clock:03d} MHz processor"),
    (KERN_DEBUG, "e820: update [mem 0x00000000-0x00000fff] usable ==> reserved"),
    (KERN_INFO, "last_pfn = 0x7ffdf max_arch_pfn = 0x400000000"),
    (KERN_INFO, "ACPI: RSDP 0x00000000000F5B30 000014 (v00 FAKE  )"),
    (KERN_INFO, "Zone ranges:"),
    (KERN_INFO, "  DMA32    [mem 0x0000000000001000-0x000000007ffdefff]"),
    (KERN_INFO, "setup_percpu: NR_CPUS:8 nr_cpumask_bits:2 nr_cpu_ids:2 nr_node_ids:1"),
    (KERN_NOTICE, "Kernel command line: {cmdline}"),
    (KERN_INFO, "Memory: {memory}K/2096628K available (14336K kernel code, 2312K rwdata, 9012K rodata)"),
    (KERN_INFO, "rcu: Hierarchical RCU implementation."),
    (KERN_INFO, "rcu: \tRCU restricting CPUs from NR_CPUS=8 to nr_cpu_ids=2."),
    (KERN_INFO, "Console: colour VGA+ 80x25"),
    (KERN_INFO, "printk: console [tty0] enabled"),
    (KERN_INFO, "Calibrating delay loop (skipped), value calculated using timer frequency.. {bogo} BogoMIPS"),
    (KERN_INFO, "pid_max: default: 32768 minimum: 301"),
    (KERN_INFO, "smp: Bringing up secondary CPUs ..."),
    (KERN_INFO, "smp: Brought up 1 node, 2 CPUs"),
    (KERN_INFO, "devtmpfs: initialized"),
    (KERN_INFO, "NET: Registered PF_NETLINK/PF_ROUTE protocol family"),
    (KERN_INFO, "PCI: Using configuration type 1 for base access"),
)
_FOUR_LINES = """Unstable clock detected, switching default tracing clock to "global"
If you want to keep using the local clock, then add:
  "trace_clock=local"
on the kernel command line"""
_LATER = (
    (KERN_INFO, "clocksource: Switched to clocksource tsc-early"),
    (KERN_INFO, "rtc_cmos 00:04: registered as rtc0"),
    (KERN_INFO, "rtc_cmos 00:04: setting system clock to {clock_text} UTC ({began})"),
    (KERN_INFO, "pstore: Registered {backend} as persistent store backend"),
    (KERN_WARNING, _FOUR_LINES),
    (KERN_INFO, "Freeing unused kernel image (initmem) memory: {init}K"),
    (KERN_INFO, "Run /init as init process"),
    (KERN_INFO, "EXT4-fs (vda1): mounted filesystem with ordered data mode"),
    (DAEMON_INFO, "systemd[1]: Detected virtualization kvm."),
    (DAEMON_INFO, "systemd[1]: Mounted sys-fs-pstore.mount - Kernel Persistent Storage."),
    (KERN_INFO, "gauge: loading out-of-tree module taints kernel."),
    (KERN_INFO, "gauge 0000:00:07.0: calibrated, offset {offset}"),
)
_FILLER = (
    (KERN_INFO, "usb 1-{a}: new high-speed USB device number {b} using xhci_hcd"),
    (DAEMON_INFO, "systemd[1]: Started session-{b}.scope - Session {b} of User root."),
    (KERN_WARNING, "gauge 0000:00:07.0: sample {c} out of range, dropped"),
    (KERN_INFO, "EXT4-fs (vda1): re-mounted {c:08x} r/w. Quota mode: none."),
    (KERN_DEBUG, "gauge 0000:00:07.0: poll took {c} ns"),
)


class Message(NamedTuple):
    """One printk record."""

    level: int
    """facility * 8 + level."""
    time_us: int
    """Since boot."""
    caller: str
    """``T<tid>`` or ``C<cpu>``, shown by kernels with CONFIG_PRINTK_CALLER."""
    text: str
    """May have several lines."""


class Log:
    """A kernel log that grows; the clock goes on by itself, differently in each boot."""

    def __init__(self, era: Era, rng: random.Random) -> None:
        self.era = era
        self.rng = rng
        self.kaslr = rng.randrange(1, 0x200) << 21
        self.messages: list[Message] = []
        self.now_us = 0
        self.caller = "T0"

    def say(self, level: int, text: str, *, after_us: int = 0) -> None:
        """Add a message, *after_us* or a few hundred microseconds after the one before."""
        self.now_us += after_us or self.rng.randrange(40, 9000)
        self.messages.append(Message(level, self.now_us, self.caller, text))

    def address(self) -> str:
        """A kernel address on the heap, sixteen digits."""
        return f"ffff{self.rng.randrange(1 << 44) << 4:012x}"


def start(
    log: Log,
    *,
    backend: str,
    boot_id: str,
    began: int,
    clock_text: str,
    stamp_prefix: str = STAMP_PREFIX,
    cmdline: str = CMDLINE,
) -> None:
    """From the banner to the stamp.

    Args:
        began: Unix seconds at time 0 of the log.
        clock_text: the same as text, e.g. ``2026-11-23T04:07:06``.
        stamp_prefix: what stands before the boot id; no stamp where it is empty.
    """
    rng = log.rng
    log.messages.append(Message(KERN_NOTICE, 0, "T0", banner(log.era.release)))
    log.messages.append(Message(KERN_INFO, 0, "T0", f"Command line: {cmdline}"))
    facts = {
        "clock": rng.randrange(1000),
        "cmdline": cmdline,
        "memory": rng.randrange(1_900_000, 1_999_000),
        "bogo": f"{4800 + rng.randrange(100) / 100:.2f}",
        "clock_text": clock_text,
        "began": began,
        "backend": backend,
        "init": rng.randrange(1000, 2900),
        "offset": rng.randrange(1000),
    }
    for level, text in _START:
        log.say(level, text.format(**facts))
    log.caller = "T1"
    for slot in range(32):
        log.say(KERN_INFO, f"pci 0000:00:{slot:02x}.0: [1af4:{0x1000 + slot:04x}] type 00 class 0x0{slot % 9}0000")
        log.say(KERN_INFO, f"pci 0000:00:{slot:02x}.0: BAR 0 [mem 0x{0xFE000000 + slot * 0x4000:08x}-size 0x4000]")
    for level, text in _LATER:
        log.say(level, text.format(**facts), after_us=rng.randrange(20_000, 90_000))
    if stamp_prefix:
        log.caller = f"T{rng.randrange(200, 400)}"
        log.say(USER_WARNING, stamp_prefix + boot_id, after_us=rng.randrange(300_000, 900_000))


def fill(log: Log, size: int) -> None:
    """At least *size* bytes of ordinary chatter."""
    while size > 0:
        level, text = log.rng.choice(_FILLER)
        text = text.format(a=log.rng.randrange(1, 5), b=log.rng.randrange(2, 99), c=log.rng.randrange(1 << 24))
        log.say(level, text, after_us=log.rng.randrange(1000, 400_000))
        size -= len(text) + len("<6>[    0.000000] \n")


def reboot(log: Log) -> None:
    """An orderly reboot, to the last line a console sees."""
    log.caller = "T1"
    log.say(DAEMON_INFO, "systemd-shutdown[1]: Syncing filesystems and block devices.", after_us=700_000)
    log.say(DAEMON_INFO, "systemd-shutdown[1]: Rebooting.")
    log.say(KERN_INFO, "reboot: Restarting system", after_us=20_000)
