# SPDX-License-Identifier: Apache-2.0
"""What a header rule is, and the pieces that the patterns of all rules share."""

from enum import Enum, auto
from typing import NamedTuple


class Role(Enum):
    """How a line stands to the report around it."""

    REPORT = auto()
    """Begins one."""
    TRAP = auto()
    """The line of die() or its like: begins a report, unless a header stands right before it that it explains."""
    PANIC = auto()
    """``Kernel panic``; see pstored.oops.panics."""


class Rule(NamedTuple):
    """One kind of first line."""

    anchor: bytes
    """A string that the line must hold."""
    kind: str
    pattern: bytes
    """What the line begins with; groups ``function``, ``address``, ``comm``, ``pid``, ``cpu`` where it names them."""
    source: str
    """The file of the kernel that prints it."""
    role: Role = Role.REPORT


TRAP = Role.TRAP

# name+0x12/0x34: the name, or as much of it as damage has left
FN = rb"\.?(?P<function>[A-Za-z_$][\w$.]{0,511})"
AT = rb"(?:0x)?(?P<address>[0-9a-f]{4,16})"
TASK = rb"(?P<comm>.{1,64}?)[:/](?P<pid>\d{1,10})"
ON_CPU = rb"(?:CPU ?(?P<cpu>\d{1,5}):? )?"  # mips, loongarch, alpha
WHO = rb"(?:(?P<comm>[^:]{1,64}?) ?\((?:pid )?(?P<pid>\d{1,10})\): )?"  # sparc, alpha, parisc
CODE = rb": [0-9a-f]{4} (?:ilc:\d )?\[#"  # x86 and s390, die(): error or interruption code, how many-th
WATCHDOG = rb"(?:NMI )?(?:watchdog: )?"
# "+0x12/0x34 [module], CPU#1: comm/83", since 6.17
WHERE = (
    rb"(?:\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}(?: \[[^\]]{1,80}\])?, "
    rb"CPU#(?P<cpu>\d{1,5}): (?P<comm>.{1,64})/(?P<pid>\d{1,10}))?"
)
