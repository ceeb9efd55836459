# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a crash: the page of ``pstored show``.

Takes crash.json and its texts; whatever comes from a record is escaped, so that no record can act on a terminal.
"""

from collections.abc import Sequence
from typing import Any

from pstored.crashes.loops import words
from pstored.oops import KINDS
from pstored.oops.meaning import LOOK, describe_task
from pstored.page.excerpt import excerpt
from pstored.parse.filename import BESIDE, KMSG, split_record_name
from pstored.terminal import Style, some, visible

MOST_OTHERS = 3
"""Further reports named on a page; crash.json has them all."""


def render_crash(
    crash: dict[str, Any],
    texts: dict[str, bytes],
    *,
    directory: str,
    commands: Sequence[str] = (),
    style: Style = Style(),  # noqa: B008
) -> str:
    """The page of ``pstored show``: the sentence, the facts, the kernel's words, what to look at next, the doubts.

    Args:
        crash: crash.json, an older one, too.
        texts: the texts beside it.
        directory: where they are.
        commands: what shows more of this crash.
        style: how to write.
    """
    paint = style.red if crash["severity"] == "panic" else style.bold
    lines = [paint(visible(crash["title"])), ""]
    lines += [f"{style.dim(name.rjust(9))}  {value}" for name, value in _facts(crash, style)]
    if words := excerpt(texts, style):
        lines += ["", *words]
    lines += _next(crash, commands, style)
    doubts = _doubts(crash)
    if doubts:
        lines += ["", style.yellow("Missing or doubtful")]
        lines += [f"  - {visible(d)}" for d in doubts]
    if crash["notes"]:
        lines += ["", style.dim("Notes")]
        lines += [style.dim(f"  - {visible(note)}") for note in crash["notes"]]
    lines += ["", style.bold("Files")]
    lines += [f"  {directory}/{name}  {_size(facts['size'])}" for name, facts in crash["files"].items()]
    lines.append(f"  {directory}/crash.json")
    return "\n".join(lines) + "\n"


def _facts(crash: dict[str, Any], style: Style) -> list[tuple[str, str]]:
    boot, time, kernel = crash["boot"], crash["time"], crash["kernel"]
    if boot["id"] is None:
        named = style.yellow("cannot be named")
    else:
        named = f"{boot['id']} ({boot['confidence']}, by {boot['method']})"
    facts = [("crash", crash["id"] + (f", revision {crash['revision']}" if crash["revision"] > 1 else ""))]
    facts += [("end", _ENDS.get(crash["severity"], "unknown"))]
    facts += [("boot", named)]
    facts += [("", style.dim(visible(e))) for e in boot["evidence"][:3]]
    when = "unknown" if time["wall"] is None else time["wall"].replace("T", " ").replace(".000000", "")
    when = when.replace("Z", " UTC")
    if time["doubtful"] and time["wall"] is not None:
        when += style.yellow(" (doubtful)")
    if time["uptime_s"] is not None:
        when += f", {_duration(time['uptime_s'])} into that boot"
    if sender := crash.get("sender"):
        facts += [("sender", visible(" ".join(word for word in (sender["address"], sender["host"]) if word)))]
    facts += [("when", when)]
    if loop := crash.get("loop"):
        facts += [("", style.red(visible(words(loop["count"], loop["since"]))))]
    facts += [("kernel", visible(kernel["release"] or "unknown"))]
    if kernel["hardware"]:
        facts += [("machine", visible(kernel["hardware"]))]
    if crash["comm"] is not None:
        facts += [("task", _task(crash))]
    facts += _taint(crash)
    if crash["severity"] != "reset":  # it left no record
        dumps = [_dump(d) for d in crash["dumps"]] or ["none: this is told by other records"]
        facts += [("dumps" if at == 0 else "", text) for at, text in enumerate(dumps)]
        facts += _others(crash)
        facts += [("records", _records(crash))]
    collected = crash["collected"]
    source = collected.get("imported_from")
    where = f"on boot {collected['boot_id'] or 'unknown'}" if source is None else f"from {source}"
    facts += [("collected", visible(f"{collected['time']} {where}"))]
    if event := crash.get("event"):
        strict, loose = event["signature"], event["signature_loose"]
        facts += [("signature", visible(strict if strict == loose else f"{strict} (loose: {loose})"))]
    return facts


def _task(crash: dict[str, Any]) -> str:
    """Who ran, where, and what that is."""
    what = describe_task(crash["comm"], crash["pid"])
    cpu = (crash.get("event") or {}).get("cpu")
    text = f"{visible(crash['comm'])}, pid {crash['pid']}" + ("" if cpu is None else f", on CPU {cpu}")
    return text + ("" if what is None else f": {what}")


def _taint(crash: dict[str, Any]) -> list[tuple[str, str]]:
    """What the kernel had been through before, in words; nothing where it did not say."""
    taint = (crash.get("event") or {}).get("taint")
    if taint is None:
        return []
    rows = [f"{visible(t['letter'])}: {visible(t['meaning'])}" for t in taint] or ["no"]
    return [("tainted" if at == 0 else "", row) for at, row in enumerate(rows)]


def _others(crash: dict[str, Any]) -> list[tuple[str, str]]:
    """Reports in the same log that no dump has for its title."""
    titles = {crash["title"], *(dump["title"] for dump in crash["dumps"])}
    others = [f"{e['severity']}: {e['title']}" for e in crash.get("other_events", []) if e["title"] not in titles]
    shown = [visible(text) for text in others[:MOST_OTHERS]]
    if len(others) > len(shown):
        shown.append(f"and {len(others) - len(shown)} more in crash.json")
    return [("also" if at == 0 else "", text) for at, text in enumerate(shown)]


def _next(crash: dict[str, Any], commands: Sequence[str], style: Style) -> list[str]:
    """What this kind of crash means, where to look, and the commands that show more."""
    kind = crash["kind"]
    lines = [f"  {KINDS[kind]}", f"  look {LOOK[kind]}"] if kind in KINDS else []
    lines += [f"  $ {visible(command)}" for command in commands]
    return ["", style.bold("What to look at next"), *lines] if lines else []


_ENDS = {
    "panic": "panic: the machine died of it",
    "oops": "oops: a task died of it; the machine may have lived on",
    "warning": "warning: nothing died of it",
    "reset": "the machine stopped, or was stopped, without a word",
}


def _dump(dump: dict[str, Any]) -> str:
    if dump.get("backend") in BESIDE:
        return f"{_dump_name(dump)} ({dump['lines']} lines): {visible(dump['title'] or '')}"
    name = _dump_name(dump)
    parts = len(dump["parts"])
    text = f"{name} ({parts} part{'s' * (parts != 1)}, {dump['lines']} lines"
    if dump["missing"]:
        text += f", {len(dump['missing'])} MISSING"
    text += ", DAMAGED)" if dump["damage"] else ")"
    return text + (f": {visible(dump['title'])}" if dump["title"] else "")


def _dump_name(dump: dict[str, Any]) -> str:
    if dump.get("backend") == KMSG:
        return "the log while it ran"
    if dump["reason"] is None:
        return visible(BESIDE.get(dump.get("backend") or "", "dump without header"))
    return f"{dump['reason']}#{dump['count']}"


def _records(crash: dict[str, Any]) -> str:
    records = [r for r in crash["records"] if not r["name"].startswith(f"dmesg-{KMSG}-")]
    read = len(crash["records"]) - len(records)
    from_log = f"{read} read from the log of the running kernel" if read else ""
    if not records:
        return from_log
    erased = sum(r["erased"] is True for r in records)
    live = sum(r["outcome"] == "live" for r in records)
    imported = sum(r["outcome"] == "imported" for r in records)
    names = (split_record_name(r["name"]) for r in records)
    backends = sorted({name.backend for name in names if name is not None}) or [crash["backend"] or "?"]
    text = f"{len(records)} from {visible(', '.join(backends))}: "
    text += f"{imported} imported" if imported else ""
    text += "" if imported == len(records) else f"{', ' if imported else ''}{erased} erased from the store"
    text += f", {live} left because they are in use" if live else ""
    packed = sorted({r["compression"] for r in records if r["compression"]})
    if packed:
        text += f"; unpacked here: {visible(', '.join(packed))}"
    corrected = sum(r["ecc"]["corrected_bytes"] for r in records if r["ecc"])
    if corrected:
        text += f"; ECC corrected {corrected} bytes"
    return text + (f"; {from_log}" if from_log else "")


def _doubts(crash: dict[str, Any]) -> list[str]:
    """Everything that is not as it should be; nothing that is merely worth knowing."""
    found: list[str] = []
    if crash["boot"]["id"] is None:
        found.append("the boot that crashed cannot be named: " + "; ".join(crash["boot"]["evidence"]))
    elif crash["boot"]["confidence"] == "low":
        found.append("the boot is a guess: " + "; ".join(crash["boot"]["evidence"]))
    if crash["time"]["why"]:
        found.append(f"time: {crash['time']['why']}")
    for dump in crash["dumps"]:
        name = "the dump" if dump["reason"] is None else f"{dump['reason']}#{dump['count']}"
        if dump["missing"]:
            found.append(f"{name}: missing: part {_numbers(dump['missing'])}")
        found += [f"{name}: {d}" for d in dump["damage"]]
    left: dict[str, list[str]] = {}
    for record in crash["records"]:
        if record["outcome"] not in ("erased", "live", "imported") and record["why"]:
            left.setdefault(record["why"], []).append(record["name"])
    found += [f"perhaps still in the store: {some(names)}: {why}" for why, names in left.items()]
    return found


def _numbers(numbers: list[int]) -> str:
    """``3, 5 to 7``."""
    spans: list[list[int]] = []
    for n in numbers:
        if spans and n == spans[-1][1] + 1:
            spans[-1][1] = n
        else:
            spans.append([n, n])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in spans)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if minutes < 120:
        return f"{minutes} min"
    return f"{hours} h" if hours < 48 else f"{days} days"


def _size(size: int) -> str:
    return f"{size} bytes" if size < 10_000 else f"{size / 1000:.0f} kB"
