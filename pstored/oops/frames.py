# SPDX-License-Identifier: Apache-2.0
"""Call traces and program counters, as every architecture prints them.

A symbol is always ``%pS``: ``name+0x12/0x34 [module]`` (lib/vsprintf.c, kernel/kallsyms.c, sprint_symbol()); what
stands around it differs.  No pattern here can go back over more than a few bytes.
"""

import re
from collections.abc import Iterable

from pstored.oops.model import Frame

#   symbol = name "+0x" offset "/0x" size [" [" module [flags] [" " build id] "]"]
_NAME = rb"\.?([A-Za-z_$][\w$.]{0,511}+)"
_SYMBOL = (
    _NAME + rb"\+0x([0-9a-f]{1,16}+)/0x([0-9a-f]{1,16}+)"
    rb"(?:[)}>]{0,2} {1,2}\[([\w-]{1,64})[^\]]{0,80}\])?"
)
#   x86:      " ? name+0x1/0x2 [mod]", up to 4.9 "[<ffffffff81000000>] ? name+...", 2.6 "[<..>] [<..>]? name"
#   arm64:    " name+0x1/0x2 (P)"; riscv, mips, loongarch, parisc, s390: "[<address>] name+..."; s390 "([<..>] name)"
#   powerpc:  "[stack] [address] name+0x1/0x2 (unreliable)"; sparc: "[address] name", "Caller[address]: name"
_FRAME = re.compile(
    rb"[ \t]{0,16}+(?:(?:Caller|Call)?\(?\[<?(?:0x)?([0-9a-f]{4,16}+)>?\][): ]{0,4}){0,3}"
    rb"(\? {0,2})?[({<]?" + _SYMBOL + rb"[)}>]{0,2}( \(unreliable\))?"
)
#   arm, since 3.10: "[<c0..>] (callee) from [<c0..>] (caller+0x1/0x2)", since 5.15: " callee from caller+0x1/0x2"
_FROM = re.compile(
    rb"[ \t]{0,16}+(?:\[<(?:0x)?([0-9a-f]{4,16}+)>\] )?"
    rb"\(?([A-Za-z_$][\w$.]{0,511}+)(?:\+0x([0-9a-f]{1,8}+)/0x([0-9a-f]{1,8}+))?"
    rb"(?: \[([\w-]{1,64}+)\])?\)? from (?:\[<[0-9a-f]{4,16}+>\] )?\(?" + _SYMBOL
)
#   In their frequent forms, alone on a line, all of these: mark, address, doubt, name; on arm the name's module and the
#   caller; offset, size, module, doubt again.
PLAIN = (
    rb"[ \t]{0,16}+(?:(<{1,2}/?[A-Z#][A-Z_0-9]{1,20}+>{1,2})[ \t]{0,16}+)?+"
    rb"\(?+(?:\[<?([0-9a-f]{4,16}+)>?\] {0,2}+){0,3}+(\? )?+\(?+([A-Za-z_][\w.]{0,511}+)"
    rb"(?:(?: \[([\w-]{1,64}+)\])?+\)?+ from (?:\[<[0-9a-f]{4,16}+>\] )?+\(?+([A-Za-z_][\w.]{0,511}+))?+"
    rb"\+0x([0-9a-f]{1,16}+)/0x([0-9a-f]{1,16}+)(?: \[([\w-]{1,64}+)\])?+\)?+( \(unreliable\))?+"
)
#   an address without a symbol: a module that is gone, generated code
_BARE = re.compile(rb"[ \t]{0,16}(?:\[<?(?P<address>[0-9a-f]{8,16})>?\] {0,2})(?P<doubt>\? )?(?:0x[0-9a-f]{4,16})?$")
_NUMBER = re.compile(rb"[ \t]{0,16}(?P<doubt>\? )?0x(?P<address>[0-9a-f]{5,16})$")

#   <IRQ> name... </IRQ>, up to 4.9 <IRQ> ... <EOI>, <<EOE>>, <#DF>
_MARK = re.compile(rb"[ \t]{0,16}<{1,2}(?P<end>/?)(?P<mark>[A-Z#][A-Z_0-9]{1,20})>{1,2} {0,4}")
_CONTEXTS = {b"IRQ": "irq", b"SOFTIRQ": "softirq", b"NMI": "nmi", b"TASK": "task", b"EOI": "task", b"EOE": "task"}

#   what leads a trace in; arm says Backtrace, kmemleak backtrace, KASAN who allocated and who freed
TITLE = (
    rb"[ \t]{0,8}(?:[Cc]all [Tt]race:|(?:stack )?[Bb]acktrace:|Allocated(?: by task \d[^\n]{0,60})?:"
    rb"|Freed(?: by task \d[^\n]{0,60})?:|(?:Last|Second to last) potentially related work creation:"
    rb"|NMI backtrace for cpu \d|CPU: \d{1,5} (?:UID|PID|Comm)|Uninit was [^\n]{1,40}:|Local variable [^\n]{1,100}:"
    rb"|(?:read|write|read-write|assert no writes|race at unknown)[^\n]{0,40} to 0x[^\n]{0,120}:"
    rb"|(?:allocated|freed) by task \d[^\n]{0,80}:|-> #\d|the existing dependency chain|the shortest dependencies"
    rb"|the dependencies between|the \S{1,30}-irq-(?:un)?safe lock|\.\.\. ?(?:key|acquired) at"
    rb"|to a \S{1,30}-irq-unsafe"
    rb"|(?:\d{1,4}|no) locks? held by|\{[\w-]{1,30}\} state was registered at:|Showing all locks held"
    rb"|Last Breaking-Event-Address:|task:[^\n]{1,80}state:|Sending NMI from CPU|Preemption disabled at:"
    rb"|(?:Task|Stack) dump |(?:rcu: )?(?:RCU grace-period kthread|Stack dump)|Dumping ftrace"
    rb"|hardirqs last|softirqs last|irq event stamp:)"
)
#   kernel/sched/core.c, sched_show_task() up to 5.10: "init   S    0     1      0 0x00000000", "init  R running task"
_TASK_TITLE = re.compile(rb"[^\n]{1,64}? {1,8}[RSDTtXZPIKW] (?:running task|stack:|[ 0-9a-f]{8})")
_UNLOCK_TITLE = re.compile(rb"[^\n]{1,80} release lock \([^\n]{1,120}\) at:$")


def is_task_title(text: bytes) -> bool:
    """Whether a line leads a trace in, though it does not begin with words for that."""
    if text.find(b"  ") >= 0 and _TASK_TITLE.match(text):
        return True
    return text.endswith(b" at:") and _UNLOCK_TITLE.match(text) is not None


def parse_mark(text: bytes) -> tuple[str | None, int]:
    """The stack that x86 says the next frames are on, and where the mark ends; None if there is no mark."""
    found = _MARK.match(text)
    if found is None:
        return None, 0
    if found["end"] or found["mark"] in (b"EOI", b"EOE"):
        return "task", found.end()
    return _CONTEXTS.get(found["mark"], found["mark"].decode().lower()), found.end()


def parse_frame(text: bytes, at: int = 0, context: str = "task") -> Frame | None:
    """The frame that a line names from byte *at* on; None if it names none."""
    found = _FRAME.match(text, at)
    if found is None:
        return None
    address, doubt, name, offset, size, module, unreliable = found.groups(b"")
    return make_frame(address, doubt, name, offset, size, module, unreliable, context)


Words = tuple[bytes, ...]
"""What a line says that is nothing but a frame: two words of its prefix, the groups of PLAIN, one of no meaning here;
empty what it does not say."""
MARK, NAME, CALLER = 2, 5, 7
"""Places of some of them."""


_new = tuple.__new__
"""As Frame() does, but a log has thousands of them."""


def make_frames(lines: Iterable[Words], context: str) -> list[Frame]:
    """The frames of lines none of which names a caller."""
    return [
        _new(
            Frame,
            (
                name.decode(),
                int(offset, 16),
                int(size, 16),
                module.decode() if module else None,
                not (doubt or unreliable),
                int(address, 16) if address else None,
                context,
                None,
                None,
            ),
        )
        for _, _, _, address, doubt, name, _, _, offset, size, module, unreliable, _ in lines
    ]


def make_callees(lines: Iterable[Words], context: str) -> list[Frame]:
    """The frames of lines each of which names a caller, too, who is the next line's callee."""
    return [
        _new(
            Frame,
            (
                name.decode(),
                None,
                None,
                module.decode() if module else None,
                not doubt,
                int(address, 16) if address else None,
                context,
                None,
                None,
            ),
        )
        for _, _, _, address, doubt, name, module, *_ in lines
    ]


def make_caller(line: Words, context: str) -> Frame:
    """The caller that a line names."""
    _, _, _, _, _, _, _, name, offset, size, module, unreliable, _ = line
    return make_frame(b"", b"", name, offset, size, module, unreliable, context)


def make_frame(
    address: bytes,
    doubt: bytes,
    name: bytes,
    offset: bytes,
    size: bytes,
    module: bytes,
    unreliable: bytes,
    context: str,
) -> Frame:
    """The frame that a line's words tell of."""
    return _new(
        Frame,
        (
            name.decode(),
            int(offset, 16) if offset else None,
            int(size, 16) if size else None,
            module.decode() if module else None,
            not (doubt or unreliable),
            int(address, 16) if address else None,
            context,
            None,
            None,
        ),
    )


def parse_from(text: bytes, at: int = 0, context: str = "task") -> tuple[Frame, Frame] | None:
    """On arm: callee and caller, who is the next line's callee; only where the trace ends a frame of its own."""
    found = _FROM.match(text, at)
    if found is None:
        return None
    address, callee, callee_offset, callee_size, callee_module, caller, offset, size, module = found.groups(b"")
    return (
        make_frame(address, b"", callee, callee_offset, callee_size, callee_module, b"", context),
        make_frame(b"", b"", caller, offset, size, module, b"", context),
    )


def parse_bare(text: bytes, at: int = 0, context: str = "task") -> Frame | None:
    """A frame that is only an address."""
    found = _BARE.match(text, at) or _NUMBER.match(text, at)
    if found is None:
        return None
    return Frame(function=None, address=int(found["address"], 16), reliable=not found["doubt"], context=context)


# -- program counters

#   a symbol behind up to two addresses, in (), {}, <> or bare
_WHERE = rb"(?:\(?\[<?[0-9a-f]{4,16}>?\]\)? {0,2}){0,2}[({<]?" + _SYMBOL
_PC_CUE = re.compile(rb"IP|pc|PC|PSW|IAOQ|ERA")
_PC = re.compile(
    rb"(?:.{0,40}?\b)?(?:"
    rb"RIP(?:: ?| !INEXACT! | (?=[0-9a-f]{2}:<))(?:([0-9a-f]{2,4}):)?(?:<[0-9a-f]{8,16}> )?|"  # x86-64
    rb"E?IP: ?(?:([0-9a-f]{4}):)?|EIP is at |"  # i386; x86 up to 4.9 in the second line of a fault
    rb"(?:PC|pc) is at |e?pc {0,3}: {0,3}(?:[0-9a-f]{8,16} )?|"  # arm, alpha; arm64, riscv, mips
    rb"NIP \[[0-9a-f]{8,16}\] |"  # powerpc
    rb"Krnl PSW : [0-9a-f]{8,16} [0-9a-f]{8,16} |"  # s390
    rb"TPC: |IAOQ\[0\]: |ERA: {0,3}(?:[0-9a-f]{8,16} )?)" + _WHERE  # sparc, parisc, loongarch
)
_LR_CUE = re.compile(rb"LR is at |lr ?: |ra is at |ra {0,4}: |LR \[|RPC: |RP\(r2\): |I7: ")
_LR = re.compile(
    rb"(?:.{0,60}?\b)?(?:LR is at |lr ?: |ra is at |\bra {0,4}: {0,5}(?:[0-9a-f]{8,16} )?|LR \[[0-9a-f]{8,16}\] |"
    rb"RPC: |RP\(r2\): |I7: )" + _WHERE
)
_USER_SELECTORS = frozenset((b"0033", b"0023", b"002b", b"0073", b"33", b"23"))


def parse_pc(text: bytes) -> Frame | None:
    """Where the processor was, if this line says so and it was in the kernel."""
    found = None if _PC_CUE.search(text) is None else _PC.match(text)
    if found is None:
        return None
    selector, other_selector, *words = found.groups(b"")
    return None if selector in _USER_SELECTORS or other_selector in _USER_SELECTORS else _position(words)


def parse_lr(text: bytes) -> Frame | None:
    """Where it would have returned to: arm's LR and its like."""
    found = None if _LR_CUE.search(text) is None else _LR.match(text)
    return None if found is None else _position(found.groups(b""))


USER_PC = rb"[ \t]{0,8}(?:RIP|EIP|IP): (?:0033|0023|002b|0073):"
"""The program counter of user space, where a system call came from."""


_LABEL = re.compile(rb"LC\d{1,6}$")
"""A constant's label: no function, the processor jumped into data."""


def _position(words: Iterable[bytes]) -> Frame | None:
    """Of name, offset, size and module."""
    name, offset, size, module = words
    return None if _LABEL.match(name) else make_frame(b"", b"", name, offset, size, module, b"", "task")
