# SPDX-License-Identifier: Apache-2.0
"""What is typed behind an option, as a value."""

from argparse import ArgumentTypeError

NETCONSOLE_PORT = 6666
"""Where kernels send to: drivers/net/netconsole.c."""

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


def seconds(text: str) -> float:
    """A time of no more than an hour: ``5``, ``0.5``."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 3600:
        raise ArgumentTypeError(f"{text!r} is no number of seconds between 0 and 3600")
    return value


def endpoint(text: str) -> tuple[str, int]:
    """An address and a port: ``10.0.0.1``, ``10.0.0.1:6670``, ``::1``, ``[::1]:6670``, ``:6670``."""
    from ipaddress import ip_address  # only here: no other command is to load it

    address, colon, port = text.rpartition(":")
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        colon, port = port[:1], port[1:]
    elif not colon or ":" in address:  # no port, or IPv6 without one
        address, colon, port = text, "", ""
    try:
        number = int(port) if colon else NETCONSOLE_PORT
        found = str(ip_address(address or "::"))
    except ValueError:
        number, found = 0, ""
    if not 0 < number < 65536:
        raise ArgumentTypeError(f"{text!r} is not ADDRESS[:PORT], as 10.0.0.1:6666 and [::1]:6666 are")
    return found, number


def parameter(text: str) -> tuple[str, str]:
    """A name and a value: ``ramoops.record_size=0x20000``."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
