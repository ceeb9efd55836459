# SPDX-License-Identifier: Apache-2.0
"""The history of boots for a person: a line each, and a picture with a row a day.  Takes what ``--json`` gives.

In the picture every cell is a piece of the day: a rule while the machine ran, a letter where a boot ended, of several
the worst; nothing where it was off, or nobody knows.
"""

import time
from itertools import groupby
from typing import Any

from pstored.terminal import Style, visible

DAYS = 31
"""So many rows, the newest; days without a boot in between are skipped, and said."""
DAY_S = 86400
LABEL = len("2026-11-23  ")
_LETTERS = {"panic": "P", "oops": "O", "watchdog": "W", "reset": "R", "unknown": "?", "clean": "c", "running": ">"}
"""Worst first."""
_WORST = list(_LETTERS)
_MEANINGS = {
    "P": "panic",
    "O": "oops, then death",
    "W": "watchdog",
    "R": "reset or power loss",
    "?": "unknown",
    "c": "in order",
    ">": "running",
}


def _paint(style: Style, kind: str, text: str) -> str:
    if kind in ("panic", "oops"):
        return style.red(text)
    if kind in ("watchdog", "reset"):
        return style.yellow(text)
    return style.dim(text) if kind == "unknown" else style.green(text)


# -- lines


_COLUMNS = ("BOOT", "START (UTC)", "LENGTH", "END", "CRASH", "WHY")


def render_boots(boots: list[dict[str, Any]], *, style: Style = Style(), width: int | None = None) -> str:  # noqa: B008
    """One line a boot, oldest first; cut to *width* columns, if given, and without the length where the end is not."""
    rows = [_COLUMNS, *(_row(boot) for boot in boots)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS) - 1)]
    if width is not None and sum(widths[:4]) + 6 > width:
        rows, widths = [row[:2] + row[3:] for row in rows], widths[:2] + widths[3:]
    end = sum(widths[:-2]) + 2 * len(widths[:-2])
    lines = []
    for at, row in enumerate(rows):
        line = "  ".join([cell.ljust(w) for cell, w in zip(row, widths, strict=False)] + [row[-1]]).rstrip()
        if width is not None and len(line) > width:
            line = line[: width - 1] + "…"
        if at == 0:
            lines.append(style.dim(line))
        else:
            kind = boots[at - 1]["end"]["kind"]
            stop = end + len(kind)
            lines.append(line[:end] + _paint(style, kind, line[end:stop]) + line[stop:])
    return "\n".join(lines) + "\n"


def _row(boot: dict[str, Any]) -> tuple[str, ...]:
    start = boot["start"]
    length = boot["uptime_s"]
    at_least = "" if boot["exact"] else "≥ "
    return (
        boot["boot_id"][:8],
        "unknown" if start is None else start[:16].replace("T", " ") + "?" * boot["doubtful"],
        "unknown" if length is None else at_least + duration(length),
        boot["end"]["kind"],
        ", ".join(crash.split("-")[1][:8] for crash in boot["crashes"]),
        visible(boot["end"]["evidence"][0]) if boot["end"]["evidence"] else "",
    )


def duration(seconds: float) -> str:
    """As short as a column wants it: ``4.0 s``, ``12 min``, ``3 h 05``, ``17 d 04 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d}"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02d} h"


# -- picture


def render_days(boots: list[dict[str, Any]], *, style: Style = Style(), width: int = 80) -> str:  # noqa: B008
    """A row a day, as many cells as the width gives; boots whose clock was not set have no place in it."""
    spans = [(b["start_s"], b["start_s"] + (b["uptime_s"] or 0.0), b["end"]["kind"]) for b in boots if _is_placed(b)]
    if not spans:
        return ""
    cells = next((c for c in (96, 48, 24) if LABEL + c <= width), 24)
    days: dict[int, list[str]] = {}
    newest = int(max(stop for _, stop, _ in spans) // DAY_S)
    for start, stop, kind in spans:
        for day in range(max(int(start // DAY_S), newest - DAYS + 1), int(stop // DAY_S) + 1):
            _draw(days.setdefault(day, [""] * cells), day, start, stop, kind)
    lines = [style.dim(" " * LABEL + _ruler(cells))]
    before = None
    for day in sorted(days):
        if before is not None and day > before + 1:
            lines.append(style.dim(f"({day - before - 1} days without a boot)"))
        row = "".join(_cells(kind, len(list(run)), style) for kind, run in groupby(days[day]))
        lines.append(f"{time.strftime('%Y-%m-%d', time.gmtime(day * DAY_S))}  {row}")
        before = day
    shown = {kind for row in days.values() for kind in row if kind in _LETTERS}
    legend = "  ".join(f"{_LETTERS[k]} {_MEANINGS[_LETTERS[k]]}" for k in _WORST if k in shown)
    return "\n".join([*lines, style.dim(" " * LABEL + legend)]) + "\n"


def _is_placed(boot: dict[str, Any]) -> bool:
    return boot["start_s"] is not None and not boot["doubtful"]


def _draw(row: list[str], day: int, start: float, stop: float, kind: str) -> None:
    """Put one boot into the row of one day."""
    cell_s = DAY_S / len(row)
    first = max(0, int((start - day * DAY_S) // cell_s))
    last = int((stop - day * DAY_S) // cell_s)
    for at in range(first, min(last + 1, len(row))):
        row[at] = row[at] or "on"
    if last < len(row):
        row[last] = min(row[last], kind, key=lambda k: _WORST.index(k) if k in _WORST else len(_WORST))


def _cells(kind: str, count: int, style: Style) -> str:
    if kind == "":
        return style.dim("·" * count)
    return "─" * count if kind == "on" else _paint(style, kind, _LETTERS[kind] * count)


def _ruler(cells: int) -> str:
    """Hours above the cells, every sixth."""
    step = cells // 4
    return "".join(f"{hour:02d}".ljust(step) for hour in range(0, 24, 6)).rstrip()
