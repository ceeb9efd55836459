# SPDX-License-Identifier: Apache-2.0
"""A machine that lives through a scenario: boots that crash one after the other, and the boot that looks at it all."""

import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from . import fault, ftrace, klog, pmsg
from .damage import ecc_notice, garbage
from .dump import console_text, syslog_lines
from .host import Host
from .keeper import Keeper
from .kernels import ECC_PARITY, ZONE, capacity, zone_data_size
from .mce import mce_record
from .model import BootTruth, Options, Record
from .names import record_name
from .scenarios import Scenario

_EPOCH = 1_795_000_000
"""A few days before the captures were made (November 2026)."""
_CONSOLE_SIZE = ZONE // 2
_FTRACE_CALLS = 400
_BETWEEN = 2000
"""Bytes of ordinary chatter between two oopses: some seconds."""


class Outcome(NamedTuple):
    """All there is to write, and the truth about it."""

    records: list[Record]
    host: Host
    boots: list[BootTruth]
    hidden: list[str]


@dataclass(slots=True)
class _Boot:
    """A boot while it runs."""

    truth: BootTruth
    log: klog.Log
    dumps: int = 0
    oopses: int = 0

    def now_ns(self) -> int:
        """Wall clock."""
        return self.truth.began * 1_000_000_000 + self.log.now_us * 1000 + self.truth.began % 1000


class _Machine:
    def __init__(self, scenario: Scenario, options: Options) -> None:
        self.scenario = scenario
        self.options = options
        self.rng = random.Random(f"{options.seed} {options.backend} {scenario.what}")
        self.keeper = Keeper(options)
        self.boots: list[BootTruth] = []
        self.cmdline = f"{klog.CMDLINE} {scenario.cmdline}".rstrip()

    def boot_id(self) -> str:
        given = self.options.boot_ids[len(self.boots) : len(self.boots) + 1]
        return given[0] if given else str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def live(self, number: int, began: int) -> _Boot:
        """One boot from banner to end."""
        truth = BootTruth(self.boot_id(), began, self.scenario.boots[number])
        boot = _Boot(truth, klog.Log(self.options.era, self.rng))
        self.boots.append(truth)
        self.keeper.new_boot()
        klog.start(
            boot.log,
            backend=self.options.backend,
            boot_id=truth.boot_id,
            began=began,
            clock_text=datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            stamp_prefix=self.options.stamp_prefix,
            cmdline=self.cmdline,
        )
        room = capacity(self.options.era, self.keeper.algorithm, self.keeper.bufsize)
        klog.fill(boot.log, max(self.scenario.filler, (self.options.parts or 0) * room))
        for event in truth.events:
            self.happen(event, boot, number)
        self.boots[-1] = truth._replace(messages=tuple(boot.log.messages))
        return boot

    def happen(self, event: str, boot: _Boot, number: int) -> None:
        """One of scenarios.EVENTS."""
        log = boot.log
        if event in ("oops", "fault"):
            if boot.oopses:
                klog.fill(log, _BETWEEN)
            boot.oopses += 1
            registers = fault.oops(log, number=boot.oopses)
            if event == "oops":
                self.dump(boot, b"Oops")
            fault.repeat_registers(log, registers)
            if not {"panic", "die"} & set(boot.truth.events):
                fault.survive(log)
        elif event in ("panic", "die"):
            follows = bool({"oops", "fault"} & set(boot.truth.events))
            cause = fault.PANIC_FATAL if follows else fault.PANIC_SYSRQ
            fault.panic(log, cause, trace=not follows)
            if event == "panic":
                self.dump(boot, b"Panic")
            fault.after_panic(log, cause, reboots="panic=" in self.scenario.cmdline)
        elif event == "mce":
            self.machine_check(boot, self.scenario.mce_lengths[number])
        elif event == "emergency":
            self.dump(boot, b"Emergency")
        else:
            klog.reboot(log)
            if event == "shutdown":
                self.dump(boot, self.options.era.shutdown)

    def machine_check(self, boot: _Boot, length: int) -> None:
        """ERST keeps struct mce before the panic is dumped."""
        fault.machine_check(boot.log)
        when_ns = boot.now_ns()
        content = mce_record(length, time=when_ns // 1_000_000_000, ip=0xFFFFFFFF81000000 + boot.log.kaslr)
        self.keeper.add("mce", self.keeper.next_erst_id(when_ns), content, None, f"struct mce, {length} bytes")
        fault.panic(boot.log, fault.PANIC_MCE, trace=False)
        self.dump(boot, b"Panic")

    def dump(self, boot: _Boot, reason: bytes) -> None:
        """kmsg_dump(): the backend takes what it can of the log so far."""
        boot.dumps += 1
        lines = [
            syslog_lines(message, times=self.scenario.times, callers=self.scenario.callers)
            for message in boot.log.messages
        ]
        took_ns = self.keeper.dump(lines, reason, boot.dumps, boot.now_ns(), kmsg_bytes=self.scenario.kmsg_bytes)
        boot.log.now_us += took_ns // 1000

    def zones(self, boot: _Boot) -> None:
        """The zones of the last boot; those of earlier ones were lost when it began."""
        era, stamp = self.options.era, self.options.stamp_prefix and self.options.stamp_prefix + boot.truth.boot_id
        for zone in self.scenario.zones:
            if zone == "console":
                text = console_text(
                    boot.log.messages, loglevel=7, times=self.scenario.times, callers=self.scenario.callers
                )
                size = zone_data_size(_CONSOLE_SIZE, 0 if self.options.ecc is None else ECC_PARITY)
                self.keeper.add("console", 0, text[-size:], None, f"console, the last {min(size, len(text))} bytes")
            elif zone == "ftrace":
                self.keeper.add("ftrace", 0, self.ftrace(boot), None, f"ftrace, {_FTRACE_CALLS} calls")
            elif era.pmsg and zone == "pmsg":
                self.keeper.add("pmsg", 0, pmsg.plain(self.rng, stamp), None, "pmsg, plain text")
            elif era.pmsg and zone == "pmsg-android":
                content = pmsg.android(self.rng, stamp, boot.truth.began)
                self.keeper.add("pmsg", 0, content, None, "pmsg, Android frames")

    def ftrace(self, boot: _Boot) -> bytes:
        """The text of the ftrace file; without ECC the reading kernel has the same symbols."""
        content = ftrace.pack(ftrace.calls(self.rng, _FTRACE_CALLS, kaslr=boot.log.kaslr))
        if self.options.ecc is not None:
            content += ecc_notice(self.options.ecc)
        return ftrace.show(content, kaslr=boot.log.kaslr, with_counter=self.options.era.ftrace_ts)

    def oddities(self, records: list[Record], mounted_ns: int) -> list[Record]:
        """Files that should not be there; one whose name is taken already stays away."""
        taken = {record.name for record in records}
        odd = []
        for kind, suffix, data, what in garbage(self.rng):
            name = record_name(kind, self.options.backend, None) + suffix
            if name not in taken:
                odd.append(Record(name, data, mounted_ns, what))
        return sorted([*records, *odd])


def run(scenario: Scenario, options: Options) -> Outcome:
    """Live through a scenario; the same arguments always give the same outcome.

    Raises:
        ValueError: backend, kernel and scenario do not go together.
    """
    if scenario.needs_ecc and options.ecc is None:
        raise ValueError("this scenario needs ECC: --ecc old or --ecc new")
    machine = _Machine(scenario, options)
    clock = _EPOCH + machine.rng.randrange(400_000)
    for number in range(len(scenario.boots)):
        boot = machine.live(number, clock)
        clock = boot.now_ns() // 1_000_000_000 + machine.rng.randrange(9, 30)
    machine.zones(boot)
    host = Host(
        boot_id=machine.boot_id(),
        kernel=options.era.release,
        btime=clock,
        backend=options.backend,
        cmdline=machine.cmdline,
    )
    mounted_ns = clock * 1_000_000_000 + 1_400_000_000 + machine.rng.randrange(400_000_000)
    records = machine.keeper.show(mounted_ns, machine.rng)
    if scenario.garbage:
        records = machine.oddities(records, mounted_ns)
    return Outcome(records, host, machine.boots, machine.keeper.hidden)
