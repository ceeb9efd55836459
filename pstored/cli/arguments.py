# SPDX-License-Identifier: Apache-2.0
"""What is typed behind an option, as a value."""

from argparse import ArgumentTypeError

_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def count(text: str) -> int:
    """A number of things, from 1 on."""
    if not text.isascii() or not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def byte_count(text: str) -> int:
    """Bytes: ``4096``, ``0x1000``, ``4K``."""
    shift = _UNITS.get(text[-1:].upper(), 0)
    try:
        value = int(text[:-1] if shift else text, 0)
    except ValueError:
        value = -1
    if value < 0:
        raise ArgumentTypeError(f"{text!r} is no number of bytes, as 4096, 0x1000 and 4K are")
    return value << shift


def parameter(text: str) -> tuple[str, str]:
    """A name and a value: ``ramoops.record_size=0x20000``."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
