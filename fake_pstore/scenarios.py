# SPDX-License-Identifier: Apache-2.0
"""What can have happened, as data: for ``--scenario``."""

from dataclasses import dataclass

from .dump import KMSG_BYTES
from .kernels import BACKENDS

EVENTS = {
    "oops": "oopses, dumps, goes on",
    "fault": "oopses, but no dump is stored",
    "panic": "panics, dumps",
    "die": "panics, but no dump is stored",
    "emergency": "restarts after a panic by emergency_restart(), dumps (printk.always_kmsg_dump)",
    "mce": "takes a fatal machine check: stores it, panics, dumps",
    "shutdown": "reboots in order, dumps (printk.always_kmsg_dump)",
    "reboot": "reboots in order, no dump",
}
"""What a boot can do, in the words of Scenario.boots."""

ZONED = tuple(name for name, backend in BACKENDS.items() if backend.zones)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One story; how it looks depends on backend and kernel."""

    what: str
    boots: tuple[tuple[str, ...], ...]
    """What each boot did, in words of EVENTS, oldest boot first; nothing was collected in between."""
    backends: tuple[str, ...] = tuple(BACKENDS)
    zones: tuple[str, ...] = ()
    """Of the last boot: ``console pmsg pmsg-android ftrace``."""
    needs_ecc: bool = False
    mce_lengths: tuple[int, ...] = ()
    """Length of struct mce in each boot's kernel."""
    garbage: bool = False
    times: bool = True
    """printk.time"""
    callers: bool = False
    """CONFIG_PRINTK_CALLER"""
    filler: int = 4000
    """Bytes of ordinary chatter between the stamp and the first event."""
    cmdline: str = ""
    """Added to the kernel's command line: what makes it do so."""
    kmsg_bytes: int = KMSG_BYTES


SCENARIOS = {
    "panic": Scenario(what="a panic by sysrq-c", boots=(("panic",),)),
    "oops": Scenario(what="an oops that the machine survived until it was rebooted", boots=(("oops", "reboot"),)),
    "two-oopses": Scenario(
        what="two oopses of one boot, seconds apart, that the machine survived", boots=(("oops", "oops", "reboot"),)
    ),
    "oops-panic": Scenario(
        what="an oops, then the panic it led to: two dumps of one boot",
        boots=(("oops", "panic"),),
        cmdline="oops=panic",
    ),
    "emergency": Scenario(
        what="a panic, and the emergency restart that dumps again",
        boots=(("oops", "panic", "emergency"),),
        cmdline="oops=panic panic=1 printk.always_kmsg_dump=Y",
    ),
    "two-boots": Scenario(
        what="two boots crashed before anything was collected",
        boots=(("oops", "panic"), ("panic",)),
        cmdline="oops=panic",
    ),
    "shutdown": Scenario(
        what="an orderly reboot that was dumped: no crash", boots=(("shutdown",),), cmdline="printk.always_kmsg_dump=Y"
    ),
    "console-only-crash": Scenario(
        what="a panic that only the console zone saw",
        boots=(("fault", "die"),),
        backends=ZONED,
        zones=("console",),
        cmdline="oops=panic",
    ),
    "console-only-clean": Scenario(
        what="an orderly reboot in the console zone: no crash",
        boots=(("reboot",),),
        backends=ZONED,
        zones=("console", "pmsg"),
    ),
    "all-zones": Scenario(
        what="a panic with console, pmsg and ftrace zones",
        boots=(("oops", "panic"),),
        backends=ZONED,
        zones=("console", "pmsg", "ftrace"),
        cmdline="oops=panic",
    ),
    "pmsg-android": Scenario(
        what="a panic with Android frames in pmsg",
        boots=(("panic",),),
        backends=ZONED,
        zones=("console", "pmsg-android"),
    ),
    "ftrace-ecc": Scenario(
        what="ftrace text out of step by the ECC notice (kernels up to 6.12)",
        boots=(("panic",),),
        backends=("ramoops",),
        zones=("ftrace",),
        needs_ecc=True,
    ),
    "mce": Scenario(
        what="fatal machine checks of four kernels: struct mce of 88, 112, 120 and 128 bytes",
        boots=(("mce",),) * 4,
        backends=("erst",),
        mce_lengths=(88, 112, 120, 128),
    ),
    "big": Scenario(
        what="a dump of more than 100 parts: the part number runs over into the seconds of the id",
        boots=(("panic",),),
        backends=("efi", "efi_pstore"),
        filler=200_000,
        kmsg_bytes=1 << 20,
    ),
    "garbage": Scenario(
        what="a panic among names, types and contents that no kernel gives", boots=(("panic",),), garbage=True
    ),
    "printk-time-off": Scenario(
        what="lines without timestamps", boots=(("oops", "panic"),), times=False, cmdline="oops=panic printk.time=0"
    ),
    "caller-ids": Scenario(
        what="lines with the task or CPU that spoke", boots=(("oops", "panic"),), callers=True, cmdline="oops=panic"
    ),
}
