# SPDX-License-Identifier: Apache-2.0
"""What fuzz.py begins with: real captures, and what fake_pstore and tests of readers make, in pieces that are short."""

import json
import random
import zlib
from collections.abc import Iterator

from fake_pstore import blk, capture, compress, hardware, kmemory, mtdoops, nvram, ramoops, sw842, vmcore
from fake_pstore import ftrace as traces
from fake_pstore import netconsole as net
from fake_pstore import pmsg as messages
from fake_pstore.cper import DMESG, DMESG_COMPRESSED, MCE, cper_record, erst_store
from fake_pstore.mce import mce_record
from tests import test_readers_android as android
from tests import test_readers_ramoops, test_readers_tar, test_readers_vmcore

PIECE = 8192
"""Bytes of a seed of text: what is short is mutated more often."""
WORDS = (
    b"Panic#1 Part1\n",
    b"Oops#1 Part12\n",
    b"====1795407522.123456-D\n",
    b"====1795407522.123456-C\n",
    b"\nECC: 3 Corrected bytes, 1 unrecoverable blocks\n",
    b"\nNo errors detected\n",
    b"<6>[    1.000001] ",
    b"[    2.000001][  T123] ",
    b"Kernel panic - not syncing: ",
    b"---[ end Kernel panic",
    b"Linux version 6.1.0 (",
    b"BUG: unable to handle page fault",
    b"Call Trace:",
    b"DBGC",
    b"CPER",
    b"ERST",
    b"KDUMP   ",
    b"\x7fELF",
    b"makedumpfile",
    b"VMCOREINFO",
    b"SYMBOL(prb)=",
    b"SYMBOL(log_buf)=",
    b"OSRELEASE=",
    b"CRASHTIME=",
    b",ncfrag=0/100;",
    b"------ LAST KMSG (",
    b"PK\x05\x06",
    b"0x1p4",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\xff\xff\xff\x7f",
)
_TEXT = b"Oops#1 Part1\n" + b"".join(
    b"<6>[%5d.%06d] a line, which is like others: %d\n" % (n, n, n % 7) for n in range(40)
)
_NAMES = (
    "dmesg-efi_pstore-179540752207001",
    "dmesg-efi-179540752207001.enc.z",
    "dmesg-erst-7711216860565340161",
    "dmesg-ramoops-0",
    "console-ramoops-0",
    "ftrace-ramoops-0",
    "pmsg-ramoops-0",
    "mce-erst-7711218256429711363",
    "cper-erst-1",
    "powerpc-common-nvram-2",
    "end-pstored-1",
    "console-serial-3",
    "unknown-x-9.enc.z",
)


def _captured() -> Iterator[tuple[str, bytes]]:
    for name in capture.names():
        for record, data, _ in capture.load(name).records():
            yield record, data


def names() -> Iterator[bytes]:
    """Of records."""
    yield from (name.encode() for name in (*_NAMES, "dmesg-ramoops-99999999999999999999999", "a\nb", "-", "dmesg--1"))


def records() -> Iterator[bytes]:
    """Real ones, and some of every type, each behind its name."""
    for name, data in _captured():
        yield name.encode() + b"\n" + data[:PIECE]
    for number, text in enumerate((*mce(), *pmsg(), *ftrace(), *hardware_records(), *packed(), *ends())):
        kinds = (
            "mce-erst-1",
            "pmsg-ramoops-0",
            "ftrace-ramoops-0",
            "cper-erst-1",
            "dmesg-ramoops-0.enc.z",
            "end-pstored-1",
        )
        yield kinds[number % len(kinds)].encode() + b"\n" + text
        for kind in kinds:
            yield kind.encode() + b"\n" + text


def texts() -> Iterator[bytes]:
    """Dumps and consoles."""
    yield from (data[:PIECE] for name, data in _captured() if not name.endswith(".enc.z"))
    yield _TEXT + b"\nECC: 3 Corrected bytes, 1 unrecoverable blocks\n"


def devkmsg() -> Iterator[bytes]:
    """Messages of /dev/kmsg."""
    for name in ("lab-netconsole-ext", "lab-netconsole-plain"):
        for line in capture.load(name).raw("datagrams.jsonl").splitlines()[:60]:
            yield json.loads(line)["data"].encode("latin-1")


def packed() -> Iterator[bytes]:
    """By every algorithm."""
    yield from (data for name, data in _captured() if name.endswith(".enc.z"))
    for text in (_TEXT, _TEXT[:100]):
        for pack in (
            compress.compress_deflate,
            compress.compress_zlib,
            compress.compress_zstd,
            compress.compress_lz4,
            compress.compress_lzo,
            sw842.compress_842,
        ):
            yield pack(text)


def snappy() -> Iterator[bytes]:
    """Blocks."""
    yield from (vmcore.snappy(text) for text in (_TEXT, _TEXT[:64], bytes(4096), random.Random(1).randbytes(200)))


def ftrace() -> Iterator[bytes]:
    """As pstorefs shows it, and raw."""
    calls = traces.pack(traces.calls(random.Random(1), 60))
    yield from (calls, traces.show(calls), traces.show(calls, kaslr=0), traces.show(calls, with_counter=False))
    yield from (data[:PIECE] for name, data in _captured() if name.startswith("ftrace"))


def pmsg() -> Iterator[bytes]:
    """Plain, and Android's."""
    rng = random.Random(1)
    yield messages.plain(rng, "12:00:00")
    yield messages.android(rng, "x", 1_795_000_000)
    yield from (data[:PIECE] for name, data in _captured() if name.startswith("pmsg"))


def mce() -> Iterator[bytes]:
    """Of all lengths there were."""
    for length in (88, 96, 104, 112, 120, 128):
        yield mce_record(length, time=1_795_000_000, ip=0xFFFFFFFF81000000)
    yield from (data for name, data in _captured() if name.startswith("mce"))


def hardware_records() -> Iterator[bytes]:
    """Every section, in a CPER record and in a status block."""
    for kind, body in (
        (hardware.MEMORY, hardware.memory()),
        (hardware.GENERIC, hardware.generic()),
        (hardware.IA, hardware.ia()),
        (hardware.IA, hardware.ia(status=0xBE00000000800400)),
        (hardware.ARM, hardware.arm()),
        (hardware.PCIE, hardware.pcie()),
        (hardware.FIRMWARE, hardware.firmware()),
    ):
        yield cper_record([(kind, body)], record_id=1, seconds=1_795_000_000)
        yield hardware.boot_error_record([(kind, hardware.FATAL, body)])


def ecc() -> Iterator[bytes]:
    """Blocks with their parity, whole and not."""
    data = _TEXT[:256]
    for roots in (2, 16, 64):
        parity = b"".join(ramoops.parity(data[at : at + 128], roots) for at in (0, 128))
        yield bytes([roots - 2]) + parity + data
        yield bytes([roots - 2]) + parity + b"\0" + data[1:]


def ends() -> Iterator[bytes]:
    """Boots that ended without a word."""
    yield b'{"boot_id": "8e4d1c52f7ab4c6d9d3e5a7b9c0d1e2f", "kernel": "6.1.0", "kind": "watchdog", "title": "x",'
    yield (
        b'{"boot_id":"8e4d1c52-f7ab-4c6d-9d3e-5a7b9c0d1e2f","kernel":"6.1","kind":"reset","title":"t",'
        b'"evidence":["a"],"wall":1.5,"uptime_s":2.5,"last_words":["x"]}'
    )


def datagrams() -> Iterator[bytes]:
    """What a crashing machine sends, one behind the other."""
    sent = list(devkmsg())
    for at in range(0, len(sent), 20):
        yield b"\n\n".join(b"a" + one for one in sent[at : at + 20])
    yield b"\n\n".join(
        b"b[    1.000000] " + w for w in (b"Linux version 6.1", b"Kernel panic - not syncing: x", b"hostname=web3\n")
    )


def _consoles() -> Iterator[bytes]:
    for name in capture.names():
        text = capture.load(name).serial("crash")
        yield text[:PIECE]
        yield text[-PIECE:]


def _erst() -> Iterator[bytes]:
    deflated = zlib.compress(_TEXT, wbits=-15)
    sections = [(DMESG, _TEXT), (DMESG_COMPRESSED, deflated), (MCE, next(mce()))]
    yield erst_store(
        ((cper_record([one], record_id=n, seconds=1_795_000_000 + n), n == 1) for n, one in enumerate(sections)),
        slots=4,
    )


def _blk() -> Iterator[bytes]:
    deflated = zlib.compress(_TEXT, wbits=-15)
    dumps = [
        blk.dump_zone(blk.Dump(data, 1_795_000_000, compressed=data is deflated), 4096) for data in (_TEXT, deflated)
    ]
    zones = (
        blk.zone("pmsg", b"x" * 50, 4096),
        blk.zone("ftrace", traces.pack(traces.calls(random.Random(1), 9)), 4096),
    )
    yield b"".join((*dumps, *zones, bytes(4096)))


def _ramoops() -> Iterator[bytes]:
    """Small ones, which take a hundredth of the time that a real one does."""
    for ecc, order in ((0, "<"), (16, "<"), (0, ">")):
        shape = ramoops.Parameters(
            mem_size=0x4000,
            record_size=0x1000,
            console_size=0x1000,
            pmsg_size=0x800,
            ftrace_size=0x800,
            ecc=ecc,
            order=order,
        )
        yield test_readers_ramoops.filled(shape, random.Random(ecc))[0].image()


def _vmcore() -> Iterator[bytes]:
    written = test_readers_vmcore.WRITTEN[:20]
    for number, (kind, release) in enumerate(test_readers_vmcore.KINDS):
        machine = list(kmemory.MACHINES.values())[number % len(kmemory.MACHINES)]
        memory = kmemory.crashed(machine, written, kind=kind, release=release, allocated=False, bits=(5, 10))
        yield from test_readers_vmcore.in_all_forms(memory).values()


def _ram() -> Iterator[bytes]:
    for machine in kmemory.MACHINES.values():
        plain = machine._replace(image_at=0x10000, levels=0, facts=())
        memory = kmemory.crashed(plain, test_readers_vmcore.WRITTEN[:20], bits=(5, 11), heap=0x40000)
        yield vmcore.raw(memory, min(memory.pages) * 4096)
        return


def _netconsole() -> Iterator[bytes]:
    sent = [net.Datagram(1_795_000_000.0 + n, "10.0.0.5", data) for n, data in enumerate(devkmsg())][:30]
    yield from (net.json_lines(sent), net.pcap(sent), net.pcap(sent, order=">", nano=True), net.pcapng(sent))
    yield net.pcapng(sent, order=">", nano=True, link=113)
    yield b"".join(one.data for one in sent)


def _bugreports() -> Iterator[bytes]:
    yield android.report(android.console()[-2000:])
    yield android.zipped(android.report(android.console()[-2000:]))


_OF_KIND = {
    "vmcore": _vmcore,
    "ram": _ram,
    "ramoops": _ramoops,
    "erst": _erst,
    "pstore_blk": _blk,
    "bert": hardware_records,
    "cper": hardware_records,
    "netconsole": _netconsole,
    "serial": _consoles,
    "bugreport": _bugreports,
}


def of_kind(kind: str) -> Iterator[bytes]:
    """Files of one of pstored.readers.KINDS."""
    if kind in _OF_KIND:
        yield from _OF_KIND[kind]()
    elif kind == "mtdoops":
        for order in ("<", ">"):
            dumps = [mtdoops.Dump(1, _TEXT), None, mtdoops.Dump(2, _TEXT[:50], 1_795_000_000 * 10**9)]
            yield mtdoops.partition(dumps, order=order)
    elif kind == "nvram":
        events = [
            nvram.oops(_TEXT, seconds=1_795_000_000, packed=True),
            nvram.oops(_TEXT, seconds=1_795_000_000, packed=False, header=b"Oops#1 Part1\n"),
            nvram.old_oops(_TEXT),
        ]
        for event in events:
            yield nvram.image([nvram.partition(nvram.OS, nvram.OOPS, event, 4016)], size=0x2000)
    elif kind == "tar":
        yield test_readers_tar.packed(*((name, data[:500]) for name, data in list(_captured())[:5]))
    elif kind == "efi":
        for letter, data in (("D", _TEXT), ("C", zlib.compress(_TEXT, wbits=-15))):
            yield (
                b"dump-type0-1-1-1795407522-%s-cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0\n\x07\0\0\0" % letter.encode()
                + data
            )
    elif kind == "last-kmsg":
        yield from (b"/proc/last_kmsg\n" + text for text in _consoles())
    else:
        for name in ("x86_64-6.1deb-kdump", "x86_64-6.12deb-kdump"):
            text = capture.load(name).raw("dmesg.txt")
            yield from (text[:PIECE], text[-PIECE:])
