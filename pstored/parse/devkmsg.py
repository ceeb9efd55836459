# SPDX-License-Identifier: Apache-2.0
r"""Records of /dev/kmsg, and the same as the lines of a pstore dump: so the two can be compared byte by byte.

Source: Documentation/ABI/testing/dev-kmsg; kernel/printk/printk.c: info_print_ext_header(), msg_add_ext_text() and
msg_add_dict_text() write the records, record_print_text() and info_print_prefix() the lines.

Whoever may write to /dev/kmsg chooses text and level, but neither the facility 0, which is the kernel's own, nor what
stands before the text: newlines and backslashes in it are escaped.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

#   record = priority "," sequence "," microseconds "," flags *("," key "=" value) ";" text LF *(" " key "=" value LF)
# Header fields that come with later kernels are passed over, as the ABI demands.
_RECORD = re.compile(rb"([0-9]{1,5}),([0-9]{1,20}),([0-9]{1,20}),([^,;\n]{0,16})((?:,[^;\n]{0,512})?);([^\n]*)")
_CALLER = re.compile(rb",caller=([TC][0-9]{1,10})(?=,|\Z)")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


class Message(NamedTuple):
    """One printk record."""

    priority: int
    """facility * 8 + level."""
    sequence: int
    """Goes up by one from message to message, from the beginning of the boot."""
    time_us: int
    """Since that boot began."""
    caller: bytes | None
    """``T<thread>`` or ``C<cpu>`` with CONFIG_PRINTK_CALLER."""
    text: bytes
    """Unescaped; may have several lines, without the last newline."""


def parse_devkmsg(data: bytes) -> Iterator[Message]:
    r"""Give the messages in what was read from /dev/kmsg, one record or many; what is none is passed over.

    Args:
        data: whole lines, e.g. ``b"6,339,5140900,-,caller=T1;NET: Registered\n SUBSYSTEM=net\n"``.
    """
    for line in data.split(b"\n"):
        found = None if line.startswith(b" ") else _RECORD.fullmatch(line)
        if found is None:
            continue
        caller = _CALLER.search(found[5])
        text = found[6]
        yield Message(
            priority=int(found[1]),
            sequence=int(found[2]),
            time_us=int(found[3]),
            caller=None if caller is None else caller[1],
            text=unescape(text),
        )


def unescape(text: bytes) -> bytes:
    r"""Undo ``\x0a`` for a newline, ``\x5c`` for a backslash, and so on."""
    return _ESCAPED.sub(lambda found: bytes((int(found[1], 16),)), text) if b"\\" in text else text


def format_message(message: Message, *, times: bool) -> bytes:
    r"""The message as a pstore dump has it: ``b"<6>[    5.140900][    T1] NET: Registered\n"``.

    Args:
        message: each of its lines gets the prefix.
        times: as /sys/module/printk/parameters/time says; without, ``b"<6>NET: Registered\n"``.
    """
    prefix = b"<%d>" % message.priority
    if times:
        prefix += b"[%5d.%06d]" % divmod(message.time_us, 1_000_000)
    if message.caller is not None:
        prefix += b"[%6s]" % message.caller
    if times or message.caller is not None:
        prefix += b" "
    return b"".join(prefix + line + b"\n" for line in message.text.split(b"\n"))
