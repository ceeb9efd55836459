# SPDX-License-Identifier: Apache-2.0
"""Any bytes give events, never an exception: libFuzzer, led by what of the analyzer each input reaches.

Run by hand, in a virtual environment of its own that has atheris and pytest::

    python tests/fuzz_oops.py CORPUS -max_total_time=600

CORPUS is a directory for what was found, begun with the texts of the real captures and of every architecture's report.
Any other word is libFuzzer's; a finding is left as ``crash-*``, ``timeout-*`` or ``oom-*`` in the current directory.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import atheris  # type: ignore[import-untyped,unused-ignore]

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["pstored"]):
    import pstored.decode
    from pstored.oops import event_keys, find_events, is_finished
    from pstored.oops.headers import RULES
    from pstored.parse.kmsg import parse_kmsg

from fake_pstore import capture
from tests.test_oops_dialects import DIALECTS

LIMITS = ("-max_len=16384", "-timeout=5", "-rss_limit_mb=1024")
"""Bytes, seconds and MB of one input: a report is some 8 KiB, and read in 2 ms."""
PIECE = 8192
"""Bytes of a seed: what is short is mutated more often."""


def check(data: bytes) -> None:
    """Read it in every way; what is found lies in the text."""
    decoded = pstored.decode.decode("x", data)
    for event in decoded.events:
        assert 0 <= event.first < event.last
        assert event.title == event.title.strip()
    assert all(line.isprintable() for line in pstored.decode.render(decoded).split("\n"))
    pstored.decode.to_json(decoded)
    lines = list(parse_kmsg(data))
    events = find_events(lines)
    assert len(event_keys(lines, events)) == len(events)
    for event in events:
        assert 0 <= event.first <= event.header < event.last <= len(lines)
        is_finished(lines, event)


def seeds() -> Iterator[bytes]:
    """Texts of every dialect, records of every packing, and consoles, in pieces."""
    yield from (dialect.text.encode() for dialect in DIALECTS.values())
    for name in capture.names():
        loaded = capture.load(name)
        for text in (*(data for _, data, _ in loaded.records()), loaded.serial("crash")):
            yield from (text[at : at + PIECE] for at in range(0, len(text), PIECE))


def words() -> list[bytes]:
    """The kernel's own, which a mutation would not find."""
    bodies = (
        b"+0x1/0x2",
        b"[<ffffffff81000000>]",
        b" from ",
        b"Call Trace:",
        b"RIP: 0010:",
        b" at: ",
        b"[    1.000001] ",
    )
    return sorted({rule.anchor for rule in RULES} | set(bodies))


def main() -> None:
    """Seeds and dictionary into the corpus, then libFuzzer."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: fuzz_oops.py CORPUS [-max_total_time=600] [libFuzzer's options]")
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    dictionary = corpus.with_suffix(".dict")
    dictionary.write_text("".join(f'"{word.decode()}"\n' for word in words()))
    atheris.Setup([sys.argv[0], *LIMITS, f"-dict={dictionary}", *sys.argv[1:]], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
