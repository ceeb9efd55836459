# SPDX-License-Identifier: Apache-2.0
"""What stands in the file of a program that logs a serial console: boots one after the other, firmware between."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone

from .dump import console_text
from .klog import Message
from .model import BootTruth

SEABIOS = b"SeaBIOS (version 1.16.2-debian-1.16.2-1)\r\n\x1b[2J\x1b[01;01HBooting from Hard Disk...\r\n"
UBOOT = b"\0\0\r\nU-Boot SPL 2023.01 (Jan 09 2023)\r\nTrying to boot from MMC1\r\nHit any key to stop autoboot:  0 \r\n"
GRUB = b"\x1b[H\x1b[J\x1b[1;1H\x1b[2J\x1b[7m  GNU GRUB  version 2.06\x1b[m\r\n"
LOGIN = b"\r\nDebian GNU/Linux 12 board ttyS0\r\n\r\nboard login: "

Stamp = Callable[[datetime], str]
"""What a logger puts before a line that came at that time (UTC)."""


def _zoned(when: datetime) -> str:
    east = when.astimezone(timezone(timedelta(hours=1)))
    return f"[{east:%Y-%m-%dT%H:%M:%S}.{east.microsecond // 1000:03d}+0100] "


LOGGERS: dict[str, Stamp] = {
    "minicom": lambda t: f"[{t:%Y-%m-%d %H:%M:%S}] ",
    "tio": _zoned,
    "tio-24h": lambda t: f"[{t:%H:%M:%S}.{t.microsecond // 1000:03d}] ",
    "ser2net": lambda t: f"{t:%Y/%m/%d %H:%M:%S} ",
    "container": lambda t: f"{t:%Y-%m-%dT%H:%M:%S.%f}Z ",
    "ts": lambda t: f"{t:%b %d %H:%M:%S} ",
    "ts-epoch": lambda t: f"{t.timestamp():.6f} ",
    "conserver": lambda t: f"[{t:%a %b %e %H:%M:%S %Y}] ",
    "grabserial": lambda t: f"[{t.timestamp() % 1000:.6f} 0.000123] ",
    "syslog": lambda t: f"{t:%b %e %H:%M:%S} board kernel: ",
    "rsyslog": lambda t: f"{t:%Y-%m-%dT%H:%M:%S.%f}+00:00 board kernel: ",
}
"""The forms of programs that stamp what they write down."""


def _stamped(text: bytes, stamp: Stamp, began: int, messages: Sequence[Message]) -> bytes:
    # each line at the time of its message; what is no message's, at that of the one before
    times = {f"[{m.time_us // 1_000_000:5d}.{m.time_us % 1_000_000:06d}]".encode(): m.time_us for m in messages}
    lines = []
    now = 0
    for line in text.split(b"\n")[:-1]:
        now = times.get(line[:14], now)
        lines.append(stamp(datetime.fromtimestamp(began, UTC) + timedelta(microseconds=now)).encode() + line + b"\n")
    return b"".join(lines)


def boot(truth: BootTruth, *, logger: str | None = None, loglevel: int = 8, times: bool = True) -> bytes:
    """The console of one boot, from the banner to its last line, with the line ends of a serial line."""
    text = console_text(truth.messages, loglevel=loglevel, times=times)
    if logger is not None:
        text = _stamped(text, LOGGERS[logger], truth.began, truth.messages)
    return text.replace(b"\n", b"\r\n")


def log(boots: Sequence[BootTruth], *, before: bytes = SEABIOS, after: bytes = b"", **options: object) -> bytes:
    """Boots in a row, *before* and *after* each of them what firmware and programs say."""
    return b"".join(before + boot(truth, **options) + after for truth in boots)  # type: ignore[arg-type]  # boot()'s
