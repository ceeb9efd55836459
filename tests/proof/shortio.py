# SPDX-License-Identifier: Apache-2.0
"""Short reads and writes, honestly: what the program is told was read or written was, and it was less than asked for.

A seccomp filter (seccomp_unotify(2)) hands each read and write of the program to this process, which does a piece of it
on the same open file, with the same offset, in the program's place, and tells it how much.  strace could only lie.
"""

import ctypes
import errno
import os
import platform
import random
import select
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.conftest import Done

_NUMBERS = {"x86_64": (0xC000003E, {"read": 0, "write": 1, "pread64": 17, "pwrite64": 18})} | {
    "aarch64": (0xC00000B7, {"read": 63, "write": 64, "pread64": 67, "pwrite64": 68})
}
"""AUDIT_ARCH_*, and the calls (<linux/audit.h>, <asm/unistd.h>)."""
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SYS_PIDFD_GETFD = 438
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_USER_NOTIF, _ALLOW = 0x7FC00000, 0x7FFF0000
_RECV, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_REQUEST = struct.Struct("<QIIiIQ6Q")  # struct seccomp_notif: id pid flags, data: nr arch ip args
_ANSWER = struct.Struct("<QqiI")  # struct seccomp_notif_resp: id val error flags

_libc = ctypes.CDLL(None, use_errno=True)


class Counts(NamedTuple):
    """How many calls there were, and how many were cut short."""

    calls: int
    short: int


def can_filter() -> bool:
    """Whether this machine is one whose calls we know."""
    return platform.machine() in _NUMBERS


def run_short(
    words: Sequence[str], top: str, *, most: int, environment: Mapping[str, str], cwd: str
) -> tuple[Done, Counts]:
    """Run a command whose reads and writes of files below *top* come to *most* bytes each at most, often to less."""
    ours, theirs = socket.socketpair()
    out, err = (os.memfd_create(name) for name in ("out", "err"))
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.chdir(cwd)
            socket.send_fds(theirs, [b"x"], [_install()])
            os.execve(words[0], list(words), dict(environment))
        finally:
            os._exit(99)
    theirs.close()
    _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    counts = _Supervisor(listener, top, most).run()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(listener)
    texts = []
    for fd in (out, err):
        texts.append(os.pread(fd, 1 << 20, 0).decode(errors="backslashreplace"))
        os.close(fd)
    return Done(status, *texts), counts


def _install() -> int:
    """Filter this process from now on; gives the listener."""
    arch, calls = _NUMBERS[platform.machine()]
    numbers = sorted(calls.values())
    load, jump, give = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    program = [(load, 0, 0, 4), (jump, 0, len(numbers) + 1, arch), (load, 0, 0, 0)]
    for at, number in enumerate(numbers):
        program.append((jump, len(numbers) - at, 0, number))
    program += [(give, 0, 0, _ALLOW), (give, 0, 0, _USER_NOTIF)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *one) for one in program))
    fprog = struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(code))
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    fd = _libc.syscall(_SYS_SECCOMP[platform.machine()], _SET_MODE_FILTER, _NEW_LISTENER, fprog)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(fd)


class _Supervisor:
    def __init__(self, listener: int, top: str, most: int) -> None:
        self.listener = listener
        self.top = top
        self.most = most
        self.rng = random.Random(6)
        self.calls = self.short = 0
        self.names = {number: name for name, number in _NUMBERS[platform.machine()][1].items()}

    def run(self) -> Counts:
        """Until the last process under the filter has ended."""
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        while not poll.poll()[0][1] & select.POLLHUP:
            request = ctypes.create_string_buffer(_REQUEST.size)
            if _libc.ioctl(self.listener, ctypes.c_ulong(_RECV), request) != 0:
                continue  # it was killed in between
            notice, pid, _, number, _, _, *arguments = _REQUEST.unpack(request.raw)
            value, error, flags = self._answer(pid, self.names[number], arguments)
            answer = ctypes.create_string_buffer(_ANSWER.pack(notice, value, -error, flags), _ANSWER.size)
            _libc.ioctl(self.listener, ctypes.c_ulong(_SEND), answer)
        return Counts(self.calls, self.short)

    def _answer(self, pid: int, call: str, arguments: list[int]) -> tuple[int, int, int]:
        """What the call gives, its errno, and flags."""
        fd, address, count, offset = arguments[:4]
        try:
            path = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            return 0, 0, _CONTINUE
        if not path.startswith(self.top + "/") or count < 2:
            return 0, 0, _CONTINUE
        self.calls += 1
        size = self.rng.randint(1, min(count - 1, self.most))
        mine = self._same_file(pid, fd)
        try:
            done = self._do(pid, mine, call, address, size, offset)
        except OSError as e:
            return 0, e.errno or errno.EIO, 0
        finally:
            os.close(mine)
        self.short += done < count
        return done, 0, 0

    def _do(self, pid: int, fd: int, call: str, address: int, size: int, offset: int) -> int:
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(address)
            if "write" in call:
                data = memory.read(size)
                return os.pwrite(fd, data, offset) if call == "pwrite64" else os.write(fd, data)
            data = os.pread(fd, size, offset) if call == "pread64" else os.read(fd, size)
            memory.write(data)
            return len(data)

    def _same_file(self, pid: int, fd: int) -> int:
        """The program's own open file: what is read here moves its offset."""
        pidfd = os.pidfd_open(pid)
        try:
            mine = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0)
        finally:
            os.close(pidfd)
        if mine < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        return int(mine)
