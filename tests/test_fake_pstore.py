# SPDX-License-Identifier: Apache-2.0
"""The fake is right: its captures are whole, and its writers agree with what real kernels wrote."""

import ast
import hashlib
import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import lz4.block
import lzo
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fake_pstore
from fake_pstore import capture, compress, damage, dump, ftrace, kernels, mce, names, pmsg, sw842
from fake_pstore.__main__ import main
from fake_pstore.klog import Message
from fake_pstore.machine import Outcome, run
from fake_pstore.model import Options
from fake_pstore.scenarios import EVENTS, SCENARIOS

try:
    from compression import zstd  # Python 3.14
except ImportError:
    from backports import zstd

PACKAGE = Path(fake_pstore.__file__).parent
COLLECTED = [name for name in capture.names() if capture.load(name).files]


def outcome(scenario: str, backend: str, era: str | None = None, **options: object) -> Outcome:
    """Run a scenario."""
    settings = Options(backend=backend, era=kernels.ERAS[era or kernels.default_era(backend)], **options)  # type: ignore[arg-type]  # each test gives what Options takes
    return run(SCENARIOS[scenario], settings)


def test_imports_nothing_of_pstored() -> None:
    """A misreading must happen twice to pass: the writers share no code with the readers."""
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [module for module in modules if module.split(".")[0] == "pstored"], path


# --- captures ---


def test_captures_are_all_there() -> None:
    """There is a capture of every backend, and each has a folder of its own name."""
    loaded = [capture.load(name) for name in capture.names()]
    assert len(loaded) == 26
    beside = {"nvram", "mtdoops", "netconsole", "kdump"}
    assert {c.backend for c in loaded} == {"ramoops", "efi", "erst", "pstore_blk"} | beside
    assert [c.name for c in loaded] == [c.directory.name for c in loaded]


@pytest.mark.parametrize("name", COLLECTED)
@pytest.mark.parametrize("what", ["pstore", "truth"])
def test_unpack_gives_the_records_of_the_collecting_boot(name: str, what: capture.Shown, tmp_path: Path) -> None:
    """Names, sizes, digests and mtimes are those of capture.json, the mode that of pstorefs."""
    said = json.loads((capture.CAPTURES / name / "capture.json").read_bytes())
    paths = capture.load(name).unpack(tmp_path / "records", what=what)
    shown = {
        path.name: {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "mtime": path.stat().st_mtime_ns / 1e9,
        }
        for path in paths
    }
    assert shown == said.get("files" if what == "pstore" else "truth_files", {})
    assert {path.stat().st_mode & 0o7777 for path in paths} <= {0o444}


@pytest.mark.parametrize("name", capture.names())
def test_raw_files_and_serial_consoles_unpack(name: str) -> None:
    """Every raw file and console of a capture is there; the console of the crash names its kernel."""
    loaded = capture.load(name)
    for filename in loaded.raw_files:
        assert loaded.raw(filename)
    assert f"Linux version {loaded.crash_kernel} ".encode() in loaded.serial("crash")


@pytest.mark.parametrize("name", COLLECTED)
def test_populated_root_shows_the_collecting_boot(name: str, tmp_path: Path) -> None:
    """The /proc files are of the boot that collected, which began after the crash and before it mounted pstore."""
    loaded = capture.load(name)
    records = capture.populate_root(tmp_path, loaded)

    def text(path: str) -> str:
        return (tmp_path / path).read_text(encoding="ascii")

    assert sorted(path.name for path in records.iterdir()) == sorted(loaded.files)
    assert text("proc/sys/kernel/random/boot_id") == f"{loaded.collect_boot_id}\n"
    assert f" {text('proc/sys/kernel/osrelease').strip()} ".encode() in loaded.serial("collect")
    assert text("proc/version").rstrip().endswith(text("proc/sys/kernel/version").rstrip())
    assert text("proc/cmdline") == f"{loaded.collect_cmdline}\n"
    assert text("sys/module/pstore/parameters/backend") == f"{loaded.backend}\n"
    assert re.fullmatch(r"[0-9a-f]{32}\n", text("etc/machine-id"))
    found = re.search(r"^btime (\d+)$", text("proc/stat"), re.MULTILINE)
    assert found is not None
    mount_timed = ("console", "pmsg", "ftrace", "mce")
    for name_, facts in loaded.files.items():
        assert (facts.mtime > int(found[1])) == name_.startswith(mount_timed), name_
    assert not (tmp_path / "dev/kmsg").exists()


@pytest.mark.parametrize("name", COLLECTED)
def test_stamps_of_captures_are_in_their_records(name: str) -> None:
    """What capture.json calls stamped is what STAMP_PREFIX finds in records that are not compressed."""
    loaded = capture.load(name)
    content = b"".join(data for what in ("pstore", "truth") for _, data, _ in loaded.records(what))
    stamps = re.findall(re.escape(capture.STAMP_PREFIX.encode()) + rb"([0-9a-f-]{36})", content)
    assert {stamp.decode() for stamp in stamps} == set(loaded.stamped_boot_ids)


# --- compression ---


def unpack_842(stream: bytes) -> tuple[bytes, set[int]]:
    """A decoder from the format sheet: the text, and which opcodes were used; the CRC must fit."""
    templates = re.findall(
        r"\w+",
        "D8,D4D2I2,D4I2D2,D4I2I2,D4I4,D2I2D4,D2I2D2I2,D2I2I2D2,D2I2I2I2,D2I2I4,I2D2D4,I2D4I2,I2D2I2D2,I2D2I2I2,"
        "I2D2I4,I2I2D4,I2I2D2I2,I2I2I2D2,I2I2I2I2,I2I2I4,I4D4,I4D2I2,I4I2D2,I4I2I2,I4I4,I8",
    )
    left = "".join(f"{byte:08b}" for byte in stream)
    at, out, used = 0, bytearray(), set()

    def take(bits: int) -> int:
        nonlocal at
        at += bits
        return int(left[at - bits : at], 2)

    while (opcode := take(5)) != 0x1E:
        used.add(opcode)
        if opcode < len(templates):
            total = len(out)
            for kind, digit in re.findall("(.)(.)", templates[opcode]):
                size = int(digit)
                if kind == "D":
                    out += take(8 * size).to_bytes(size, "big")
                    continue
                bits = {2: 8, 4: 9, 8: 8}[size]
                offset, ring = take(bits) * size, size << bits
                if total > ring:
                    section = total // ring * ring
                    offset += section - ring if offset >= total - section else section
                assert offset + size <= total
                out += out[offset : offset + size]
        elif opcode == 0x1B:
            out += out[-8:] * (take(6) + 1)
        elif opcode == 0x1C:
            out += bytes(8)
        else:
            assert opcode == 0x1D
            length = take(3)
            out += take(8 * length).to_bytes(length, "big")
    crc = 0
    for bit in "".join(f"{byte:08b}" for byte in out):
        crc = (crc << 1 ^ (0x04C11DB7 if (crc >> 31) ^ int(bit) else 0)) & 0xFFFFFFFF
    assert take(32) == crc
    assert not left[at:].strip("0")
    assert len(stream) % 8 == 0
    assert len(left) - at < 64
    return bytes(out), used


def inflate(wbits: int) -> Callable[[bytes, int], bytes]:
    """A reader for deflate with a window no larger than that."""
    return lambda stream, _: zlib.decompress(stream, wbits)


READERS: dict[str, Callable[[bytes, int], bytes]] = {
    "none": lambda stream, _: stream,
    "zlib": inflate(12),
    "deflate": inflate(-11),
    "deflate32k": inflate(-15),
    "lz4": lambda stream, size: lz4.block.decompress(stream, uncompressed_size=size),
    "lz4hc": lambda stream, size: lz4.block.decompress(stream, uncompressed_size=size),
    "lzo": lambda stream, size: lzo.decompress(stream, False, size),
    "zstd": lambda stream, _: zstd.decompress(stream),
    "zstd-unsized": lambda stream, _: zstd.ZstdDecompressor().decompress(stream),
    "842": lambda stream, _: unpack_842(stream)[0],
}

log_like = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from([bytes(16), b"mem 0x000", b"ab" * 90, b"12345678" * 70])),
    max_size=40,
).map(b"".join)


@pytest.mark.parametrize("algorithm", compress.ALGORITHMS)
@given(data=log_like)
def test_compression_round_trips_through_other_libraries(algorithm: str, data: bytes) -> None:
    """What one library (or for 842 the encoder) packs, another or the format sheet's decoder unpacks."""
    assert READERS[algorithm](compress.ALGORITHMS[algorithm](data), len(data)) == data


def encoded(algorithm: str) -> Iterator[tuple[bytes, bytes]]:
    """Stored bytes and text of each compressed record that a real kernel wrote, ECC notices off."""
    loaded = capture.load(f"lab-enc-{algorithm}")
    truth = {name: data for name, data, _ in loaded.records("truth")}
    notice = len(damage.ecc_notice(damage.ECC_NEW))
    for name, data, _ in loaded.records():
        if name.endswith(".enc.z"):
            yield data[:-notice], truth[name.removesuffix(".enc.z")][:-notice]


@pytest.mark.parametrize("algorithm", ["842", "lz4hc"])
def test_compression_gives_the_very_bytes_of_a_kernel(algorithm: str) -> None:
    """842 and lz4hc leave the packer no choice that differs: real records come out bit for bit."""
    pairs = list(encoded(algorithm))
    assert len(pairs) == 2
    for stored, text in pairs:
        assert compress.ALGORITHMS[algorithm](text) == stored


@pytest.mark.parametrize("algorithm", ["deflate", "lz4", "lz4hc", "lzo", "zstd", "842"])
def test_the_readers_of_this_test_unpack_what_kernels_packed(algorithm: str) -> None:
    """The formats of the round trips are those of real kernels."""
    for stored, text in encoded(algorithm):
        assert READERS[algorithm](stored, len(text)) == text


def test_first_bytes_are_the_ones_by_which_formats_are_known() -> None:
    """The zlib header of level 6 and 12 bits, zstd's magic with and without content size, the end of LZO."""
    text = b"Panic#2 Part1\n" * 40
    assert compress.compress_zlib(text)[:2] == b"\x48\x89"
    sized, unsized = compress.compress_zstd(text), compress.compress_zstd_unsized(text)
    assert sized[:4] == unsized[:4] == b"\x28\xb5\x2f\xfd"
    assert zstd.get_frame_info(sized).decompressed_size == len(text)
    assert zstd.get_frame_info(unsized).decompressed_size is None
    assert compress.compress_lzo(text).endswith(b"\x11\x00\x00")


def test_842_uses_every_opcode() -> None:
    """A real log and some zeros and short data make use of all templates and of the special opcodes."""
    text = next(encoded("842"))[1] + bytes(19) + b"abcdefgh" * 70 + b"xyz"
    assert unpack_842(sw842.compress_842(text))[1] == {*range(0x1A), 0x1B, 0x1C, 0x1D}


# --- names ---


@pytest.mark.parametrize("name", [n for n in COLLECTED if capture.load(n).backend == "efi"])
def test_efi_ids_are_those_of_real_records(name: str) -> None:
    """The id of each EFI record follows from its mtime and its header."""
    for filename, data, mtime_ns in capture.load(name).records():
        found = re.match(rb"\w+#(\d+) Part(\d+)\n", data)
        assert found is not None
        record_id = names.efi_id(mtime_ns // 1_000_000_000, int(found[2]), int(found[1]))
        assert filename == names.record_name("dmesg", "efi", record_id)
        assert (record_id // 100_000, record_id // 1000 % 100, record_id % 1000) == (
            mtime_ns // 1_000_000_000,
            int(found[2]),
            int(found[1]),
        )


@pytest.mark.parametrize("name", [n for n in COLLECTED if capture.load(n).backend == "erst"])
def test_erst_ids_are_those_of_real_records(name: str) -> None:
    """ERST ids of a boot are its first record's time and a running number."""
    loaded = capture.load(name)
    first = min(facts.mtime for file, facts in loaded.files.items() if file.startswith("dmesg"))
    expected = {names.erst_id(first, number + 1) for number in range(len(loaded.files))}
    assert {int(file.split("-")[2]) for file in loaded.files} == expected


def test_ids_at_their_limits() -> None:
    """Part 100 takes the id of part 0 a second later; ERST ids change their layout in 2038; long names are cut."""
    assert names.efi_id(1_795_407_522, 100, 1) == names.efi_id(1_795_407_523, 0, 1)
    assert names.erst_id(0x6B03BFC5, 1) == 0x6B03BFC5_00000001
    assert names.erst_id((1 << 31) - 1, 7) == 0x7FFFFFFF_00000007
    assert names.erst_id(1 << 31, 7) == 0x80800000_00000007 | 1 << 63
    assert names.record_name("console", "ramoops", None) == "console-ramoops"
    assert len(names.record_name("dmesg", "x" * 80, 5)) == 63
    assert names.nvram_id("powerpc-common", 3) == 6
    assert names.efi_variable(2, 1, 99, compressed=True) == "dump-type0-2-1-99-C"


# --- dumps ---


def real_dumps() -> Iterator[tuple[str, bytes, dict[int, bytes]]]:
    """The whole dumps of real EFI and ERST records: backend, reason#count, and text by part number."""
    for name in COLLECTED:
        loaded = capture.load(name)
        groups: dict[tuple[bytes, bool], dict[int, bytes]] = {}
        if loaded.backend in ("efi", "erst"):
            for filename, data, mtime_ns in loaded.records():
                head, _, part = data.partition(b"\n")[0].partition(b" Part")
                if filename.startswith("dmesg"):
                    earlier_boot = mtime_ns // 1_000_000_000 < loaded.crash_boot_time
                    groups.setdefault((head, earlier_boot), {})[int(part)] = data
        for (head, _), parts in groups.items():
            yield loaded.backend, head, parts


def test_parts_are_cut_where_real_kernels_cut_them() -> None:
    """The log of each real EFI and ERST dump, put together and split again, gives the same records."""
    seen = 0
    for backend, head, parts in real_dumps():
        log = b"".join(parts[number].partition(b"\n")[2] for number in sorted(parts, reverse=True))
        reason, count = head.split(b"#")
        made = dump.dump_parts(
            log.splitlines(keepends=True),
            reason=reason,
            count=int(count),
            era=kernels.ERAS["6.1"],
            algorithm="deflate",
            bufsize=kernels.BACKENDS[backend].bufsize,
            kmsg_bytes=1 << 30,
        )
        assert {part.number: part.text for part in made} == parts
        seen += len(made)
    assert seen > 80


@given(
    lines=st.lists(st.binary(max_size=60).map(lambda line: line + b"\n"), max_size=60),
    algorithm=st.sampled_from(["none", "zlib", "deflate", "deflate32k", "lz4", "842"]),
    bufsize=st.integers(120, 2000),
    era=st.sampled_from(list(kernels.ERAS.values())),
)
def test_parts_lose_no_byte(lines: list[bytes], algorithm: str, bufsize: int, era: kernels.Era) -> None:
    """Joined by descending part, the texts are the whole log; each fits its room and has its header."""
    parts = dump.dump_parts(
        lines, reason=b"Oops", count=3, era=era, algorithm=algorithm, bufsize=bufsize, kmsg_bytes=1 << 30
    )
    heads = [b"Oops#3 Part%d\n" % part.number for part in parts]
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert all(part.text.startswith(head) for part, head in zip(parts, heads, strict=True))
    bodies = [part.text[len(head) :] for part, head in zip(parts, heads, strict=True)]
    assert b"".join(reversed(bodies)) == b"".join(lines)
    assert all(len(part.stored) <= bufsize for part in parts)
    for part in parts:
        if part.compressed:
            assert READERS[algorithm](part.stored, len(part.text)) == part.text


def test_the_dump_ends_at_kmsg_bytes() -> None:
    """The last part may go over the limit, none follows it."""
    lines = [b"%050d\n" % number for number in range(400)]
    options = {"reason": b"Panic", "count": 1, "era": kernels.ERAS["3.10"], "algorithm": "none", "bufsize": 1024}
    parts = dump.dump_parts(lines, kmsg_bytes=3000, **options)  # type: ignore[arg-type]  # one dict for two calls
    stored = [len(part.stored) for part in parts]
    assert sum(stored[:-1]) < 3000 <= sum(stored)
    assert len(dump.dump_parts(lines, max_parts=2, **options)) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(("era", "end"), [("6.1", b"newest\n"), ("6.12", b"")])
def test_what_will_not_compress_is_cut(era: str, end: bytes) -> None:
    """Up to v6.5 the newest bytes survive behind the header, from v6.6 the oldest: bufsize bytes in both cases."""
    noise = hashlib.shake_256(b"noise").digest(900).replace(b"\n", b" ")
    lines = [b"oldest" + noise + b"\n", noise[::-1] + b"newest\n"]
    parts = dump.dump_parts(lines, reason=b"Oops", count=1, era=kernels.ERAS[era], algorithm="deflate32k", bufsize=1200)
    assert not parts[0].compressed
    assert len(parts[0].stored) == 1200
    assert parts[0].stored.startswith(b"Oops#1 Part1\n")
    assert parts[0].stored.endswith(b"newest\n") == bool(end)
    assert (b"oldest" in parts[0].stored) == (not end)


def test_lines_have_the_prefixes_of_printk() -> None:
    """Each line of a message has level, time and caller, and the blank only behind a bracket."""
    message = Message(12, 2_345_678, "T63", "pstored: boot x\nmore")
    assert dump.syslog_lines(message) == b"<12>[    2.345678] pstored: boot x\n<12>[    2.345678] more\n"
    assert dump.syslog_lines(message, callers=True).startswith(b"<12>[    2.345678][   T63] pstored")
    assert dump.syslog_lines(message, times=False, callers=True).startswith(b"<12>[   T63] pstored")
    assert dump.syslog_lines(message, times=False).startswith(b"<12>pstored")
    assert dump.console_lines(message).startswith(b"[    2.345678] pstored")


# --- other records ---


def test_struct_mce_is_the_one_a_kernel_stored() -> None:
    """With the time, address and CPU of the real record, the 128 bytes are its bytes; older ones are its beginning."""
    real = next(data for name, data, _ in capture.load("lab-erst-mce").records() if name.startswith("mce"))
    (ip,) = struct.unpack_from("<Q", real, 32)
    (time,) = struct.unpack_from("<Q", real, 48)
    for length in mce.LENGTHS:
        assert mce.mce_record(length, time=time, ip=ip, cpu=0) == real[:length]


def test_ftrace_text_is_the_one_a_kernel_shows() -> None:
    """The records behind real ftrace text, packed and shown again, give that text."""
    loaded = capture.load("x86_64-6.1-ramoops-all")
    text = next(data for name, data, _ in loaded.records() if name.startswith("ftrace"))[:20_000].rpartition(b"\n")[0]
    calls = [
        ftrace.Call(int(cpu), int(counter), int(ip, 16), int(parent, 16))
        for cpu, counter, ip, parent in re.findall(rb"CPU:(\d+) ts:(\d+) (\w+)  (\w+) ", text)
    ]
    assert len(calls) > 200
    assert ftrace.show(ftrace.pack(calls)) == text + b"\n"


def test_ftrace_with_ecc_is_out_of_step() -> None:
    """25 bytes of notice behind 24-byte records: all addresses are shifted, the last line is made of the notice."""
    shown = outcome("ftrace-ecc", "ramoops", ecc=damage.ECC_NEW).records
    text = next(record.data for record in shown if record.name == "ftrace-ramoops-0")
    last = re.search(rb"([0-9a-f]+)  ([0-9a-f]+)  \S+ <- \S+\n\Z", text)
    assert last is not None
    assert bytes.fromhex(last[1].decode())[::-1] == b"ECC: No "
    assert b"gauge_store" not in text
    clean = outcome("all-zones", "ramoops").records
    assert b"gauge_store" in next(record.data for record in clean if record.name == "ftrace-ramoops-0")


def test_android_frames_follow_liblog() -> None:
    """Length covers both headers, and the fields lie where the format sheet has them."""
    made = pmsg.frame(4, b"vold", b"hello", log_id=3, pid=7, tid=9, uid=1000, seconds=5, nanoseconds=6)
    assert made == b"l" + struct.pack("<HHHBHII", 30, 1000, 7, 3, 9, 5, 6) + b"\x04vold\0hello\0"
    assert len(made) == 30


def test_ecc_notices_in_both_wordings() -> None:
    """The notice of real captures, and the other three forms."""
    real = next(data for _, data, _ in capture.load("x86_64-6.1deb-ramoops").records())
    assert real.endswith(damage.ecc_notice(damage.ECC_NEW))
    assert damage.ecc_notice(damage.ECC_OLD) == b"\nNo errors detected\n"
    assert damage.ecc_notice(damage.ECC_NEW, 3, 1) == b"\nECC: 3 Corrected bytes, 1 unrecoverable blocks\n"
    assert damage.ecc_notice(damage.ECC_OLD, 0, 2) == b"\n0 Corrected bytes, 2 unrecoverable blocks\n"


# --- scenarios ---

CASES = [(name, backend) for name, scenario in SCENARIOS.items() for backend in scenario.backends]


@pytest.mark.parametrize(("scenario", "backend"), CASES)
def test_every_scenario_is_made_by_the_command_line(
    scenario: str, backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records and summary agree, the boot id of the collecting boot is no crashed one, and every stamp is true."""
    collecting = "00000000-0000-4000-8000-0000000000ff"
    crashed = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(len(SCENARIOS[scenario].boots))]
    argv = [str(tmp_path), "--scenario", scenario, "--backend", backend, "--boot-id", *crashed, collecting]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    records = sorted((tmp_path / "sys/fs/pstore").iterdir())
    assert records
    for path in records:
        assert re.search(rf"^{re.escape(path.name)} +{path.stat().st_size} bytes ", shown, re.MULTILINE)
        assert path.stat().st_mode & 0o7777 == 0o444
    assert (tmp_path / "proc/sys/kernel/random/boot_id").read_text() == f"{collecting}\n"
    content = b"".join(path.read_bytes() for path in records)
    stamps = {stamp.decode() for stamp in re.findall(rb"pstored: boot ([0-9a-f-]{36})", content)}
    assert stamps == set(crashed)


@pytest.mark.parametrize(
    ("era", "backend"),
    [
        (era, backend)
        for era, kernel in kernels.ERAS.items()
        for backend, known in kernels.BACKENDS.items()
        if known.since <= kernel.version <= known.until
    ],
)
def test_every_kernel_of_a_backend_leaves_two_dumps(era: str, backend: str) -> None:
    """An oops and a panic of one boot: both are shown, or it is said what hides the second."""
    made = outcome("oops-panic", backend, era)
    whats = [record.what for record in made.records] + made.hidden
    assert any(what.startswith("Oops#1") for what in whats)
    assert any(what.startswith("Panic#2") for what in whats)
    assert all(record.data.count(b"#") for record in made.records)


def test_the_words_of_old_kernels() -> None:
    """v3.10 keeps the ==== line and has no ids on zones; Restart became Shutdown; efi became efi_pstore."""
    old = {record.name: record for record in outcome("all-zones", "ramoops", "3.10").records}
    assert set(old) == {"dmesg-ramoops-0", "dmesg-ramoops-1", "console-ramoops", "ftrace-ramoops"}
    assert re.match(rb"====\d+\.\d+\nOops#1 Part1\n<5>\[    0.000000\] Linux", old["dmesg-ramoops-0"].data)
    assert re.match(rb"\d [0-9a-f]{16}  ", old["ftrace-ramoops"].data)
    assert outcome("shutdown", "erst", "4.19").records[0].data.startswith(b"Restart#1 ")
    assert outcome("shutdown", "erst", "5.10").records[0].data.startswith(b"Shutdown#1 ")
    assert {record.name for record in outcome("oops-panic", "efi", "3.10").records} >= {"dmesg-efi-1", "dmesg-efi-2"}


def test_two_boots_share_no_timestamp_and_ramoops_reuses_its_slots() -> None:
    """The second boot's first dump takes slot 0; timed lines of the two boots differ beyond the first instant."""
    made = outcome("two-boots", "ramoops")
    assert [record.what for record in made.records] == ["Panic#1 Part1", "Panic#2 Part1"]
    assert made.hidden == ["Oops#1 Part1: overwritten in dmesg-ramoops-0 by a later boot"]
    first, second = ({*record.data.splitlines()[1:]} for record in made.records)
    common = [line for line in first & second if b"[    0.000000]" not in line]
    assert common == []
    assert [record.what for record in outcome("two-boots", "pstore_blk").records] == [
        "Oops#1 Part1",
        "Panic#2 Part1",
        "Panic#1 Part1",
    ]


def test_mtimes_have_the_resolution_of_the_backend() -> None:
    """Whole seconds for EFI, microseconds for ramoops, nanoseconds for pstore_blk; zones carry the mount's time."""
    resolutions = {"efi": 1_000_000_000, "ramoops": 1000, "pstore_blk": 1}
    for backend, unit in resolutions.items():
        made = outcome("oops-panic", backend)
        assert all(record.mtime_ns % unit == 0 for record in made.records)
        assert unit == 1_000_000_000 or any(record.mtime_ns % (unit * 1000) for record in made.records)
        assert all(record.mtime_ns < made.host.btime * 1_000_000_000 for record in made.records)
    made = outcome("all-zones", "ramoops")
    mounted = {record.mtime_ns for record in made.records if not record.name.startswith("dmesg")}
    assert len(mounted) == 1
    assert mounted.pop() > made.host.btime * 1_000_000_000


def test_without_a_prefix_there_is_no_stamp() -> None:
    """A machine that pstored never ran on leaves no boot id in any record."""
    made = outcome("all-zones", "ramoops", stamp_prefix="")
    assert not any(made.boots[0].boot_id.encode() in record.data for record in made.records)


def test_big_overflows_its_ids() -> None:
    """Above part 99 the id names a second too late and a part 100 too low; the header has the truth."""
    made = outcome("big", "efi")
    over = [record for record in made.records if int(record.what.rpartition("Part")[2]) >= 100]
    assert len(over) > 5
    for record in over:
        part = int(record.what.rpartition("Part")[2])
        record_id = int(record.name.split("-")[2])
        assert record.data.startswith(b"Panic#1 Part%d\n" % part)
        assert record_id // 1000 % 100 == part - 100
        assert record_id // 100_000 == record.mtime_ns // 1_000_000_000 + 1


def test_compress_shows_records_as_another_kernel_does() -> None:
    """With an algorithm named, dmesg comes as .enc.z, the ECC notice behind the stored bytes."""
    plain = {record.name: record.data for record in outcome("panic", "ramoops", "6.1", ecc=damage.ECC_NEW).records}
    made = outcome("panic", "ramoops", "6.1", ecc=damage.ECC_NEW, algorithm="842").records
    assert [record.name for record in made] == ["dmesg-ramoops-0.enc.z"]
    notice = damage.ecc_notice(damage.ECC_NEW)
    assert made[0].data.endswith(notice)
    assert unpack_842(made[0].data.removesuffix(notice))[0] + notice == plain["dmesg-ramoops-0"]


def test_blk_counts_crashes_where_nothing_is_compressed() -> None:
    """pstore_blk says how often a reason came in its life, before the header."""
    made = outcome("two-boots", "pstore_blk", algorithm="none").records
    assert [record.data.splitlines()[:2] for record in made] == [
        [b"Oops: Total 1 times", b"Oops#1 Part1"],
        [b"Panic: Total 1 times", b"Panic#2 Part1"],
        [b"Panic: Total 2 times", b"Panic#1 Part1"],
    ]


def test_consoles_tell_a_crash_from_an_orderly_reboot() -> None:
    """The console of a crash ends with the panic, that of a reboot with the restart; neither has level prefixes."""
    (crash,) = outcome("console-only-crash", "ramoops").records
    assert crash.data.endswith(b"---[ end Kernel panic - not syncing: Fatal exception ]---\n")
    clean = outcome("console-only-clean", "ramoops").records[0].data
    assert clean.endswith(b"reboot: Restarting system\n")
    assert b"panic" not in clean
    assert not re.search(rb"^<", crash.data + clean, re.MULTILINE)


def test_parts_and_missing_parts_are_as_asked() -> None:
    """--parts gives so many, --missing-part leaves some out, nothing else changes."""
    whole = outcome("panic", "efi_pstore", parts=20).records
    assert sorted(int(record.what.rpartition("Part")[2]) for record in whole) == list(range(1, 21))
    holes = outcome("panic", "efi_pstore", parts=20, missing_parts=frozenset({2, 19}))
    assert holes.records == [record for record in whole if not record.what.endswith(("Part2", "Part19"))]
    assert len(holes.hidden) == 2


@pytest.mark.parametrize("kind", damage.DAMAGES)
def test_damage_hits_one_record_and_the_notice_tells(kind: str) -> None:
    """Exactly one record differs, and with ECC its notice counts the bad block."""
    whole = outcome("oops-panic", "ramoops", ecc=damage.ECC_OLD).records
    hurt = outcome("oops-panic", "ramoops", ecc=damage.ECC_OLD, damage=(kind,)).records
    changed = [after for before, after in zip(whole, hurt, strict=True) if before.data != after.data]
    assert len(changed) == 1
    assert changed[0].what.endswith(f"damaged ({kind})")
    assert re.search(rb"\n\d+ Corrected bytes, 1 unrecoverable blocks\n\Z", changed[0].data)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two runs in processes of their own agree in every byte and mtime; another seed gives another story."""

    def make(name: str, seed: str) -> dict[str, tuple[bytes, int]]:
        argv = [
            sys.executable,
            "-m",
            "fake_pstore",
            str(tmp_path / name),
            "--bare",
            "--seed",
            seed,
            "--backend",
            "erst",
        ]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd=PACKAGE.parent)
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / name).iterdir()}

    first = make("one", "7")
    assert first == make("two", "7")
    assert not first.keys() & make("three", "8").keys()


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["--scenario", "mce", "--backend", "efi"], "told by erst"),
        (["--backend", "efi_pstore", "--kernel-era", "6.1"], "no backend of the name 'efi_pstore'"),
        (["--backend", "erst", "--ecc", "new"], "only ramoops has ECC"),
        (["--backend", "ramoops", "--parts", "3"], "cannot keep 3 parts"),
        (["--scenario", "ftrace-ecc", "--ecc", "none"], "needs ECC"),
        (["--capture", "lab-mtdoops"], "no boot collected"),
    ],
)
def test_contradictions_are_usage_errors(
    argv: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, a reason on stderr, and nothing written."""
    assert main([str(tmp_path), *argv]) == 2
    assert hint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_records_are_not_mixed_with_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that holds records is left as it is."""
    assert main([str(tmp_path), "--capture", "lab-erst"]) == 0
    assert main([str(tmp_path), "--scenario", "panic"]) == 2
    assert "records already" in capsys.readouterr().err
    assert len(list((tmp_path / "sys/fs/pstore").iterdir())) == 4


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """Every scenario and capture has its line; every event of a scenario has its word."""
    assert main(["--list"]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {*SCENARIOS, *capture.names()} <= set(shown)
    assert {event for scenario in SCENARIOS.values() for boot in scenario.boots for event in boot} == set(EVENTS)


def test_demo_shows_each_command_before_its_output() -> None:
    """The demo runs collect, list and show in order, on a root that is gone afterwards."""
    argv = [sys.executable, "-m", "fake_pstore", "--demo"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"^\$ pstored --root (\S+) (.+)$", done.stdout, re.MULTILINE)
    assert [command for _, command in commands] == ["collect", "list", "show -1"]
    assert not Path(commands[0][0]).exists()
