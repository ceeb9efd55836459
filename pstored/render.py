# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a crash: the page of ``pstored show``.

Takes crash.json and its texts; whatever comes from a record is escaped, so that no record can act on a terminal.
"""

from typing import Any

from pstored.oops import Event, find_events
from pstored.parse.filename import KMSG
from pstored.parse.kmsg import KmsgLine, parse_kmsg
from pstored.terminal import Style, some, visible

EXCERPT = 80
"""Lines of the kernel's own words on a page; the rest is in the file."""
BEFORE = 40
"""Lines of the report before it, if there is one: an oops that came before the panic."""
TAIL = 15
"""Lines shown where no report is found in the text."""


def render_crash(crash: dict[str, Any], texts: dict[str, bytes], *, directory: str, style: Style = Style()) -> str:  # noqa: B008
    """The page of ``pstored show``."""
    paint = style.red if crash["severity"] == "panic" else style.bold
    lines = [paint(visible(crash["title"])), ""]
    lines += [f"{style.dim(name.rjust(9))}  {value}" for name, value in _facts(crash, style)]
    excerpt = _excerpt(texts)
    if excerpt:
        lines += ["", *excerpt]
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
    facts += [("when", when)]
    facts += [("kernel", visible(kernel["release"] or "unknown"))]
    if kernel["hardware"]:
        facts += [("machine", visible(kernel["hardware"]))]
    if crash["comm"] is not None:
        facts += [("task", f"{visible(crash['comm'])}, pid {crash['pid']}")]
    if crash["severity"] != "reset":  # it left no record
        dumps = [_dump(d) for d in crash["dumps"]] or ["none: this is told by other records"]
        facts += [("dumps" if at == 0 else "", text) for at, text in enumerate(dumps)]
        facts += [("records", _records(crash))]
    collected = crash["collected"]
    source = collected.get("imported_from")
    where = f"on boot {collected['boot_id'] or 'unknown'}" if source is None else f"from {source}"
    facts += [("collected", visible(f"{collected['time']} {where}"))]
    return facts


_ENDS = {
    "panic": "panic: the machine died of it",
    "oops": "oops: a task died of it; the machine may have lived on",
    "warning": "warning: nothing died of it",
    "reset": "the machine stopped, or was stopped, without a word",
}


def _dump(dump: dict[str, Any]) -> str:
    if dump.get("backend") == KMSG:
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
    return "dump without header" if dump["reason"] is None else f"{dump['reason']}#{dump['count']}"


def _records(crash: dict[str, Any]) -> str:
    records = [r for r in crash["records"] if not r["name"].startswith(f"dmesg-{KMSG}-")]
    read = len(crash["records"]) - len(records)
    from_log = f"{read} read from the log of the running kernel" if read else ""
    if not records:
        return from_log
    erased = sum(r["erased"] is True for r in records)
    live = sum(r["outcome"] == "live" for r in records)
    imported = sum(r["outcome"] == "imported" for r in records)
    text = f"{len(records)} from {visible(crash['backend'] or '?')}: "
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


def _excerpt(texts: dict[str, bytes]) -> list[str]:
    """The kernel's own words: the report, or the last lines."""
    for name in ("dmesg.txt", "console.txt"):
        lines = list(parse_kmsg(texts.get(name, b"")))
        if not lines:
            continue
        events = find_events(lines)[-2:]
        if not events:
            return [_line(line) for line in lines[-TAIL:]]
        before = [line for event in events[:-1] for line in _event_lines(lines, event, name, BEFORE)]
        return [*before, *([""] if before else []), *_event_lines(lines, events[-1], name, EXCERPT)]
    plain = texts.get("mce.txt", texts.get("end.txt", b""))
    return [f"  {visible(line)}".rstrip() for line in plain.decode(errors="backslashreplace").splitlines()]


def _event_lines(lines: list[KmsgLine], event: Event, name: str, limit: int) -> list[str]:
    chosen = lines[event.first : event.last]
    shown = [_line(line) for line in chosen[:limit]]
    if len(chosen) > limit:
        shown.append(f"  ({len(chosen) - limit} lines more in {name})")
    return shown


def _line(line: KmsgLine) -> str:
    text = visible(line.text)
    if line.time_ns is None:
        return f"  {text}"
    seconds, rest = divmod(line.time_ns, 1_000_000_000)
    return f"  [{seconds:5d}.{rest // 1000:06d}] {text}"


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
