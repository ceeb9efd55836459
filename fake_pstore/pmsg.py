# SPDX-License-Identifier: Apache-2.0
"""What programs write to /dev/pmsg0: text of any kind, or Android's frames (liblog, pmsg_writer.cpp)."""

import random
import struct

_HEADER = struct.Struct("<cHHHBHII")
"""magic 'l', length with both headers, uid, pid, log id, tid, real-time seconds and nanoseconds; packed."""

MAIN, SYSTEM, CRASH = 0, 3, 4
INFO, ERROR, FATAL = 4, 6, 7


def plain(rng: random.Random, stamp: str, lines: int = 40) -> bytes:
    """An application's heartbeat, the stamp of pstored first (none where *stamp* is empty), some binary last."""
    beats = (
        f"app[{rng.randrange(300, 320)}]: heartbeat seq={number} state={rng.choice(['ok', 'busy'])}"
        for number in range(lines)
    )
    text = "".join(f"{line}\n" for line in ([stamp] if stamp else []) + list(beats))
    return text.encode() + b"binary \x00\x01\xff payload\n"


def frame(
    priority: int,
    tag: bytes,
    message: bytes,
    *,
    log_id: int = MAIN,
    pid: int = 1000,
    tid: int = 1000,
    uid: int = 1000,
    seconds: int,
    nanoseconds: int,
) -> bytes:
    """One Android text message as liblog frames it."""
    payload = bytes([priority]) + tag + b"\0" + message + b"\0"
    length = _HEADER.size + len(payload)
    return _HEADER.pack(b"l", length, uid, pid, log_id, tid, seconds, nanoseconds) + payload


def android(rng: random.Random, stamp: str, began: int, messages: int = 30) -> bytes:
    """A ring of frames that begins inside one, as a full ring does; the stamp stands between them as plain text."""
    frames = []
    for number in range(messages):
        last = number == messages - 1
        frames.append(
            frame(
                FATAL if last else INFO,
                b"libc" if last else rng.choice([b"ActivityManager", b"gauge-hal", b"vold"]),
                b"Fatal signal 11 (SIGSEGV), code 1" if last else b"state %d, level lull" % number,
                log_id=CRASH if last else rng.choice([MAIN, SYSTEM]),
                pid=rng.randrange(300, 4000),
                seconds=began + 10 + number,
                nanoseconds=rng.randrange(1_000_000_000),
            )
        )
    if stamp:
        frames.insert(1, f"{stamp}\n".encode())
    return b"".join(frames)[7:]
