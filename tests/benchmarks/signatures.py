# SPDX-License-Identifier: Apache-2.0
"""Whether signatures group what they should: ``python tests/benchmarks/signatures.py LOG...``, many logs of many bugs.

*Copies* of each log are made as the same crash might arrive by other ways: without times, with a syslog's prefix, with
levels, from another boot (other times, addresses, processes, CPUs), from another build (other offsets, compiler
suffixes).  They must agree.  *Different* reports, by their first lines without numbers, should not.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from pstored.oops import Event, analyze, principal

_TIME = re.compile(rb"(?m)^(?:<\d>)?\[ {0,4}\d{1,6}\.\d{6}\] ?")
_FRAME = re.compile(rb"(?<=\+0x)([0-9a-f]{1,5})/0x([0-9a-f]{1,5})")
_ADDRESS = re.compile(rb"\b(?:0x)?[0-9a-f]{15}(?=[0-9a-f]\b)")
_PROCESS = re.compile(rb"(?<=PID: )\d{1,7}|(?<=CPU: )\d{1,3}|(?<=CPU#)\d{1,3}")
_SUFFIX = re.compile(rb"(?m)(?<=^ )(\w{3,60})(?=\+0x)|(?<=\]  )(\w{3,60})(?=\+0x)")


def _other_address(found: re.Match[bytes]) -> bytes:
    text = found[0]
    return text[:-2] + (b"a7" if text[-2:] != b"a7" else b"b3") if text.lstrip(b"0x").strip(b"0") else text


_SYSLOG = b"Nov 23 04:18:57 board kernel: "
COPIES: dict[str, Callable[[bytes], bytes]] = {
    "without times": lambda log: _TIME.sub(b"", log),
    "through syslog": lambda log: _TIME.sub(
        lambda m: b"Nov 23 04:18:57 board kernel: " + m[0].lstrip(b"<01234567>"), log
    ),
    "at other times": lambda log: _TIME.sub(lambda m: m[0].replace(b".", b"7.", 1)[-200:], log),
    "from another process": lambda log: _PROCESS.sub(b"3", log),
    "at other addresses": lambda log: _ADDRESS.sub(_other_address, log),
    "of another build": lambda log: _FRAME.sub(lambda m: b"%x/0x%x" % (int(m[1], 16) + 4, int(m[2], 16) + 16), log),
    "with suffixes": lambda log: _SUFFIX.sub(lambda m: m[0] + b".isra.0", log),
}


def read(log: bytes) -> Event | None:
    """The report that a log is about."""
    return principal(analyze(log))


def words(event: Event) -> str:
    """A report's first line without what is different each time."""
    return re.sub(r"\b(?:0x)?[0-9a-f]*\d[0-9a-f]*\b", "#", event.title)


def main(names: Sequence[str]) -> int:
    """Print what agrees, and what collides."""
    found = [(log, event) for log in map(Path.read_bytes, map(Path, names)) if (event := read(log)) is not None]
    print(f"{len(names)} logs, {len(found)} of them with a report")
    for name, copy in COPIES.items():
        changed = [(event, read(other)) for log, event in found if (other := copy(log)) != log]
        strict = sum(other is not None and other.strict == event.strict for event, other in changed)
        loose = sum(other is not None and other.loose == event.loose for event, other in changed)
        print(f"copies {name:22} {len(changed):4}: strict the same in {strict:4}, loose in {loose:4}")
    for kind in ("strict", "loose"):
        groups: dict[str, set[str]] = defaultdict(set)
        for _, event in found:
            groups[getattr(event, kind)].add(words(event))
        mixed = [group for group in groups.values() if len(group) > 1]
        print(f"{kind}: {len(groups)} signatures; {len(mixed)} of them of reports with different first lines")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
