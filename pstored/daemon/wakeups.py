# SPDX-License-Identifier: Apache-2.0
"""What wakes the daemon: the kernel's log, uevents, mounts.

pstore itself tells nobody that it has records (kernel-formats 1.6: inotify does not see them come); these are what
goes before.  Each source is a descriptor for epoll and says, once it is ready, what of it is worth a run.  The work at
one wake-up is bounded, so that a flood here does not keep the daemon from its signals.

Imported by the daemon, so nothing here imports typing; pyudev is imported when there is something to listen to.
"""

import errno
import os
import re
import select
import stat
from collections.abc import Callable

from pstored.daemon import WAKE

BATCH = 256
"""Messages looked at in one go; epoll tells of the rest at once."""
RECORD_MAX = 16 * 1024
"""One message of /dev/kmsg is no longer (8 KiB in kernel/printk/printk.c); a smaller buffer would give EINVAL."""

HEADER_MAX = 200
"""Bytes of a line in which it must say what it is; names of tasks and files may stand before."""

MODULES = frozenset(("pstore", "efi_pstore", "ramoops", "pstore_zone", "pstore_blk", "mtdpstore"))
"""Whose loading brings records, or the file system for them."""

# What stands in the first line of the kernel's reports on itself: a first, cheap look, which lets too much pass rather
# than too little.  What it really was, the run finds out (pstored.oops).  No warnings, out of memory, corrected errors.
REPORTS = re.compile(
    rb"BUG|Oops|\[#[0-9]|Kernel panic|PANIC: |Unable to handle |Unhandled |SError|Internal error: |Alignment trap: "
    rb"|general protection fault[,:]|[Dd]ouble fault|divide error|invalid opcode|NULL pointer deref|Page fault: "
    rb"|[Bb]ad (?:mode|page) |Kernel (?:Fault|unaligned|bug)|Fault in |stack overflow|Insufficient stack space|LOCKUP"
    rb"|INFO: task |stall(?:s|ed)? on CPU|detected (?:expedited )?stall|KASAN: |UBSAN: |CFI failure"
    rb"|[Ss]lab (?:corruption|error)|Machine (?:Check|check in kernel)"
)
_REGISTERED = b"pstore: Registered "

REPORT = "a report in the kernel's log"
BACKEND = "pstore has another backend"
MOUNT = "the store was mounted or unmounted"
RECEIVED = "netconsole has received a crash"


def reason(line: bytes) -> str | None:
    """What a line of /dev/kmsg is to us: REPORT, BACKEND, or None.

    Args:
        line: ``<8 * facility + level>,<sequence>,<microseconds>,<flags>[,...];<text>``, as b"6,339,5140900,-;NET: ..."
            (Documentation/ABI/testing/dev-kmsg).  What user space has written has another facility than 0.
    """
    prefix, semicolon, text = line.partition(b";")
    priority = prefix.partition(b",")[0]
    if not semicolon or len(priority) != 1 or not priority.isdigit() or priority > b"7":
        return None
    if REPORTS.search(text, 0, HEADER_MAX):
        return REPORT
    return BACKEND if text.startswith(_REGISTERED) else None


def is_wanted(action: str | None, subsystem: str | None, name: str, driver: str | None) -> bool:
    """Whether a uevent tells of records to come, or of a /dev/pmsg0 to be stamped (kernel-formats 1.6)."""
    if action == "bind":
        return subsystem == "platform" and driver == "ramoops"
    return action == "add" and (subsystem == "pmsg" or (subsystem == "module" and name in MODULES))


Wanted = Callable[[str | None, str | None, str, str | None], bool]


class Source:
    """Something that wakes the daemon."""

    name = ""
    events = select.EPOLLIN
    """What epoll is to wait for."""
    fd: int

    def drain(self) -> list[str]:
        """What of that which has come is worth a run; raises OSError if nothing will come from here any more."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self.fd)


class KernelLog(Source):
    """/dev/kmsg from now on: one read gives one message."""

    name = "the kernel's log"

    def __init__(self, path: str) -> None:
        """Open it; raises OSError."""
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        if stat.S_ISCHR(os.fstat(self.fd).st_mode):
            os.lseek(self.fd, 0, os.SEEK_END)

    def drain(self) -> list[str]:
        """REPORT, BACKEND, if messages of the kernel's own say so."""
        found: list[str] = []
        for _ in range(BATCH):
            try:
                message = os.read(self.fd, RECORD_MAX)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # overwritten before it was read: the next read goes on with what is there
            if not message:
                raise OSError(errno.EPIPE, "it is a pipe that nobody writes to")
            for line in message.split(b"\n"):  # what a device adds to its message begins with a blank
                if (what := reason(line)) is not None and what not in found:
                    found.append(what)
        return found


_LOAD, _IF, _RETURN = 0x20, 0x15, 0x06
"""BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ, BPF_RET: linux/bpf_common.h."""
_SOL_SOCKET, _SO_ATTACH_FILTER = 1, 26
"""asm-generic/socket.h; where they are others (MIPS, PA-RISC, SPARC), there is no filter."""

# A uevent begins with ACTION@DEVPATH (lib/kobject_uevent.c). So many lines on, if it is equal, and if it is not.
_FILTER = (
    (_LOAD, 0, 0, 0),
    (_IF, 6, 0, b"bind"),
    (_IF, 0, 6, b"add@"),
    (_LOAD, 0, 0, 4),
    (_IF, 3, 0, b"/mod"),  # /module/ramoops
    (_IF, 0, 3, b"/dev"),
    (_LOAD, 0, 0, 20),
    (_IF, 0, 1, b"/pms"),  # /devices/virtual/pmsg/pmsg0
    (_RETURN, 0, 0, RECORD_MAX),
    (_RETURN, 0, 0, 0),
)


def attach_filter(fd: int) -> None:
    """Have the kernel drop most of what is not wanted: batteries, mounts and network devices are not to wake us.

    libudev's own filter is for udev's messages, and lets all of the kernel's pass.  No harm if it cannot be had.
    """
    import ctypes  # pyudev has it already

    class Instruction(ctypes.Structure):
        _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_uint16), ("first", ctypes.POINTER(Instruction)))

    words = [
        Instruction(code, yes, no, k if isinstance(k, int) else int.from_bytes(k, "big"))
        for code, yes, no, k in _FILTER
    ]
    program = Program(len(words), (Instruction * len(words))(*words))
    size = ctypes.sizeof(program)
    ctypes.CDLL(None).setsockopt(fd, _SOL_SOCKET, _SO_ATTACH_FILTER, ctypes.byref(program), size)


class Uevents(Source):
    """The kernel's uevents: its own, not udev's, which need a running udevd in the same network namespace."""

    name = "uevents"

    def __init__(self, *, is_wanted: Wanted = is_wanted) -> None:
        """Listen; raises OSError, or ImportError if there is no libudev."""
        import pyudev

        self._is_wanted = is_wanted
        self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        for subsystem in ("module", "platform", "pmsg"):
            self._monitor.filter_by(subsystem)
        self._monitor.start()
        self.fd: int = self._monitor.fileno()
        attach_filter(self.fd)

    def drain(self) -> list[str]:
        """The uevents that are wanted."""
        found: list[str] = []
        for _ in range(BATCH):
            try:
                device = self._monitor.poll(timeout=0)
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise
                return [*found, "uevents were lost"]
            if device is None:
                break
            if self._is_wanted(device.action, device.subsystem, device.sys_name, device.driver):
                what = f"{device.action} of {device.subsystem} {device.sys_name}"
                found += [what] if what not in found else []
        return found

    def close(self) -> None:
        """Let go of the monitor, which closes its descriptor."""
        del self._monitor


class Mounts(Source):
    """A change in the mounts of this process; whether in ours, :func:`look` tells."""

    name = "mounts"
    events = select.EPOLLPRI  # proc(5): always readable, a change is an exception

    def __init__(self) -> None:
        """Open mountinfo; raises OSError."""
        self.fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)

    def drain(self) -> list[str]:
        """Nothing: being polled has reset it."""
        return []


class Received(Source):
    """The FIFO by which ``pstored netconsole`` says that it has received a crash (pstored.daemon.spool)."""

    name = "what pstored netconsole receives"

    def __init__(self, directory: str) -> None:
        """Make it and open it; raises OSError."""
        path = os.path.join(directory, WAKE)
        try:
            os.mkfifo(path, 0o620)
            os.chmod(path, 0o620)  # whatever the umask: the directory's group is the listener's
        except FileExistsError:
            pass
        # for writing, too: no listener, no end
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not stat.S_ISFIFO(os.fstat(self.fd).st_mode):
            os.close(self.fd)
            raise OSError(errno.EINVAL, "it is no FIFO")

    def drain(self) -> list[str]:
        """That there is something."""
        try:
            return [RECEIVED] if os.read(self.fd, RECORD_MAX) else []
        except BlockingIOError:
            return []


def look(root: str, store: str) -> tuple[str, tuple[int, int] | None, str]:
    """What is compared at every wake-up: the active backend, what is mounted on the store, how many oopses there were.

    The root of pstorefs has a new inode number after each first mount (fs/pstore/inode.c, get_next_ino()), so
    an unmount and a mount between two looks are seen, too.
    """
    try:
        state = os.stat(os.path.join(root, store.lstrip("/")))
        mounted = (state.st_dev, state.st_ino)
    except OSError:
        mounted = None
    return read(root, "/sys/module/pstore/parameters/backend"), mounted, read(root, "/sys/kernel/oops_count")


def read(root: str, path: str) -> str:
    """A small file of /proc or /sys below *root*; empty if it cannot be read."""
    try:
        fd = os.open(os.path.join(root, path.lstrip("/")), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 256).decode(errors="replace").strip()
    except OSError:
        return ""
    finally:
        os.close(fd)
