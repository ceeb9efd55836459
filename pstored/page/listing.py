# SPDX-License-Identifier: Apache-2.0
"""Crashes on one line each: the table of ``pstored list``, and what ``collect`` says of a new one, and of all."""

from collections.abc import Mapping, Sequence
from typing import Any

from pstored.crashes.loops import is_loop, read_row, words
from pstored.terminal import Style, visible

MAX_TITLE = 120
"""Of a crash's title in the status line: a bug check may quote a lot."""


def _when(wall: str | None, *, doubtful: bool) -> str:
    """Minutes are enough on a line; a clock that cannot be trusted gets a question mark."""
    if wall is None:
        return "time unknown"
    return wall[:16].replace("T", " ") + ("?" if doubtful else "")


def short_line(crash: dict[str, Any]) -> str:
    """A crash on one line: id, time, boot, what."""
    boot = crash["boot"]["id"]
    where = f"boot {boot[:8]}" if boot else "boot unknown"
    if sender := crash.get("sender"):
        where = f"{visible(sender['address'])}, {where}"
    when = _when(crash["time"]["wall"], doubtful=crash["time"]["doubtful"])
    whole = "" if crash["complete"] else "  (incomplete)"
    where += "?" if crash["boot"]["confidence"] == "low" else ""
    loop = "" if crash.get("loop") is None else f"  ({words(**crash['loop'])})"
    return f"{_short(crash['id'])}  {when}  {where}  {crash['severity']}: {visible(crash['title'])}{whole}{loop}"


def status_line(summaries: Sequence[Mapping[str, Any]], due: list[str]) -> str:
    """The archive in one line, for ``systemctl status``: how many crashes, the newest, what is still to be done."""
    what = "; ".join(due) or "nothing due"
    if not summaries:
        return f"no crashes; {what}"
    newest = summaries[-1]
    count = "1 crash" if len(summaries) == 1 else f"{len(summaries)} crashes"
    when = _when(newest["time"], doubtful=newest["doubtful"])
    boot = f"boot {newest['boot'][:8]}{'?' * (newest['confidence'] == 'low')}" if newest["boot"] else "boot unknown"
    boot = f"{visible(newest['sender'])}, {boot}" if newest["sender"] else boot
    title = visible(newest["title"])[:MAX_TITLE]
    return (
        f"{count}, newest {when} {_short(newest['id'])} ({boot}) {newest['severity']}: {title}{_loop(newest)}; {what}"
    )


def _loop(summary: Mapping[str, Any]) -> str:
    """What is said behind the title of a crash that is the latest of a loop."""
    row = read_row(summary)
    return f" ({words(row.length, row.since)})" if row is not None and is_loop(row) else ""


def _short(crash_id: str) -> str:
    return crash_id.split("-")[1][:8]


_COLUMNS = ("ID", "TIME (UTC)", "BOOT", "SENDER", "KERNEL", "BACKEND", "WHOLE", "END", "WHAT HAPPENED")
_SENDER = _COLUMNS.index("SENDER")


def render_list(summaries: Sequence[Mapping[str, Any]], *, style: Style = Style(), width: int | None = None) -> str:  # noqa: B008
    """The table of ``pstored list``; cut to *width* columns, if given."""
    rows = [_COLUMNS] + [_row(s) for s in summaries]
    if not any(s["sender"] for s in summaries):
        rows = [row[:_SENDER] + row[_SENDER + 1 :] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    start = sum(widths) + 2 * len(widths)
    lines = []
    for at, row in enumerate(rows):
        line = "  ".join([cell.ljust(w) for cell, w in zip(row, widths, strict=False)] + [row[-1]])
        if width is not None and len(line) > width:
            line = line[: width - 1] + "…"
        if at == 0:
            line = style.dim(line)
        elif summaries[at - 1]["severity"] == "panic":
            line = line[:start] + style.red(line[start:])
        lines.append(line)
    return "\n".join(lines) + "\n"


def _row(s: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        _short(s["id"]),
        _when(s["time"], doubtful=s["doubtful"]),
        s["boot"][:8] + ("?" if s["confidence"] == "low" else "") if s["boot"] else "?",
        visible(s["sender"] or ""),
        visible(s["kernel"] or "?"),
        s["backend"] or "?",
        "yes" if s["complete"] else "no",
        s["severity"],
        visible(s["title"]) + _loop(s),
    )
