# SPDX-License-Identifier: Apache-2.0
"""``pstored decode --vmlinux`` and ``--system-map``: a small kernel made by gcc, and logs around its addresses."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_pstore.capture import load
from pstored.errors import SymbolsError
from pstored.oops import Event, Frame, analyze
from pstored.symbolize import vmlinux as reader
from pstored.symbolize.disassemble import disassemble
from pstored.symbolize.frames import Kernel, SymbolTable, parse_system_map, symbolize
from pstored.symbolize.vmlinux import open_vmlinux, read_system_map
from tests.conftest import forked, require
from tests.test_decode import run
from tests.test_oops_dialects import DIALECTS

RELEASE = "6.1.192"
BANNER = f"Linux version {RELEASE} (me@there) (gcc) #1 SMP Thu Jan 1 00:00:00 UTC 1970"
BASE = 0x81000000
SLIDE = 0x1A000000
SOURCE = f"""\
const char linux_banner[] = "{BANNER}\\n";
static volatile int sink;
__attribute__((noinline)) void gauge_read(int n)
{{
	sink += n;
}}
__attribute__((noinline)) int gauge_show(int n)
{{
	gauge_read(n);

	return sink - n;
}}
__attribute__((noinline)) int dev_attr_show(int n)
{{
	int got = gauge_show(n);
	return got + sink;
}}
void end_of_text(void) {{}}
"""
LINE = {"gauge_read": 5, "gauge_show": 9, "dev_attr_show": 15}
"""Of the store or call in each."""


class Build(NamedTuple):
    """A kernel, and what nm(1) and objdump(1) say of it."""

    path: Path
    symbols: list[tuple[int, str]]
    calls: dict[str, int]
    """Where the call in each function returns to, from its beginning; for the innermost, where it stores."""

    def size(self, name: str) -> int:
        """To the next symbol."""
        addresses = [a for a, _ in self.symbols]
        return next(a for a in addresses if a > self.address(name)) - self.address(name)

    def address(self, name: str) -> int:
        """Where it was linked to."""
        return next(a for a, n in self.symbols if n == name)

    def place(self, name: str) -> str:
        """As the kernel prints a frame in it."""
        return f"{name}+{self.calls[name]:#x}/{self.size(name):#x}"

    def system_map(self) -> str:
        """What nm -n prints of its code."""
        return "".join(f"{address:016x} T {name}\n" for address, name in self.symbols)


def compiled(directory: Path, *options: str, source: str = SOURCE) -> Build:
    """Compile and link a source."""
    require(shutil.which("gcc") and shutil.which("objdump"), "gcc and objdump, of Debian's gcc and binutils")
    (directory / "gauge.c").write_text(source)
    linked = ("-nostdlib", "-static", f"-Wl,-Ttext={BASE:#x}", "-Wl,-e,gauge_show", "-Wl,--build-id")
    command = ["gcc", "-g", "-O1", "-fno-pie", "-no-pie", "-fno-inline", "-fcf-protection=none"]
    subprocess.run([*command, *options, *linked, "gauge.c", "-o", "vmlinux"], cwd=directory, check=True)
    listing = subprocess.run(["nm", "-n", "vmlinux"], cwd=directory, check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in listing.splitlines()]
    symbols = [(int(row[0], 16), row[2]) for row in rows if row[1] in "tT"]
    code = subprocess.run(["objdump", "-d", "vmlinux"], cwd=directory, check=True, capture_output=True, text=True)
    calls: dict[str, int] = {}
    called = function = None
    for line in code.stdout.splitlines():
        if line.endswith(">:"):
            function, start = line.split("<")[1][:-2], int(line.split()[0], 16)
        elif function is not None and "\t" in line:
            at = int(line.split(":")[0], 16) - start
            if called == function:
                calls[function] = at
            called = function if "\tcall" in line or "\tbl\t" in line else None
            if function == "gauge_read" and "sink" in line:
                calls[function] = at
    return Build(directory / "vmlinux", symbols, calls)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The kernel of most tests."""
    return compiled(tmp_path_factory.mktemp("kernel"))


def log(build: Build, *, offset: str = f"{SLIDE:#x} from 0xffffffff81000000", release: str = RELEASE) -> str:
    """A report of that kernel, with one frame of which only the address is known."""
    bare = build.address("dev_attr_show") + build.calls["dev_attr_show"] + SLIDE
    return f"""\
[   12.000001] BUG: kernel NULL pointer dereference, address: 0000000000000018
[   12.000005] Oops: 0000 [#1] PREEMPT SMP NOPTI
[   12.000006] CPU: 3 PID: 4242 Comm: gauged Not tainted {release} #1
[   12.000008] RIP: 0010:{build.place("gauge_read")}
[   12.000009] Code: 90 90 eb 1e 0f 1f 00 48 89 f8 48 89 d1 <f3> a4 c3
[   12.000011] RAX: ffff888003a10000 RBX: 0000000000000010 RCX: 0000000000000010
[   12.000013] Call Trace:
[   12.000014]  <TASK>
[   12.000016]  {build.place("gauge_show")}
[   12.000017]  [<{bare:016x}>]
[   12.000018]  other_show+0x1a/0x40 [other]
[   12.000022]  </TASK>
[   12.000024] ---[ end trace 0000000000000000 ]---
[   12.000025] Kernel panic - not syncing: Fatal exception
[   12.000026] Kernel Offset: {offset} (relocation range: 0xffffffff80000000-0xffffffffbfffffff)
"""


def symbolized(text: str, kernel: Kernel) -> tuple[Event, list[str]]:
    """The first event with symbols, and the notes."""
    events, notes = symbolize(text.encode(), analyze(text.encode()), kernel)
    return events[0], notes


def places(event: Event) -> list[tuple[str | None, str | None, int | None]]:
    """Function, file, line."""
    assert event.pc is not None
    return [(f.function, f.file, f.line) for f in (event.pc, *event.call_trace)]


WHOLE = [
    ("gauge_read", "gauge.c", LINE["gauge_read"]),
    ("gauge_show", "gauge.c", LINE["gauge_show"]),
    ("dev_attr_show", "gauge.c", LINE["dev_attr_show"]),
    ("other_show", None, None),
]

# -- what is found


@pytest.mark.parametrize("version", [4, 5])
def test_frames_get_file_and_line_and_addresses_names(tmp_path: Path, version: int) -> None:
    """Of the call, not of what it returns to; the frame of a module keeps what it has; either DWARF."""
    made = compiled(tmp_path, f"-gdwarf-{version}")
    with open_vmlinux(str(made.path)) as kernel:
        event, notes = symbolized(log(made), kernel)
    assert places(event) == WHOLE
    assert notes == []
    assert (event.call_trace[1].offset, event.call_trace[1].size) == (
        made.calls["dev_attr_show"],
        made.size("dev_attr_show"),
    )


INLINED = """\
static inline int added(int n)
{
	return sink ? n + sink : n;
}
__attribute__((noinline)) int gauge_sum(const int *n)
{
	int sum = 0;

	for (int at = 0; at < 8; at++)
		sum += added(n[at]) * (sum > 3 ? added(at) : 2);
	if (sum > 1000)
		sum = added(gauge_show(sum));
	return sum + added(sum);
}
"""


@pytest.mark.parametrize("version", [4, 5])
def test_lines_are_those_of_binutils(tmp_path: Path, version: int) -> None:
    """At every instruction of optimized code, where rows of several functions stand at one address: addr2line(1)."""
    source = SOURCE.replace("void end_of_text", INLINED + "void end_of_text")
    made = compiled(tmp_path, f"-gdwarf-{version}", "-O2", "-finline", source=source)
    code = subprocess.run(["objdump", "-d", made.path], check=True, capture_output=True, text=True).stdout
    addresses = [line.split(":")[0].strip() for line in code.splitlines() if "\t" in line]
    asked = subprocess.run(
        ["addr2line", "-e", made.path, *addresses], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    expected = [line.split(" (")[0].removeprefix(f"{tmp_path}/") for line in asked.stdout.splitlines()]
    with open_vmlinux(str(made.path)) as kernel:
        found = [kernel.find_line(int(address, 16)) for address in addresses]
    assert len(found) > 60
    assert ["??:?" if place is None else f"{place[0]}:{place[1]}" for place in found] == expected


def test_a_system_map_gives_names_and_no_lines(build: Build) -> None:
    """It has nothing else."""
    kernel = Kernel(name="System.map", table=parse_system_map(build.system_map().encode()))
    event, notes = symbolized(log(build), kernel)
    assert places(event) == [(name, None, None) for name, _, _ in WHOLE]
    assert notes == []


def test_where_the_kernel_stood_is_seen_in_symbols_beside_addresses(build: Build) -> None:
    """As older kernels print them; without a line about it."""
    text = log(build).replace("Kernel Offset", "no line")
    address = build.address("gauge_show") + build.calls["gauge_show"] + SLIDE
    with open_vmlinux(str(build.path)) as kernel:
        event, notes = symbolized(text, kernel)
        assert places(event)[2] == (None, None, None)
        assert ["Kernel Offset" in note for note in notes] == [True]
        event, notes = symbolized(text.replace(" gauge_show+", f" [<{address:016x}>] gauge_show+"), kernel)
    assert places(event) == WHOLE
    assert notes == []


def test_the_offset_of_another_boot_does_not_count(build: Build) -> None:
    """A serial capture holds many."""
    text = log(build)
    cut = text.replace("Kernel Offset", "no line") + f"[    0.000000] {BANNER}\n" + text.splitlines()[-1] + "\n"
    with open_vmlinux(str(build.path)) as kernel:
        assert places(symbolized(cut, kernel)[0])[2] == (None, None, None)


def test_a_kernel_that_cannot_move_needs_no_offset(build: Build) -> None:
    """arm has no KASLR."""
    table = parse_system_map(build.system_map().encode())
    text = log(build).replace("Kernel Offset", "no line")
    bare = build.address("dev_attr_show") + build.calls["dev_attr_show"]
    text = text.replace(f"{bare + SLIDE:016x}", f"{bare:016x}")
    event, _ = symbolized(text, Kernel(name="x", table=table, moves=False))
    assert places(event)[2][0] == "dev_attr_show"


def test_an_address_behind_a_function_is_of_the_call_that_never_returns() -> None:
    """As the kernel itself names it: lib/vsprintf.c, %pB; a function that ends in panic() ends in a call."""
    kernel = Kernel(name="x", table=SymbolTable([(0x81000000, b"dies", 0), (0x81000020, b"other", 0)]), moves=False)
    text = "BUG: kernel NULL pointer dereference, address: 0\nCall Trace:\n 0xffff81000020\n 0x81000020\n"
    event, _ = symbolized(text, kernel)
    assert [(f.function, f.offset, f.size) for f in event.call_trace][1] == ("dies", 0x20, 0x20)


def test_of_several_functions_of_one_name_the_size_tells() -> None:
    """And where it does not, nothing is said."""
    rows = [(0x1000, b"show", 0), (0x1010, b"show", 0), (0x1030, b"show", 0), (0x1050, b"end", 0)]
    kernel = Kernel(name="x", table=SymbolTable(rows), find_line=lambda address: ("f.c", address))
    text = "BUG: kernel NULL pointer dereference, address: 0\nCall Trace:\n show+0x4/0x10\n show+0x4/0x20\n"
    event, _ = symbolized(text, kernel)
    assert [f.line for f in event.call_trace] == [0x1003, None]


# -- what does not fit


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (f"{RELEASE} #1", "6.1.193 #1", "it is 6.1.192, the log's is 6.1.193"),
        (f"{RELEASE} #1", f"{RELEASE} #1 {'ab' * 20}", "build id"),
        ("[   12.000001]", f"[    0.000000] {BANNER.replace('#1', '#2')}\n[   12.000001]", "#2"),
        ("/0x", "/0x1", "other sizes"),
        (" gauge_show+", " [<0000000081000100>] gauge_show+", "stand"),
    ],
)
def test_another_kernel_is_said_loudly_and_not_used(build: Build, old: str, new: str, why: str) -> None:
    """By its release, build id, banner, by the sizes of functions, by where they stand."""
    with open_vmlinux(str(build.path)) as kernel:
        event, notes = symbolized(log(build).replace(old, new), kernel)
    assert len(notes) == 1
    assert "IS NOT OF THE KERNEL THAT CRASHED" in notes[0]
    assert why in notes[0]
    assert {f.file for f in event.call_trace} == {None}
    assert event.call_trace[1].function is None


def test_the_right_banner_and_build_id_fit(build: Build) -> None:
    """Nothing is said then."""
    with open_vmlinux(str(build.path)) as kernel:
        assert kernel.build_id is not None
        text = log(build).replace(f"{RELEASE} #1", f"{RELEASE} #1 {kernel.build_id}")
        event, notes = symbolized(f"[    0.000000] {BANNER}\r\n{text}", kernel)
    assert (places(event), notes) == (WHOLE, [])


def test_one_function_of_another_size_is_left_alone(build: Build) -> None:
    """And named."""
    with open_vmlinux(str(build.path)) as kernel:
        text = log(build).replace(build.place("gauge_show"), f"gauge_show+0x1/0x999\n {build.place('dev_attr_show')}")
        event, notes = symbolized(text, kernel)
    assert places(event)[1] == ("gauge_show", None, None)
    assert places(event)[0] == WHOLE[0]
    assert ["of another size: gauge_show" in note for note in notes] == [True]


def test_the_release_in_the_name_of_a_system_map_counts(build: Build, tmp_path: Path) -> None:
    """As distributions name it."""
    path = tmp_path / "System.map-6.1.0-56-amd64"
    path.write_text(build.system_map())
    _, notes = symbolized(log(build), read_system_map(str(path)))
    assert "it is 6.1.0-56-amd64" in notes[0]


# -- damage


def test_a_damaged_system_map_is_an_error(tmp_path: Path) -> None:
    """Of ours, with the line."""
    for text in (b"ffffffff81000000 T _text\n\x7fELF\n", b"", b"ffffffff81000000 D data\n"):
        with pytest.raises(SymbolsError):
            parse_system_map(text)
    (tmp_path / "System.map").write_bytes(b"junk\n")
    with pytest.raises(SymbolsError, match=r"line 1 is not"):
        read_system_map(str(tmp_path / "System.map"))


def test_a_cut_or_broken_vmlinux_is_an_error_of_ours_or_still_read(build: Build, tmp_path: Path) -> None:
    """Wherever it is cut, whatever byte of its tables is another."""
    whole = build.path.read_bytes()
    broken = [whole[: len(whole) * n // 40] for n in range(40)]
    broken += [bytes([*whole[:at], whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(0, len(whole), 97)]
    path = tmp_path / "vmlinux"
    errors = 0
    for data in broken:
        path.write_bytes(data)
        try:
            with open_vmlinux(str(path)) as kernel:
                symbolized(log(build), kernel)
        except SymbolsError:
            errors += 1
    assert errors > 40


@pytest.mark.parametrize(
    ("limit", "value", "words"), [("MEMORY", 32 << 20, "more than 32 MiB"), ("TIME_S", 0.02, "no end after 0.02 s")]
)
def test_a_hostile_file_gets_neither_memory_nor_time_without_end(
    tmp_path: Path, limit: str, value: float, words: str
) -> None:
    """DWARF 5 can name 2^63 directories in ten bytes.  In a child: whatever else allocates at the limit fails, too."""
    made = compiled(tmp_path, "-gdwarf-5")
    listing = subprocess.run(["objdump", "-h", made.path], check=True, capture_output=True, text=True).stdout
    offset = next(int(row.split()[5], 16) for row in listing.splitlines() if " .debug_line " in row)
    data = bytearray(made.path.read_bytes())
    behind = offset + 4 + 2 + 1 + 1 + 4 + 6 + 12  # lengths, version, sizes, ranges, operands of opcodes
    data[behind : behind + 10] = b"\0" + b"\xff" * 8 + b"\x7f"  # each takes no bytes, and there are many
    made.path.write_bytes(data)

    def read() -> str:
        setattr(reader, limit, value)
        try:
            with open_vmlinux(str(made.path)) as kernel:
                symbolized(log(made), kernel)
        except SymbolsError as e:
            return str(e)
        return "read to its end"

    assert words in forked(read)


def test_compressed_debug_information_is_an_error_that_tells_what_to_do(tmp_path: Path) -> None:
    """It would have to be unpacked whole."""
    made = compiled(tmp_path, "-gz=zlib")
    subprocess.run(["objcopy", "--compress-debug-sections", "vmlinux", "packed"], cwd=tmp_path, check=True)
    with open_vmlinux(str(tmp_path / "packed")) as kernel, pytest.raises(SymbolsError, match="compressed") as raised:
        symbolized(log(made), kernel)
    assert "objcopy" in (raised.value.hint or "")


def test_a_stripped_vmlinux_is_an_error(build: Build, tmp_path: Path) -> None:
    """It has nothing to tell."""
    subprocess.run(["strip", "-o", str(tmp_path / "vmlinux"), str(build.path)], check=True)
    with pytest.raises(SymbolsError, match="no symbols"), open_vmlinux(str(tmp_path / "vmlinux")):
        pass


def test_a_vmlinux_without_lines_gives_names(build: Build, tmp_path: Path) -> None:
    """CONFIG_DEBUG_INFO_NONE."""
    subprocess.run(["strip", "-g", "-o", str(tmp_path / "vmlinux"), str(build.path)], check=True)
    with open_vmlinux(str(tmp_path / "vmlinux")) as kernel:
        event, notes = symbolized(log(build), kernel)
    assert places(event) == [(name, None, None) for name, _, _ in WHOLE]
    assert ["no lines" in note for note in notes] == [True]


ROWS = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=8), st.integers(0, 2**64 - 1)), max_size=20)


@given(ROWS, st.integers(-10, 2**64))
def test_any_table_can_be_asked(rows: list[tuple[int, bytes, int]], address: int) -> None:
    """What is found is where it says."""
    table = SymbolTable(rows)
    found = table.at(address)
    assert found is None or 0 <= address - found.address < found.sizes[0]
    assert len(table) == len(rows)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_system_map_or_our_error(text: bytes) -> None:
    """No other exception."""
    try:
        assert len(parse_system_map(text))
    except SymbolsError:
        pass


# -- the Code: line


def code(text: str, registers: dict[str, int]) -> list[tuple[str, str, bool]]:
    """The instructions of a line, in a log with these registers."""
    rows = b"".join(b"%s: 0000000000000000\n" % name.encode() for name in registers)
    event = analyze(DIALECTS["x86-64"].text.encode())[0]
    return [tuple(i) for i in disassemble(_with(event, text, registers), rows)]  # type: ignore[misc]


def _with(event: Event, text: str, registers: dict[str, int]) -> Event:
    return replace(event, code=text, registers=registers)


@pytest.mark.parametrize(
    ("text", "registers", "fault", "instruction"),
    [
        ("1e 0f 1f 00 48 89 f8 48 89 d1 <f3> a4 c3", ["RSP"], "f3 a4", "rep movsb (%rsi)"),
        ("89 c3 <8b> 40 18 c3", ["ESP"], "8b 40 18", "movl 0x18(%eax), %eax"),
        ("d503201f f9400000 (f9400c00) d65f03c0", ["x0", "x29"], "00 0c 40 f9", "ldr x0, [x0, #0x18]"),
        ("e1a00000 (e5900018) e12fff1e", ["r10", "fp", "ip"], "18 00 90 e5", "ldr r0, [r0, #0x18]"),
        ("b580 (6980) bd80", ["r10", "fp", "ip"], "80 69", "ldr r0, [r0, #0x18]"),
    ],
    ids=["x86-64", "i386", "arm64", "arm", "thumb"],
)
def test_the_code_line_becomes_instructions(text: str, registers: list[str], fault: str, instruction: str) -> None:
    """And the one that the program counter stood at is marked."""
    marked = [(data, words) for data, words, faulting in code(text, dict.fromkeys(registers, 0)) if faulting]
    assert [data for data, _ in marked] == [fault]
    assert marked[0][1].startswith(instruction)


def test_the_first_bytes_may_be_the_end_of_an_instruction() -> None:
    """x86 prints 42 bytes before the program counter, wherever that is."""
    found = code("b8 00 <8b> 00 c3", {"RSP": 0})
    assert found[0] == ("b8 00", "(bad)", False)
    assert found[1][2]


def test_the_code_of_user_space_is_left_alone() -> None:
    """Behind the trace of a panic that a system call asked for: real, of Debian's kernel."""
    text = load("x86_64-6.1deb-ramoops").serial("crash")
    event = analyze(text)[0]
    assert event.code is not None
    assert disassemble(event, text) == ()


def test_a_code_line_of_another_machine_is_left_alone() -> None:
    """As are lines without a mark, and damaged ones."""
    for text in ("60000000 <7c0802a6>", "90 90", "<90> 9", "<90> 9090", ""):
        assert code(text, {"r10": 0}) == []


@settings(deadline=None)  # capstone is loaded by the first
@given(st.lists(st.sampled_from(["90", "<0f>", "0f", "ff", "(e5900018)", "e5900018", "<"]), max_size=30))
def test_any_code_line_is_told_whole_or_not_at_all(groups: list[str]) -> None:
    """Each byte once, and one instruction marked."""
    found = code(" ".join(groups), {"RSP": 0})
    if found:
        assert sum(len(data.split()) for data, _, _ in found) == sum(len(g.strip("<>()")) // 2 for g in groups)
        assert sum(faulting for _, _, faulting in found) == 1


# -- the command


def test_the_command_shows_lines_and_instructions(build: Build, tmp_path: Path) -> None:
    """On the page and in JSON."""
    (tmp_path / "log").write_text(log(build))
    page = run("--vmlinux", str(build.path), str(tmp_path / "log")).stdout.decode()
    assert f"{build.place('gauge_show')} at gauge.c:{LINE['gauge_show']}" in page
    assert "> f3 a4" in page
    value = json.loads(run("--json", "--vmlinux", str(build.path), str(tmp_path / "log")).stdout)
    frames = [value["events"][0]["pc"], *value["events"][0]["call_trace"]]
    assert [(f["function"], f["file"], f["line"]) for f in frames] == WHOLE
    assert [i["code"] for i in value["disassembly"] if i["faulting"]] == ["f3 a4"]


def test_the_command_takes_a_system_map(build: Build, tmp_path: Path) -> None:
    """And says what it cannot read."""
    (tmp_path / "System.map").write_text(build.system_map())
    done = run("--json", "--system-map", str(tmp_path / "System.map"), stdin=log(build).encode())
    assert json.loads(done.stdout)["events"][0]["call_trace"][1]["function"] == "dev_attr_show"
    done = run("--system-map", str(tmp_path / "none"), stdin=log(build).encode())
    assert done.returncode == 1
    assert b"No such file" in done.stderr


def test_without_the_extra_its_package_is_named(build: Build) -> None:
    """And what does not need it works."""
    hidden = "import sys\nsys.modules['elftools'] = sys.modules['capstone'] = None\nfrom pstored.cli import run\n"
    hidden += "sys.exit(run(sys.argv[1:]))"

    def without(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-c", hidden, "decode", *arguments]
        return subprocess.run(command, input=log(build).encode(), capture_output=True, check=False)

    done = without("--vmlinux", str(build.path))
    assert done.returncode == 1
    assert b"pyelftools" in done.stderr
    assert b"gauge_show" in without().stdout


def test_a_frame_without_debug_information_says_nothing_of_it() -> None:
    """None in JSON."""
    assert (Frame("f").file, Frame("f").line) == (None, None)
