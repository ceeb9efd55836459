# SPDX-License-Identifier: Apache-2.0
"""Stock Debian kernels to crash: fetched with apt, unpacked, given an initramfs of busybox and a few modules.

Nothing is installed and nothing but a ten-line module is built; all of it lands in ``.cache/`` beside this file, and
removing that directory gets everything anew::

    .cache/apt-ARCH/          an apt of our own, with the host's sources (Debian 12), for any architecture
    .cache/deb/               packages as downloaded
    .cache/NAME/              one kernel: vmlinuz, config, release, modules/ (NAME.order and *.ko), ready
    .cache/NAME/initramfs     built at each use; it costs a second
    .cache/NAME/headers/      only once the oops module is wanted
    .cache/lock               held by the one test process that changes any of it

Sources: apt-get(8), modprobe(8), the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import fcntl
import functools
import lzma
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"

# what init loads before anything else; an entry that a kernel has built in costs nothing
_BASE = (
    "virtio_pci",
    "virtio_blk",
    "virtio_rng",
    "9pnet_virtio",
    "9p",
    "overlay",
    "crc32c_generic",  # a soft dependency of ext4, so not found through modules.dep
    "ext4",
)
# what a scenario may ask for; some do not exist on every architecture
_ON_DEMAND = (
    "virtio_net",
    "netconsole",
    "ramoops",
    "efi_pstore",
    "efivarfs",
    "pstore_blk",
    "mtdoops",
    "mtdram",
    "phram",
    "block2mtd",
)


class Kernel(NamedTuple):
    """A kernel by the package that always depends on its newest build."""

    name: str
    architecture: str
    package: str


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("6.1", "amd64", "linux-image-amd64"),
        Kernel("6.12", "amd64", "linux-image-6.12-amd64"),
        Kernel("6.1-arm64", "arm64", "linux-image-arm64"),
    )
}


class Boot(NamedTuple):
    """What QEMU is handed to start a kernel."""

    vmlinuz: Path
    initramfs: Path
    release: str
    """as ``uname -r`` says, e.g. ``6.1.0-56-amd64``"""
    architecture: str


# depmod, modprobe and mke2fs are where only root looks, and they need no root for what they do here
_ENVIRONMENT = os.environ | {"PATH": f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"}


def run(command: Sequence[str | Path], *, cwd: Path | None = None) -> str:
    """Run a tool of the host; gives its standard output.

    Raises:
        RuntimeError: it failed; its own words are in the text.
    """
    done = subprocess.run(command, cwd=cwd, env=_ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr}{done.stdout}")
    return done.stdout


@contextmanager
def alone() -> Iterator[None]:
    """Keep other test processes (pytest-xdist) out of ``.cache/``; who holds this may call another that does."""
    if _holders:
        yield
        return
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _holders.append(lock.name)
        try:
            yield
        finally:
            _holders.clear()


_holders: list[str] = []


@functools.cache
def _apt(architecture: str) -> tuple[str, ...]:
    """Make an apt of our own for *architecture*; gives the options that select it.  The host's own is not touched."""
    base = CACHE / f"apt-{architecture}"
    for directory in ("lists/partial", "cache/archives/partial"):
        (base / directory).mkdir(parents=True, exist_ok=True)
    # of the host's sources only Debian's own: others may not have the architecture
    parts = base / "sources.list.d"
    parts.mkdir(exist_ok=True)
    for source in Path("/etc/apt/sources.list.d").glob("debian*"):
        shutil.copy(source, parts)
    settings = (
        f"APT::Architecture={architecture}",
        f"APT::Architectures={architecture}",
        "APT::Sandbox::User=root",  # _apt may not write here
        f"Dir::State={base}",
        "Dir::State::status=/dev/null",
        f"Dir::Cache={base}/cache",
        f"Dir::Etc::sourceparts={parts}",
    )
    options = tuple(word for setting in settings for word in ("-o", setting))
    run(["apt-get", *options, "-qq", "update"])
    return options


def _dependencies(architecture: str, package: str, prefixes: tuple[str, ...]) -> list[str]:
    lines = run(["apt-cache", *_apt(architecture), "depends", "--important", package]).splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.lstrip(" |").startswith("Depends:"))
    return [name for name in names if name.startswith(prefixes)]


def _unpack(architecture: str, packages: Iterable[str], target: Path) -> None:
    """Download *packages* (names) and unpack them all into *target*."""
    debs = CACHE / "deb" / architecture
    debs.mkdir(parents=True, exist_ok=True)
    names = sorted(packages)
    run(["apt-get", *_apt(architecture), "-qq", "download", *names], cwd=debs)
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        newest = max(debs.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime)
        run(["dpkg", "-x", newest, target])


def _take_module(tree: Path, release: str, name: str, target: Path) -> None:
    """Copy module *name* and those it needs into *target*, unpacked, and their order into ``NAME.order``.

    An empty order: the kernel has it built in.  No order file: this kernel has no such module.
    """
    command = [
        "modprobe",
        "--show-depends",
        "--config=/dev/null",
        f"--dirname={tree}",
        f"--set-version={release}",
        name,
    ]
    done = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        return
    files = [Path(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("insmod ")]
    for file in files:
        data = file.read_bytes()
        (target / file.name.removesuffix(".xz")).write_bytes(lzma.decompress(data) if file.suffix == ".xz" else data)
    (target / f"{name}.order").write_text("".join(file.name.removesuffix(".xz") + "\n" for file in files))


def _fetch(kernel: Kernel, home: Path) -> None:
    """Fill *home* with the parts of the image package that a boot needs; the rest (400 MB) is thrown away."""
    shutil.rmtree(home, ignore_errors=True)
    tree = home / "tree"
    (image,) = _dependencies(kernel.architecture, kernel.package, ("linux-image-",))
    _unpack(kernel.architecture, [image, "busybox-static"], tree)
    release = image.removeprefix("linux-image-")
    run(["depmod", "-b", tree, release])
    modules = home / "modules"
    modules.mkdir()
    for name in (*_BASE, *_ON_DEMAND):
        _take_module(tree, release, name, modules)
    shutil.copy(tree / f"boot/vmlinuz-{release}", home / "vmlinuz")
    shutil.copy(tree / f"boot/config-{release}", home / "config")
    shutil.copy(tree / "bin/busybox", home / "busybox")
    (home / "release").write_text(release)
    shutil.rmtree(tree)


def _build_initramfs(home: Path, modules: Iterable[Path]) -> Path:
    """Pack init, busybox and *modules* as a newc archive.  Not compressed: unpacking costs an emulated CPU more."""
    tree = home / "initramfs.d"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "bin").mkdir(parents=True)
    (tree / "mods").mkdir()
    shutil.copy(home / "busybox", tree / "bin/busybox")
    shutil.copy(HERE / "init", tree / "init")
    (tree / "init").chmod(0o755)
    for module in modules:
        shutil.copy(module, tree / "mods")
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    packed = home / f"initramfs.{os.getpid()}"
    with packed.open("wb") as out:
        subprocess.run(
            ["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], input=names.encode(), stdout=out, cwd=tree, check=True
        )
    shutil.rmtree(tree)
    packed.replace(home / "initramfs")
    return home / "initramfs"


@functools.cache
@alone()
def prepare(name: str) -> Boot:
    """Give what it takes to boot the kernel called *name* in `KERNELS`; downloads it at the first use.

    Raises:
        RuntimeError: apt, dpkg or kmod failed; their own words are in it.
    """
    kernel = KERNELS[name]
    home = CACHE / name
    ready, recipe = home / "ready", "\n".join((kernel.package, *_BASE, *_ON_DEMAND))
    if not ready.exists() or ready.read_text() != recipe:
        _fetch(kernel, home)
        ready.write_text(recipe)
    initramfs = _build_initramfs(home, (home / "modules").iterdir())
    return Boot(home / "vmlinuz", initramfs, (home / "release").read_text(), kernel.architecture)


@functools.cache
@alone()
def oops_module(name: str) -> Path:
    """Build ``oops/oops.c`` for the kernel called *name*; gives the module file.

    Debian's kernels lack LKDTM, and nothing else in them oopses on request.  The headers are unpacked, not installed:
    one absolute path in one Makefile is what that takes.
    """
    release, home = prepare(name).release, CACHE / name
    built = home / f"oops-{release}.ko"
    source = HERE / "oops/oops.c"
    if built.exists() and built.stat().st_mtime >= source.stat().st_mtime:
        return built
    architecture, package = KERNELS[name].architecture, f"linux-headers-{release}"
    headers = home / "headers"
    needed = _dependencies(architecture, package, ("linux-headers-", "linux-kbuild-"))
    _unpack(architecture, [package, *(each for each in needed if ":" not in each)], headers)
    makefile = headers / f"usr/src/{package}/Makefile"
    makefile.write_text(makefile.read_text().replace("include /usr/src", f"include {headers}/usr/src"))
    work = home / "oops"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source.parent, work)
    # no BTF: it wants pahole, and an oops has no use for it
    run(["make", "-s", "-C", makefile.parent, f"M={work}", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"])
    run(["strip", "--strip-debug", work / "oops.ko"])
    (work / "oops.ko").replace(built)
    shutil.rmtree(headers)
    return built
