# SPDX-License-Identifier: Apache-2.0
"""Any bytes give records, or damage: libFuzzer on every parser and reader, led by what of it each input reaches.

Run by hand, in a virtual environment of its own that has atheris, pytest and what tests stand on::

    python tests/fuzz.py TARGET CORPUS -max_total_time=600

TARGET is a word of TARGETS, CORPUS a directory for what was found, begun with real captures' and fake_pstore's bytes.
Any other word is libFuzzer's; a finding is left as ``crash-*``, ``timeout-*`` or ``oom-*`` in the current directory.
The analyzer of texts has ``fuzz_oops.py``.
"""

import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import atheris  # type: ignore[import-untyped,unused-ignore]

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["pstored"]):
    from pstored.daemon.senders import MAX_BYTES, Fleet
    from pstored.errors import DamagedError
    from pstored.parse.cper import parse_cper
    from pstored.parse.decompress import unpack
    from pstored.parse.devkmsg import format_message, parse_devkmsg
    from pstored.parse.ecc import split_ecc_notice
    from pstored.parse.end import parse_end
    from pstored.parse.estatus import parse_estatus
    from pstored.parse.filename import erst_boot_key, split_efi_id, split_record_name
    from pstored.parse.ftrace import parse_ftrace_text
    from pstored.parse.ftracelog import show
    from pstored.parse.hardware import parse_hardware
    from pstored.parse.header import split_dump_header
    from pstored.parse.kmsg import parse_kmsg
    from pstored.parse.lz import decode_lz4, decode_lzo
    from pstored.parse.mce import parse_mce
    from pstored.parse.nx842 import decode_842
    from pstored.parse.pmsg import parse_pmsg
    from pstored.parse.record import decode_record
    from pstored.parse.reedsolomon import corrector, damaged_blocks
    from pstored.parse.snappy import decode_snappy
    from pstored.readers import KINDS, load
    from pstored.readers.memory import Held
    from pstored.readers.model import Options, Salvaged
    from pstored.readers.netconsole import parse_extended

    for _kind in KINDS.values():
        if _kind.module:
            __import__(f"pstored.readers.{_kind.module}")

from tests import fuzzseeds as seeds

SLOWEST_S = 3.0
"""Of the processor, for one input of 64 KiB or a dump of 200: led, all takes some three times as long."""
LIMITS = ("-timeout=120", "-rss_limit_mb=1500")
"""Seconds of the clock, which a busy machine may need; MB with all that is imported and the corpus."""
NAMED = ("efi", "last-kmsg")
"""Formats of which the name tells something: it is the first line of what is fed."""
LIMIT = 1 << 20
"""Bytes of text that an unpacker may give."""


class Target(NamedTuple):
    """What is fed, and what it begins with."""

    check: Callable[[bytes], object]
    """May raise DamagedError, and nothing else."""
    seeds: Callable[[], Iterator[bytes]]
    words: Sequence[bytes] = ()
    """What a mutation would not find."""


def check_filename(data: bytes) -> None:
    """Names, as os.listdir() gives them."""
    name = split_record_name(data.decode(errors="surrogateescape"))
    if name is not None and name.id is not None:
        split_efi_id(name.id)
        erst_boot_key(name.id)


def check_record(data: bytes) -> None:
    """A name, a newline, and the record of that name."""
    name, _, content = data.partition(b"\n")
    record = decode_record(name.decode(errors="surrogateescape"), content, mtime_ns=1)
    assert record.size == len(content)


def check_text(data: bytes) -> None:
    """What stands around a dump's text, and its lines."""
    content, _ = split_ecc_notice(data)
    assert data.startswith(content)
    text = split_dump_header(content).text
    assert content.endswith(text)
    assert sum(len(line.text) for line in parse_kmsg(text)) <= len(text)


def check_devkmsg(data: bytes) -> None:
    """A read of /dev/kmsg, and the same as one datagram."""
    for message in parse_devkmsg(data):
        format_message(message, times=True)
    parse_extended(data)


def check_unpack(data: bytes) -> None:
    """Whatever packed it."""
    assert len(unpack(data).text) <= LIMIT


def check_decoder(decode: Callable[[bytes, bytearray, int], object]) -> Callable[[bytes], None]:
    """One algorithm, where it may break off."""

    def check(data: bytes) -> None:
        out = bytearray()
        try:
            decode(data, out, LIMIT)
        except IndexError:
            pass
        assert len(out) <= LIMIT + (1 << 17)

    return check


def check_pmsg(data: bytes) -> None:
    """What programs wrote to /dev/pmsg0."""
    parse_pmsg(data).render()


def check_ftrace(data: bytes) -> None:
    """As pstorefs shows it, and as it is in memory."""
    assert len(parse_ftrace_text(data).text) <= 64 * len(data) + 4096
    half = len(data) // 2
    show((data[:half], data[half:]), "little")
    show((data[:half], data[half:]), "big")


def check_hardware(data: bytes) -> None:
    """Both forms; one of them at the most is what it is."""
    for parse in (parse_cper, parse_estatus, parse_hardware):
        try:
            parse(data)
        except DamagedError:
            pass


def check_ecc(data: bytes) -> None:
    """Number of bytes of parity, parity, data; what is put right is whole."""
    if not data:
        return
    roots = 2 + data[0] % 63
    blocks = max(1, len(data) // (128 + roots))
    parity, content = (
        data[1 : 1 + blocks * roots].ljust(blocks * roots, b"\0"),
        data[1 + blocks * roots :][: blocks * 128],
    )
    correct = corrector(roots)
    for number in damaged_blocks(content, parity, roots)[:4]:
        of_block = parity[number * roots :][:roots]
        if correct is not None and (found := correct(content[number * 128 :][:128] + of_block)) is not None:
            assert found[1] <= roots


def check_fleet(data: bytes) -> None:
    """Datagrams of a few senders, each line one."""
    fleet = Fleet(lines=20, quiet_s=5.0)
    for number, line in enumerate(data.split(b"\n\n")):
        fleet.take(str(line[:1]), 10**18 + number, line, float(number))
        fleet.finish(float(number))
        assert fleet.size <= MAX_BYTES + len(data)
    fleet.finish_all()


def check_reader(kind: str) -> Callable[[bytes], None]:
    """A whole file, judged, and read whatever was found of it."""

    def check(data: bytes) -> None:
        name, data = (b"", data) if kind not in NAMED else data.partition(b"\n")[::2]
        reader, source = load(kind), Held(data, name.decode(errors="surrogateescape"))
        reader.recognize(source)
        for erased in (False, True):
            size = 0
            for found in reader.read(source, Options(erased=erased)):
                if isinstance(found, Salvaged):
                    size += len(found.data)
                    assert found.name
            assert size <= 64 * len(data) + (16 << 20), f"{size} bytes of {len(data)}"

    return check


TARGETS = {
    "filename": Target(check_filename, seeds.names),
    "record": Target(check_record, seeds.records, seeds.WORDS),
    "text": Target(check_text, seeds.texts, seeds.WORDS),
    "devkmsg": Target(check_devkmsg, seeds.devkmsg),
    "decompress": Target(check_unpack, seeds.packed),
    "lz4": Target(check_decoder(decode_lz4), seeds.packed),
    "lzo": Target(check_decoder(decode_lzo), seeds.packed),
    "842": Target(check_decoder(decode_842), seeds.packed),
    "snappy": Target(lambda data: decode_snappy(data, LIMIT), seeds.snappy),
    "ftrace": Target(check_ftrace, seeds.ftrace),
    "pmsg": Target(check_pmsg, seeds.pmsg),
    "mce": Target(lambda data: parse_mce(data).render(), seeds.mce),
    "hardware": Target(check_hardware, seeds.hardware_records),
    "reedsolomon": Target(check_ecc, seeds.ecc),
    "end": Target(lambda data: parse_end(data).render(), seeds.ends),
    "fleet": Target(check_fleet, seeds.datagrams, seeds.WORDS),
    **{
        kind: Target(check_reader(kind), partial(seeds.of_kind, kind), seeds.WORDS)
        for kind, k in KINDS.items()
        if k.module
    },
}


class TooSlowError(Exception):
    """It takes too long: raised where it is then."""


def timed(check: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """The same, which fails where it takes too long."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"more than {SLOWEST_S} s")

    signal.signal(signal.SIGVTALRM, late)

    def run(data: bytes) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, SLOWEST_S)
        try:
            check(data)
        except DamagedError:
            pass
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    return run


def main() -> None:
    """Seeds and dictionary into the corpus, then libFuzzer."""
    if len(sys.argv) < 3 or sys.argv[1] not in TARGETS:
        raise SystemExit(
            f"usage: fuzz.py TARGET CORPUS [-max_total_time=600] [libFuzzer's options]\n{' '.join(TARGETS)}"
        )
    random.seed(6)
    target, corpus = TARGETS[sys.argv[1]], Path(sys.argv[2])
    corpus.mkdir(parents=True, exist_ok=True)
    longest = 0
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
        longest = max(longest, len(seed))
    options = [f"-max_len={max(4096, longest)}"]
    if target.words:
        dictionary = corpus.with_suffix(".dict")
        escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
        dictionary.write_text("".join(f'"{word}"\n' for word in escaped))
        options.append(f"-dict={dictionary}")
    atheris.Setup([sys.argv[0], *LIMITS, *options, *sys.argv[2:]], timed(target.check))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
