# SPDX-License-Identifier: Apache-2.0
"""What a program reads from /dev/kmsg of the running kernel, one record a read(2).

Source: kernel/printk/printk.c, info_print_ext_header(), msg_add_ext_text() and msg_add_dict_text().
"""

from collections.abc import Iterable

from .klog import Message


def _escaped(text: bytes) -> bytes:
    # isprint() of ASCII, and the backslash itself
    return b"".join(b"%c" % c if 0x20 <= c < 0x7F and c != 0x5C else b"\\x%02x" % c for c in text)


def record(message: Message, sequence: int, *, callers: bool = False, device: tuple[str, str] | None = None) -> bytes:
    """One message, e.g. ``b"6,339,5140900,-;NET: Registered\\n"``.

    Args:
        message: what was logged.
        sequence: its number since boot.
        callers: CONFIG_PRINTK_CALLER.
        device: subsystem and device, of a message by dev_printk().
    """
    caller = f",caller={message.caller}" if callers else ""
    head = f"{message.level},{sequence},{message.time_us},-{caller};".encode()
    lines = [head + _escaped(message.text.encode(errors="surrogateescape"))]
    for key, value in zip(("SUBSYSTEM", "DEVICE"), device or (), strict=False):
        lines.append(b" " + _escaped(f"{key}={value}".encode()))
    return b"".join(line + b"\n" for line in lines)


def records(messages: Iterable[Message], *, first: int = 0, callers: bool = False) -> list[bytes]:
    """Messages in a row; what speaks of a PCI device names it, too."""
    found = []
    for number, message in enumerate(messages, first):
        words = message.text.split(" ")
        device = ("pci", f"+pci:{words[1]}") if words[0] == "pci" and len(words) > 1 else None
        found.append(record(message, number, callers=callers, device=device))
    return found
