# SPDX-License-Identifier: Apache-2.0
"""Names of functions: what compilers, architectures and languages add to them, taken off."""

import re
from functools import lru_cache

#   __x64_sys_mount, __se_sys_mount, SyS_mount, __arm64_compat_sys_ioctl: include/linux/syscalls.h, arch/*/include/asm
_SYSCALL = re.compile(
    r"(?:__(?:x64|ia32|arm64|arm|s390x?|riscv|powerpc|loongarch|se|do)_)?"
    r"(?:_{0,4}(?:se_|do_)?(?:compat_)?sys_|compat_SyS_|compat_SYSC_|SyS_|SYSC_|ksys_)"
)
_MANGLED = re.compile(r"_R[A-Z]|__?Z[0-9N]")
_DIGITS = re.compile(r"[0-9]{1,4}")
_HASH = re.compile(r"h[0-9a-f]{16}")


def bare(name: str) -> str:
    """A symbol without what the compiler put behind it: ``f`` of ``f.isra.0.cold``, of "
    "``f.llvm.123``, of ``f$abc``."""
    name = name.lstrip(".")
    return name.split(".")[0].split("$")[0] or name


@lru_cache(maxsize=4096)
def readable(name: str) -> str:
    """A symbol as its source has it: no compiler suffix; of a mangled name, its last part."""
    return (_last_identifier(name) if _MANGLED.match(name) else None) or bare(name)


def _last_identifier(name: str) -> str | None:
    """The last ``<length>name`` of a mangled symbol: the function itself (rust: RFC 2603, "
    "before it ``_ZN...17h<hash>E``)."""
    for found in _DIGITS.finditer(name, 2):
        start = len(name) - int(found[0])
        if start in (found.end(), found.end() + 1) and name[start:].isidentifier():
            return name[start:]
    words = []
    at = 2
    while (number := _DIGITS.search(name, at)) is not None:
        start = number.end() + (name[number.end() : number.end() + 1] == "_")
        word = name[start : start + int(number[0])]
        at = number.end()
        if word.isidentifier() and len(word) == int(number[0]):
            words.append(word)
            at = start + len(word)
    if words and _HASH.fullmatch(words[-1]):
        words.pop()
    return words[-1] if words else None


def strip_syscall(name: str) -> str:
    """``mount`` of ``__x64_sys_mount``: the call's name, the same on every architecture and build."""
    found = _SYSCALL.match(name)
    return name if found is None else name[found.end() :] or name
