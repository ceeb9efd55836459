# SPDX-License-Identifier: Apache-2.0
"""Symbols of a kernel from files: a vmlinux with or without debug information, or a System.map.

Of a vmlinux, which may have a gigabyte, the table of symbols is read, and of DWARF the table of addresses
(.debug_aranges) and the line numbers of those compile units in which an address is looked up.  A file may be damaged,
or made to do harm: what reads it has limits on memory and time.
"""

import os
import posixpath
import re
import resource
import signal
import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from pstored.errors import SymbolsError
from pstored.symbolize.frames import Kernel, SymbolTable, parse_system_map

if TYPE_CHECKING:
    from elftools.dwarf.aranges import ARanges
    from elftools.dwarf.dwarfinfo import DWARFInfo
    from elftools.dwarf.lineprogram import LineProgram
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import Section

LARGEST_TABLE = 64 << 20
"""Bytes of a table of symbols, or of their names: a distribution's kernel has some 10 MB."""
LARGEST_MAP = 64 << 20
"""Bytes of a System.map: a distribution's has some 10 MB."""
LARGEST_PROGRAM = 512 << 10
"""Bytes of one compile unit's line numbers: the kernel's largest have some 200 kB."""
TIME_S = 60
"""For all lookups in one file: a distribution's kernel takes some seconds."""
MEMORY = 512 << 20
"""Bytes that reading may take on top of what the process has."""
_BANNER_BYTES = 1024
_RELEASE = re.compile(r"(?:System\.map|vmlinux)-([0-9]\S*)$")
_FIXED = frozenset(("EM_ARM", "EM_SPARC", "EM_SPARC32PLUS", "EM_SPARCV9", "EM_PARISC", "EM_SH", "EM_68K"))
"""Machines whose kernels have no KASLR."""
_SECTIONS = ("aranges", "info", "abbrev", "str", "line", "line_str")
_UNUSED = (
    *("frame", "loc", "ranges", "pubtypes", "pubnames", "addr", "str_offsets", "loclists", "rnglists", "sup", "types"),
)
_EXECUTABLE, _COMPRESSED = 0x4, 0x800
_NOTYPE, _FUNC = 0, 2


def read_system_map(path: str) -> Kernel:
    """The kernel of a System.map.

    Raises:
        SymbolsError: it cannot be read, or is none.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST_MAP + 1)
    except OSError as e:
        raise SymbolsError(f"{path!r} cannot be read: {e.strerror}") from e
    if len(text) > LARGEST_MAP:
        raise SymbolsError(f"{path!r} is too large for a System.map")
    try:
        table = parse_system_map(text)
    except SymbolsError as e:
        raise SymbolsError(f"{path!r} is no System.map, or damaged: {e}", hint=e.hint) from e
    return Kernel(name=path, table=table, release=_release(path))


@contextmanager
def open_vmlinux(path: str) -> Iterator[Kernel]:
    """The kernel of a vmlinux; its lines can be looked up as long as it is open.

    Raises:
        SymbolsError: it cannot be read, is none, or damaged; or pyelftools is missing.  Lookups raise it, too.
    """
    try:
        from elftools.elf.elffile import ELFFile
    except ImportError as e:
        raise SymbolsError(
            "a vmlinux is read by the Python package pyelftools, which is not installed",
            hint="pip install 'pstored[symbolize]'",
        ) from e
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as e:
        raise SymbolsError(f"{path!r} cannot be read: {e.strerror}") from e
    with file:
        guard = _Guard(path)
        with guard:
            kernel = _Vmlinux(path, file, ELFFile(file), guard).kernel()
        yield kernel


class _Guard:
    """Whatever goes wrong when a file is read is its damage; so is what takes too long, or too much memory.

    The limits are for all reading of the file together; they hold for the process, and only while it reads.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._left = float(TIME_S)
        with open("/proc/self/statm", "rb") as statm:
            self._most = int(statm.read().split()[5]) * resource.getpagesize() + MEMORY

    def __enter__(self) -> None:
        self._begun = monotonic()
        self._limits = resource.getrlimit(resource.RLIMIT_DATA)
        self._handler = signal.signal(signal.SIGALRM, self._give_up)
        # and each second from then on: an error raised within a destructor is dropped by Python
        signal.setitimer(signal.ITIMER_REAL, max(self._left, 0.001), 1)
        lowest = min(limit for limit in (self._most, *self._limits) if limit != resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_DATA, (lowest, self._limits[1]))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, self._limits)  # first: there may be no memory left for anything else
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler)
        self._left -= monotonic() - self._begun
        if isinstance(error, MemoryError):
            error.with_traceback(None)  # which holds what took the memory
            raise SymbolsError(f"{self._path!r} is damaged: reading it takes more than {MEMORY >> 20} MiB") from None
        if isinstance(error, Exception) and not isinstance(error, SymbolsError):
            why = str(error) or type(error).__name__
            raise SymbolsError(f"{self._path!r} is no vmlinux that can be read, or damaged: {why}") from error

    @staticmethod
    def _give_up(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"no end after {TIME_S} s")


class _Window:
    """A section as a file of its own, of which only what is asked for is read."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """As a file's."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        left = max(0, self._size - self._at)
        self._file.seek(self._start + self._at)
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data


class _Unit(NamedTuple):
    """The lines of one compile unit."""

    rows: list[tuple[int, bool, int, int]]
    """Address, whether something begins there (or only ends), number of the file, line; sorted."""
    files: dict[int, str]


class _Vmlinux:
    """What is looked up in an open vmlinux."""

    def __init__(self, path: str, file: IO[bytes], elf: "ELFFile", guard: _Guard) -> None:
        self._guard = guard
        self._path = path
        self._file = file
        self._elf = elf
        self._sections: list[Section] = list(elf.iter_sections())
        self._named = {section.name: section for section in self._sections}
        self._ranges: ARanges | None = None
        self._units: dict[int, _Unit] = {}

    def kernel(self) -> Kernel:
        """Its symbols, and what it says that it is."""
        rows = list(self._symbols())
        banner = next((self._text_at(address) for address, name, _, _ in rows if name == b"linux_banner"), None)
        code = [(address, name, size) for address, name, size, runs in rows if runs]
        if not code:
            raise SymbolsError(f"{self._path!r} has no symbols", hint="a stripped vmlinux, or bzImage, has none")
        release = None if banner is None else re.match(rb"Linux version (\S{1,100})", banner)
        return Kernel(
            name=self._path,
            table=SymbolTable(code),
            release=_release(self._path) if release is None else release[1].decode(errors="backslashreplace"),
            banner=banner,
            build_id=self._build_id(),
            moves=self._elf["e_machine"] not in _FIXED,
            find_line=self._find_line,
            lacks=None if self._has_lines() else "has no lines (.debug_aranges, .debug_line): names only",
        )

    def _symbols(self) -> Iterator[tuple[int, bytes, int, bool]]:
        """Address, name, size, and whether it is code, of every symbol (elf(5), Elf64_Sym, Elf32_Sym)."""
        section = self._named.get(".symtab")
        if section is None:
            return
        table, names = self._bytes(section), self._bytes(self._sections[section["sh_link"]])
        order = "<" if self._elf.little_endian else ">"
        layout = struct.Struct(order + ("IBBHQQ" if self._elf.elfclass == 64 else "IIIBBH"))
        runs = [bool(s["sh_flags"] & _EXECUTABLE) for s in self._sections]
        thumb = self._elf["e_machine"] == "EM_ARM"
        for row in layout.iter_unpack(table[: len(table) // layout.size * layout.size]):
            at, info, _, index, address, size = row if layout.size == 24 else (row[0], *row[3:], *row[1:3])
            kind = info & 0xF
            name = names[at : names.find(b"\0", at, at + 512)]
            if not name or name.startswith((b"$", b".L")):  # the assembler's own
                continue
            is_code = kind in (_NOTYPE, _FUNC) and index < len(runs) and runs[index]
            yield address & ~1 if thumb and is_code else address, name, size, is_code

    def _bytes(self, section: "Section") -> bytes:
        if section["sh_size"] > LARGEST_TABLE:
            raise SymbolsError(f"{self._path!r} is damaged: {section.name} has {section['sh_size']} bytes")
        return self._window(section).read()

    def _window(self, section: "Section") -> _Window:
        return _Window(self._file, section["sh_offset"], section["sh_size"])

    def _text_at(self, address: int) -> bytes | None:
        for section in self._sections:
            start = section["sh_addr"]
            if section["sh_type"] == "SHT_PROGBITS" and start <= address < start + section["sh_size"]:
                window = self._window(section)
                window.seek(address - start)
                return window.read(_BANNER_BYTES).partition(b"\0")[0]
        return None

    def _build_id(self) -> str | None:
        for section in self._sections:
            if section["sh_type"] == "SHT_NOTE" and section["sh_size"] <= LARGEST_PROGRAM:
                for note in cast("Any", section).iter_notes():
                    if note["n_type"] == "NT_GNU_BUILD_ID":
                        return str(note["n_desc"])
        return None

    # -- lines

    def _has_lines(self) -> bool:
        return ".debug_aranges" in self._named and ".debug_line" in self._named

    def _find_line(self, address: int) -> tuple[str, int] | None:
        if not self._has_lines():
            return None
        with self._guard:
            if self._ranges is None:
                self._ranges = self._open_dwarf().get_aranges()
            if self._ranges is None or not self._ranges.entries:
                return None
            offset = self._ranges.cu_offset_at_addr(address)
            if offset is None:
                return None
            if offset not in self._units:
                self._units[offset] = self._unit(offset)
            unit = self._units[offset]
        at = bisect_right(unit.rows, address, key=lambda row: row[0]) - 1
        if at < 0 or not unit.rows[at][1]:
            return None
        _, _, file, line = unit.rows[at]
        return unit.files.get(file, "?"), line

    def _unit(self, offset: int) -> _Unit:
        """The lines of the compile unit at an offset; pyelftools keeps all that it reads, so it begins anew here."""
        dwarf = self._open_dwarf()
        unit = dwarf.get_CU_at(offset)
        program = dwarf.line_program_for_CU(unit)
        if program is None:
            return _Unit([], {})
        if program["unit_length"] > LARGEST_PROGRAM:
            raise SymbolsError(f"{self._path!r} is damaged: one unit has {program['unit_length']} bytes of lines")
        states = [entry.state for entry in program.get_entries() if entry.state is not None]
        # of several rows for one address the last counts, in the program's order
        rows = sorted(((s.address, not s.end_sequence, s.file, s.line) for s in states), key=lambda row: row[:2])
        root = unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
        return _Unit(rows, _files(program, b"" if root is None else root.value))

    def _open_dwarf(self) -> "DWARFInfo":
        from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo

        found: dict[str, Any] = {f"debug_{name}_sec": None for name in (*_SECTIONS, *_UNUSED)}
        for name in _SECTIONS:
            section = self._named.get(f".debug_{name}")
            if section is None:
                continue
            if section["sh_flags"] & _COMPRESSED:
                raise SymbolsError(
                    f"the debug information in {self._path!r} is compressed",
                    hint="objcopy --decompress-debug-sections VMLINUX PLAIN, and give PLAIN",
                )
            found[f"debug_{name}_sec"] = DebugSectionDescriptor(
                cast("Any", self._window(section)), section.name, section["sh_offset"], section["sh_size"], 0
            )
        return DWARFInfo(
            config=DwarfConfig(
                little_endian=self._elf.little_endian,
                machine_arch=self._elf.get_machine_arch(),
                default_address_size=self._elf.elfclass // 8,
            ),
            eh_frame_sec=None,
            gnu_debugaltlink_sec=None,
            **found,
        )


def _files(program: "LineProgram", root: bytes) -> dict[int, str]:
    """Names in the source tree by number; DWARF 5 counts from 0, with the directory of compilation as the first."""
    old = program["version"] < 5
    directories = ([root] if old else []) + list(program["include_directory"])
    tree = posixpath.normpath(root) + b"/"
    files = {}
    for number, entry in enumerate(program["file_entry"], int(old)):
        name = posixpath.normpath(posixpath.join(root, directories[entry["dir_index"]], entry["name"]))
        files[number] = name.removeprefix(tree).decode(errors="backslashreplace")
    return files


def _release(path: str) -> str | None:
    """As distributions name these files."""
    found = _RELEASE.match(os.path.basename(path))
    return None if found is None else found[1]
