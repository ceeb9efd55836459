# SPDX-License-Identifier: Apache-2.0
"""Metrics as text, as Prometheus reads them (text format 0.0.4, Exposition Formats of its documentation).

Pure.  Without time stamps, which node_exporter's textfile collector does not take.
"""

import re
from collections.abc import Iterable, Mapping

from pstored.delivery.metrics import Family

_SAMPLE = re.compile(r"(pstored_[a-z_]+_total(?:\{[^\n]*\})?) ([0-9]{1,15})")
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


def sample(name: str, labels: Mapping[str, str]) -> str:
    """The name of a sample, with its labels by name: ``pstored_crashes_total{reason="panic"}``."""
    inner = ",".join(f'{label}="{value.translate(_ESCAPES)}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inner}}}" if inner else name


def render(families: Iterable[Family], shown: Mapping[str, int]) -> bytes:
    """The whole file; no counter is less than what was *shown* before."""
    lines = []
    for family in families:
        if not family.samples:
            continue
        lines.append(f"# HELP {family.name} " + family.help.replace("\\", "\\\\").replace("\n", "\\n"))
        lines.append(f"# TYPE {family.name} {'counter' if family.is_counter else 'gauge'}")
        for labels, value in family.samples:
            name = sample(family.name, labels)
            lines.append(f"{name} {max(value, shown.get(name, 0)) if family.is_counter else value}")
    return "".join(f"{line}\n" for line in lines).encode()


def parse_counters(text: str) -> dict[str, int]:
    """The counters of such a file, by sample; what is not as we write it is left out."""
    found = (_SAMPLE.fullmatch(line) for line in text.split("\n"))
    return {match[1]: int(match[2]) for match in found if match is not None}
