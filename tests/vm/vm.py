# SPDX-License-Identifier: Apache-2.0
"""A machine that can crash: QEMU under software emulation, with the stores that survive as plain files.

`Machine` is what outlives a crash, one directory of files on the host::

    ram.img      main memory; the ramoops region is RAMOOPS_SIZE bytes from RAMOOPS_OFFSET
    erst.img     the ACPI ERST store, if asked for
    vars.fd      the EFI variable store, if asked for; it makes the machine boot through OVMF
    blk.img      a block device for pstore_blk, if asked for: the last virtio disk
    disk.img     ext4, /dev/vda: /var/lib/pstored in the guest
    01-NAME/     the job of the first start, shared with the guest (see the file init): what it was told, what it left,
                 and serial.log, which the kernel has for itself

`Vm` is one start of it, from power on to power off, crash, or being cut off.
"""

import contextlib
import dataclasses
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, NamedTuple, Self

from . import kernels

_OVMF = Path("/usr/share/OVMF")
_MEMORY_MIB = 512
_DISK_MIB = 64
_ERST_SIZE = 0x100000
_BLK_SIZE = 0x200000
RAMOOPS_SIZE = 0x200000
RAMOOPS_OFFSET = 0x1E000000
"""in ram.img; below 512 MiB, where neither firmware nor kernel put anything of their own"""
_START_OF_RAM = {"amd64": 0, "arm64": 0x40000000}

# The slowest start takes 30 s on an idle host; five times that is not a slow machine but a lost one.
TIMEOUT_S = 150.0
_POLL_S = 0.02
_SHOWN_LINES = 25

CRASH = "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger\n"
"""the panic that every Debian kernel has on offer; since 5.x it calls panic() itself"""

Mode = Literal["busybox", "host", "systemd"]


class LostVmError(Exception):
    """A machine that did not do what it was started for: it hung, or died without being asked to.

    It says nothing about the program under test, so it is not a failed assertion; the end of its logs is in the text.
    """


def ramoops(architecture: str = "amd64", *, ecc: int = 1, record_size: int = 0x20000, more: str = "") -> str:
    """Give the line of ``load`` that puts ramoops over the surviving region."""
    address = _START_OF_RAM[architecture] + RAMOOPS_OFFSET
    return f"ramoops mem_address={address:#x} mem_size={RAMOOPS_SIZE:#x} record_size={record_size:#x} ecc={ecc} {more}"


def load_crash_kernel(kernel: str) -> str:
    """Give the script that loads *kernel* as the one that a panic starts; with ``crashkernel=`` on the command line."""
    boot = kernels.prepare(kernel)
    append = "console=ttyS0 loglevel=4 panic=-1 nr_cpus=1 reset_devices"
    return f"kexec -p {boot.vmlinuz} --initrd={boot.initramfs} --append='{append}' || exit 1\n"


class Start(NamedTuple):
    """What one start of a machine is for."""

    name: str
    script: str
    mode: Mode = "busybox"
    load: Sequence[str] = ()
    """modules with their arguments, in order"""
    rtc: str | None = None
    """what the clock says at power on, UTC, e.g. ``1980-01-01T00:00:00``; None: the host's time"""
    kernel: str | None = None
    """another kernel than the machine's"""
    files: Sequence[Path] = ()
    """to be found in /job"""
    tree: Path | None = None
    """a directory that is laid over the host's files, as a package would be; not for busybox"""
    capture: str = ""
    """what the crash kernel does, if the script has loaded one: see :func:`load_crash_kernel`"""
    setup: str = ""
    """mode systemd: a script run in the host's files before systemd is, as a package's would be"""


@dataclasses.dataclass(slots=True, kw_only=True)
class Machine:
    """The surviving half of a machine; the files are made at the first start."""

    directory: Path
    kernel: str = "6.1"
    efi: bool = False
    erst: bool = False
    blk: bool = False
    disk: bool = True
    network: bool = False
    """QEMU's own: eth0 reaches the host's loopback as 10.0.2.2"""
    arguments: str = ""
    """more for the kernel's command line"""
    starts: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        _make_sparse(self.ram, _MEMORY_MIB << 20)
        if self.efi:
            shutil.copy(_OVMF / "OVMF_VARS_4M.fd", self.vars)
        if self.erst:
            _make_sparse(self.directory / "erst.img", _ERST_SIZE)
        if self.blk:
            _make_sparse(self.directory / "blk.img", _BLK_SIZE)
        if self.disk:
            image = self.directory / "disk.img"
            _make_sparse(image, _DISK_MIB << 20)
            kernels.run(["mke2fs", "-q", "-t", "ext4", "-F", image])

    @property
    def ram(self) -> Path:
        """Main memory."""
        return self.directory / "ram.img"

    @property
    def vars(self) -> Path:
        """The EFI variable store."""
        return self.directory / "vars.fd"

    def region(self) -> bytes:
        """Read the ramoops region as it lies in memory."""
        with self.ram.open("rb") as file:
            file.seek(RAMOOPS_OFFSET)
            return file.read(RAMOOPS_SIZE)

    def copy(self, name: str) -> Self:
        """Give a machine in the same state in a directory beside this one; this one must be off."""
        twin = dataclasses.replace(self, directory=self.directory.with_name(name))
        for file in self.directory.iterdir():
            if file.is_file():
                kernels.run(["cp", "--sparse=always", file, twin.directory])
        return twin

    def forget_memory(self) -> None:
        """Drop all memory but the region of ramoops: nothing else is read again, and it takes room."""
        region = self.region()
        _make_sparse(self.ram, _MEMORY_MIB << 20)
        with self.ram.open("r+b") as file:
            file.seek(RAMOOPS_OFFSET)
            file.write(region)

    def discard(self) -> None:
        """Remove what is large; jobs and logs stay."""
        for image in self.directory.glob("*.img"):
            image.unlink()

    def start(self, start: Start) -> "Vm":
        """Power on; to be used in a with statement, which powers off."""
        self.starts += 1
        return Vm(self, start, self.directory / f"{self.starts:02d}-{start.name}")

    def run(self, start: Start, timeout_s: float = TIMEOUT_S) -> "Vm":
        """Start, let the script end, and power off.

        Raises:
            LostVmError: it took longer than *timeout_s*, or the machine went down with the script unfinished.
        """
        with self.start(start) as vm:
            vm.wait_off(timeout_s)
            if vm.status is None:
                raise vm.lost("went down before its script had ended")
        return vm

    def crash(self, start: Start, timeout_s: float = TIMEOUT_S) -> "Vm":
        """Start, run the script, panic.

        Raises:
            LostVmError: it took longer than *timeout_s*, or there was no panic.
        """
        with self.start(start._replace(script=start.script + "\n" + CRASH)) as vm:
            vm.wait_off(timeout_s)
            if vm.status is not None or b"Kernel panic - not syncing" not in vm.serial:
                raise vm.lost("did not panic")
        return vm


class Vm:
    """One start of a machine."""

    def __init__(self, machine: Machine, start: Start, job: Path) -> None:
        """Write the job; nothing runs before the with statement is entered."""
        self.job = job
        """the directory shared with the guest"""
        self.seconds = 0.0
        """from power on to power off"""
        self._machine = machine
        self._boot = kernels.prepare(start.kernel or machine.kernel)
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        job.mkdir()
        (job / "mode").write_text(start.mode + "\n")
        (job / "load").write_text("".join(line + "\n" for line in start.load))
        (job / "run.sh").write_text(start.script)
        (job / "capture.sh").write_text(start.capture)
        (job / "setup.sh").write_text(start.setup)
        if start.tree is not None:
            (job / "tree").touch()
        for file in start.files:
            shutil.copy(file, job)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        errors = (self.job / "qemu.log").open("wb")
        with errors:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    @property
    def serial(self) -> bytes:
        """What the kernel has printed so far, with line ends as Unix has them."""
        try:
            return (self.job / "serial.log").read_bytes().replace(b"\r\n", b"\n")
        except FileNotFoundError:
            return b""

    @property
    def log(self) -> str:
        """What the script has printed so far."""
        try:
            return (self.job / "log").read_text(errors="backslashreplace")
        except FileNotFoundError:
            return ""

    @property
    def status(self) -> int | None:
        """The exit status of the script; None if it has not ended."""
        try:
            return int((self.job / "status").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def lost(self, what: str) -> LostVmError:
        """Make the error that says *what* went wrong, with the end of both logs."""
        serial = "\n".join(self.serial.decode(errors="backslashreplace").splitlines()[-_SHOWN_LINES:])
        log = "\n".join(self.log.splitlines()[-_SHOWN_LINES:])
        qemu = (self.job / "qemu.log").read_text(errors="backslashreplace")
        return LostVmError(f"{self.job} {what}\n--- qemu\n{qemu}\n--- serial\n{serial}\n--- log\n{log}")

    def cut(self) -> None:
        """Cut the power: no part of the machine has a say in it."""
        if self._process is None:
            return
        self._process.kill()
        self._close()

    def wait_off(self, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the machine has gone off by itself: an end in order, or a panic that wants to reboot."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self.lost(f"is still running after {timeout_s:.0f} s") from None
        if self._process.returncode:
            raise self.lost(f"never ran: qemu ended with {self._process.returncode}")
        self._close()

    def wait_for(self, what: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Wait until *what* is true, which looks at the logs or at the files of the job."""
        until = time.monotonic() + timeout_s
        while not what():
            if self._process is None or self._process.poll() is not None:
                raise self.lost("went down while something was awaited from it")
            if time.monotonic() > until:
                raise self.lost(f"has not done what was awaited in {timeout_s:.0f} s")
            time.sleep(_POLL_S)

    def wait_file(self, name: str, timeout_s: float = TIMEOUT_S) -> Path:
        """Wait until the guest has made the file *name* in its job."""
        self.wait_for((self.job / name).exists, timeout_s)
        return self.job / name

    def monitor(self, line: str) -> str:
        """Give *line* to QEMU's own monitor, e.g. ``mce 0 4 0xbe00000000800400 0x5 0xdeadb000 0x86``."""
        self._qmp("qmp_capabilities")
        answer = self._qmp("human-monitor-command", **{"command-line": line})
        return str(answer)

    def _qmp(self, command: str, **arguments: str) -> object:
        # QMP: one JSON object a line; the greeting and events come in between and carry neither of the two keys
        assert self._process is not None
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        pipe_in.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        pipe_in.flush()
        for answer in map(json.loads, pipe_out):
            if "error" in answer and command != "qmp_capabilities":  # which may be given only once
                raise self.lost(f"refused {command} {arguments}: {answer['error']}")
            if "return" in answer or "error" in answer:
                return answer.get("return")
        raise self.lost(f"went down during {command}")

    def _close(self) -> None:
        if self._process is None:
            return
        self._process.wait()
        self.seconds = time.monotonic() - self._began
        for pipe in (self._process.stdin, self._process.stdout):
            _close_pipe(pipe)
        self._process = None
        self._machine.forget_memory()

    def _command(self) -> list[str]:
        machine, directory = self._machine, self._machine.directory
        command = _BOARDS[self._boot.architecture].split()
        command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-qmp", "stdio"]
        command += ["-serial", f"file:{self.job / 'serial.log'}"]
        command += ["-m", str(_MEMORY_MIB), "-object"]
        command += [f"memory-backend-file,id=ram,mem-path={machine.ram},size={_MEMORY_MIB}M,share=on"]
        command += ["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]
        shares = [("job", self.job, ""), ("root", Path("/"), ",readonly=on")]
        if self._start.tree is not None:
            shares.append(("tree", self._start.tree, ",readonly=on"))
        for tag, path, more in shares:
            command += [
                "-virtfs",
                f"local,path={path},mount_tag={tag},security_model=none,multidevs=remap{more}",
            ]
        if machine.disk:
            command += ["-drive", _drive(directory / "disk.img")]
        if machine.blk:
            command += ["-drive", _drive(directory / "blk.img")]
        if machine.erst:
            backend = f"memory-backend-file,id=erst,mem-path={directory / 'erst.img'},size={_ERST_SIZE:#x},share=on"
            command += ["-object", backend, "-device", "acpi-erst,memdev=erst"]
        if machine.efi:
            command += ["-drive", f"if=pflash,format=raw,readonly=on,file={_OVMF / 'OVMF_CODE_4M.fd'}"]
            command += ["-drive", f"if=pflash,format=raw,file={machine.vars}"]
        if machine.network:
            command += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"]
        if self._start.rtc:
            command += ["-rtc", f"base={self._start.rtc}"]
        command += ["-kernel", str(self._boot.vmlinuz), "-initrd", str(self._boot.initramfs)]
        return [*command, "-append", f"{_ARGUMENTS[self._boot.architecture]} {machine.arguments}"]


def _close_pipe(pipe: IO[bytes] | None) -> None:
    # what was still to be written has nobody to go to
    with contextlib.suppress(BrokenPipeError):
        if pipe is not None:
            pipe.close()


def _make_sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _drive(path: Path) -> str:
    # writethrough: what the guest's disk has acknowledged is out of QEMU's hands; O_DIRECT adds nothing to that when
    # it is QEMU that is killed, and not every host file system takes it
    return f"file={path},format=raw,if=virtio,cache=writethrough"


_BOARDS = {
    "amd64": "qemu-system-x86_64 -accel tcg,thread=multi -machine q35,memory-backend=ram -cpu max -smp 1",
    "arm64": "qemu-system-aarch64 -accel tcg,thread=multi -machine virt,memory-backend=ram -cpu cortex-a57 -smp 1",
}
# loglevel 8: all that is in a record stands on the console too. panic=-1: reboot at once; -no-reboot ends QEMU then.
_COMMON = "loglevel=8 panic=-1 printk.time=1"
_ARGUMENTS = {
    "amd64": f"console=ttyS0 memmap={RAMOOPS_SIZE:#x}${RAMOOPS_OFFSET:#x} {_COMMON}",
    "arm64": f"console=ttyAMA0 mem={RAMOOPS_OFFSET:#x} {_COMMON}",
}
