# SPDX-License-Identifier: Apache-2.0
"""What a report says of its circumstances: task, CPU, kernel, taint, hardware, registers, modules, code."""

import re
from typing import NamedTuple

# -- the task and the kernel

#   CPU: 1 UID: 0 PID: 83 Comm: init Kdump: loaded Tainted: G W 6.12.1 #1     lib/dump_stack.c, dump_stack_print_info()
#   Pid: 83, comm: init Tainted: P 3.1.0 #1          up to 3.9
#   Pid: 1, comm: swapper Not tainted (2.6.32 #1)  arch/x86/kernel/process_32.c
_CPU = re.compile(
    rb"(?:CPU: ?(\d{1,5}) {1,4}(?:UID: ?\d{1,10} )?PID: (\d{1,10}) Comm: (.{1,64}?) {1,2}"
    rb"|Pid: (\d{1,10}), comm: {1,3}(.{1,64}?) {1,2}(?:veid: \d{1,10} )?)"
    rb"(?:Kdump: loaded )?(?:xid: \S{1,20} )?(?:Not tainted|Tainted:([ A-Z()-]{0,80}))"
    rb"(?: {0,20}\(?(\d{1,3}\.\d{1,4}[^\s)]{0,100}))?"
)
#   arm up to 3.9: "CPU: 0    Not tainted  (3.0.0 #1)"; lockdep: "6.1.0 #1 Not tainted"
_CPU_ARM = re.compile(
    rb"CPU: (?P<cpu>\d{1,5}) {1,8}(?:Not tainted"
    rb"|Tainted:(?P<taint>[ A-Z]{0,80})) {1,4}\(?(?P<release>\d{1,3}\.[^\s)]{1,100})"
)
_LOCKDEP = re.compile(
    rb"(?P<release>\d{1,3}\.\d{1,4}\S{0,100}) #\S{1,40}[^\n]{0,80}? (?:Not tainted"
    rb"|Tainted:(?P<taint>[ A-Z]{0,80}))"
)
_HUNG = re.compile(
    rb" {4,8}(?:Not tainted|Tainted:(?P<taint>[ A-Z]{0,80}?)) {1,20}(?P<release>\d{1,3}\.\d{1,4}\S{0,100}) #"
)
_PROCESS = re.compile(
    rb"Process (?P<comm>.{1,64}?) \(pid: (?P<pid>\d{1,10})"
    rb"|(?P<comm2>.{1,64}?)/(?P<pid2>\d{1,10}) is (?:trying|leaving|freeing)"
)
_BY_TASK = re.compile(rb"(?:Read|Write|Accessed)[^\n]{0,80} by task (?P<comm>.{1,64})/(?P<pid>\d{1,10})")
_HARDWARE = re.compile(rb"(?:Hardware name|Machine model): ([^\n]{1,200})")
_MODULE = re.compile(rb"([\w-]{1,64})(?:\([A-Z+-]{0,12}\))?$")
_CODE = re.compile(rb"(?:Krnl )?Code: ([0-9a-f<(][0-9a-f<>() ]{1,1000})")

TAINTS = {
    "P": "a proprietary module was loaded",
    "F": "a module was loaded by force",
    "S": "the processor or kernel is out of its specification",
    "R": "a module was removed by force",
    "M": "a machine check has happened",
    "B": "a bad page has been seen",
    "U": "user space asked for this taint",
    "D": "the kernel had died before: an oops or BUG",
    "A": "an ACPI table was overridden",
    "W": "a warning had been printed before",
    "C": "a staging driver was loaded",
    "I": "a bug in the firmware was worked around",
    "O": "a module from outside the kernel's tree was loaded",
    "E": "a module without a valid signature was loaded",
    "L": "a soft lockup had happened before",
    "K": "the kernel was live-patched",
    "X": "the distribution's own taint",
    "T": "structures are randomized",
    "N": "a test of the kernel's own was run",
    "J": "a mutating fwctl operation was done",
}
"""kernel/panic.c, taint_flags; ``G`` only says that no proprietary module was loaded."""


def explain_taint(taint: str) -> list[tuple[str, str]]:
    """Letter and meaning of each."""
    return [(letter, TAINTS.get(letter, "not known to pstored")) for letter in taint]


class Task(NamedTuple):
    """Who ran, on what kernel; None is what the line does not say."""

    comm: bytes | None
    pid: int | None
    cpu: int | None
    release: bytes | None
    taint: str | None


def parse_task(text: bytes) -> Task | None:
    """The line of dump_stack_print_info() and its ancestors; None if this is none."""
    found = _CPU.search(text)
    if found is not None:
        cpu, pid, comm, old_pid, old_comm, taint, release = found.groups()
        return Task(comm or old_comm, int(pid or old_pid), None if cpu is None else int(cpu), release, _taint(taint))
    found = _CPU_ARM.match(text)
    if found is not None:
        cpu, taint, release = found.groups()
        return Task(None, None, int(cpu), release, _taint(taint))
    found = _LOCKDEP.match(text) or _HUNG.match(text)
    return None if found is None else Task(None, None, None, found["release"], _taint(found["taint"]))


_LETTERS = frozenset(b"PFSRMBUDAWCIOELKXTNJ")


def _taint(letters: bytes | None) -> str:
    return "" if letters is None else bytes(sorted(_LETTERS.intersection(letters))).decode()


def parse_owner(text: bytes) -> tuple[bytes, int] | None:
    """Name and number of the task, where only another line has them (arm, lockdep, KASAN)."""
    if b"rocess " not in text and b" by task " not in text and b" is " not in text:
        return None
    found = _PROCESS.match(text) or _BY_TASK.match(text)
    if found is None:
        return None
    groups = found.groupdict()
    return groups["comm"] or groups["comm2"], int(groups["pid"] or groups["pid2"])


def parse_hardware(text: bytes) -> bytes | None:
    """The machine's name."""
    found = _HARDWARE.match(text)
    return None if found is None else found[1].strip()


def parse_modules(text: bytes) -> tuple[str, ...]:
    """Names of the loaded modules."""
    words = text.partition(b":")[2].split(b"[last unloaded")[0].split()
    return tuple(module[1].decode() for word in words if (module := _MODULE.match(word)) is not None)


def parse_code(text: bytes) -> str | None:
    """The bytes around the program counter."""
    found = _CODE.match(text.lstrip())
    return None if found is None else found[1].decode().strip()


# -- registers

#   x86 "RAX: ffff888003a1 RBX: ...", arm "r7 : 00000000  r6 : c0a03d48", arm64 "x29: ffff80", riscv " gp : ffff",
#   powerpc "GPR00: v v v v", mips "$ 0   : v v v v", s390 "Krnl GPRS: v v v v",
#   sparc "g0: v g1: v", parisc "r00-03  v v"
_NAMED = re.compile(rb"(?:^|[ \t\n])([A-Za-z][A-Za-z0-9_]{0,9}) ?[:=] ?(?:[0-9a-f]{4}:)?([0-9a-f]{8,16})\b")
_ROW = re.compile(
    rb"[ \t]{0,8}(?P<name>GPR|Krnl GPRS|\$ ?|r|sr)(?P<first>\d{0,2})"
    rb"(?:-\d\d)? {0,4}:? {1,4}(?P<values>[0-9a-f]{8,16}(?: [0-9a-f]{8,16}){1,7})"
)
REGISTERS = (
    rb"[ \t]{0,8}+(?!REGS)(?:[A-Za-z][A-Za-z0-9_]{0,9}+|\$ ?\d{0,2}|Krnl GPRS)(?:-\d\d)?"
    rb" {0,4}[:=]? {1,4}[0-9a-f]{8,16}+(?:[ \t]|$)"
)
"""What a line begins with that says nothing but registers: one of them."""
_VALUE = re.compile(rb"[:=] ?(?:[0-9a-f]{4}:)?[0-9a-f]{8}")
_NO_REGISTERS = frozenset((b"Code", b"Comm", b"address", b"Oops", b"EFLAGS"))


def parse_register_row(text: bytes) -> list[tuple[str, int]]:
    """The registers of a line that names only its first; empty if this is none."""
    row = _ROW.match(text) if text.lstrip()[:1] in _ROWS else None
    if row is None:
        return []
    prefix = {b"GPR": "r", b"Krnl GPRS": "r", b"$": "$", b"$ ": "$"}.get(row["name"], row["name"].decode())
    first = int(row["first"] or 0)
    return [(f"{prefix}{first + n}", int(v, 16)) for n, v in enumerate(row["values"].split())]


def has_registers(text: bytes) -> bool:
    """Whether a line names registers and their values."""
    return _VALUE.search(text) is not None and _NAMED.search(text) is not None


def parse_registers(text: bytes) -> dict[str, int]:
    """All registers that a text names; where it names one twice, the first."""
    found: dict[str, int] = {}
    for name, value in _NAMED.findall(text):
        if name not in _NO_REGISTERS:
            found.setdefault(name.decode(), int(value, 16))
    return found


_ROWS = frozenset((b"G", b"K", b"$", b"r", b"s"))
"""What the lines begin with that name only the first of their registers."""
