# SPDX-License-Identifier: Apache-2.0
"""The log as kdump writes it down: makedumpfile's printk.c, dump_record(); kexec-tools' util_lib/elf_info.c."""

from collections.abc import Iterable

from .klog import Message


def dmesg(messages: Iterable[Message], *, callers: bool = False, indented: bool = True) -> bytes:
    """One text.

    Args:
        messages: the log.
        callers: makedumpfile 1.7.7 and kexec-tools 2.0.31 show them.
        indented: the further lines of a message stand below its first: makedumpfile.
    """
    found = []
    for m in messages:
        prefix = b"[%5d.%06d] " % divmod(m.time_us, 10**6) + (b"[%6s] " % m.caller.encode() if callers else b"")
        newline = b"\n" + b" " * len(prefix) * indented
        text = b"".join(
            newline if c == 10 else bytes((c,)) if 0x20 <= c < 0x7F or c in b"\t\r\v\f" else b"\\x%02x" % c
            for c in m.text.encode(errors="surrogateescape")
        )
        found.append(prefix + text + b"\n")
    return b"".join(found)
