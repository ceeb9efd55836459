# SPDX-License-Identifier: Apache-2.0
"""The shape of the program: floors, purity, what the harvest drags in, who may flush, how large a module is."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, MakeRoot

FLOORS: list[set[str]] = [
    {"", "crashes", "delivery", "intake", "page", "symbolize", "sinks", "lean", "daemon"},
    {"sinks.settings"},
    {
        "fleet",
        "journal",
        "boots",
        "errors",
        "steps",
        "config",
        "delivery.metrics",
        "parse",
        "delivery.redact",
        "terminal",
        "cli.arguments",
        "ustar",
        "daemon.schedule",
        "crashes.loops",
        "daemon.service",
        "daemon.wakeups",
        "readers.model",
    },
    {
        "delivery.exposition",
        "parse.filename",
        "parse.ecc",
        "parse.header",
        "parse.kmsg",
        "parse.devkmsg",
        "parse.lz",
        "parse.nx842",
        "parse.mcecodes",
        "parse.pmsg",
        "parse.end",
        "parse.cper",
        "parse.reedsolomon",
        "parse.ftracelog",
        "readers",
        "readers.memory",
        "daemon.senders",
        "readers.mtdoops",
        "readers.netconsole",
        "readers.pcap",
        "readers.stamps",
        "readers.kdump",
        "readers.kdump.info",
        "parse.snappy",
    },
    {"parse.mce", "parse.estatus"},
    {"parse.cpersections"},
    {"parse.hardware"},
    {"parse.decompress", "parse.ftrace", "readers.kdump.dmesgtext", "readers.kdump.image", "readers.kdump.flattened"},
    {
        "parse.record",
        "readers.nvram",
        "oops.model",
        "oops.rule",
        "oops.names",
        "oops.words",
        "oops.kinds",
        "oops.meaning",
        "oops.panics",
        "readers.dump",
        "readers.bert",
        "readers.tar",
        "readers.ramoops_zone",
        "readers.kdump.elf",
        "readers.kdump.diskdump",
        "readers.kdump.memory",
        "readers.kdump.search",
    },
    {"readers.cper", "readers.efivar", "readers.ramoops_layout", "readers.kdump.ring"},
    {"readers.erst", "readers.blk", "readers.ramoops", "readers.kdump.oldlog"},
    {
        "readers.kdump.log",
        "oops.lines",
        "oops.frames",
        "oops.facts",
        "oops.faults",
        "oops.checks",
        "oops.helpers",
        "oops.signature",
    },
    {"readers.kdump.vmcore", "readers.kdump.raw", "oops.headers", "oops.details", "oops.entries", "oops.view"},
    {"readers.ram", "oops.reports"},
    {"oops.blame", "oops.keys"},
    {"oops.events"},
    {"oops"},
    {
        "delivery.credentials",
        "documents",
        "durable",
        "store",
        "host",
        "journal.journald",
        "journal.export",
        "journal.remote",
        "logs",
        "readers.console",
        "page.listing",
        "manager",
        "page.timeline",
        "intake.tree",
        "intake.sources",
    },
    {"symbolize.disassemble", "symbolize.frames", "readers.serial", "daemon.spool", "daemon.receive"},
    {"symbolize.vmlinux", "readers.lastkmsg", "readers.senders"},
    {
        "index",
        "ids",
        "readers.bugreport",
        "readers.netcapture",
        "journal.bootjournal",
        "daemon.child",
        "boots.resetreason",
        "crashes.eventreport",
        "page.excerpt",
    },
    {"summary"},
    {
        "archive",
        "efivars",
        "crashes.dumps",
        "sinks.journal",
        "sinks.restore",
        "stamp",
        "delivery.relay",
        "delivery.repeats",
    },
    {
        "bundle",
        "records",
        "erase",
        "delivery.outbox",
        "delivery.outgoing",
        "crashes.incidents",
        "boots.ledger",
        "delivery.payload",
    },
    {
        "delivery.cloudevent",
        "delivery.otlp",
        "delivery.reporter",
        "delivery.sentry",
        "delivery.shorten",
        "sinks.base",
        "sinks.link",
        "sinks.words",
        "fleet.bugs",
    },
    {
        "delivery.courier",
        "delivery.privileges",
        "sinks.exec",
        "sinks.broker",
        "sinks.file",
        "sinks.prometheus",
        "sinks.http",
        "fleet.simulate",
    },
    {"sinks.otlp", "sinks.mqtt", "sinks.sentry"},
    {"sinks.webhook"},
    {"intake.bundles", "boots.attribution", "crashes.crash", "quota", "page.render", "boots.ends", "decode"},
    {"crashes.report", "boots.history"},
    {"intake.systemdpstore", "delivery.tally"},
    {
        "harvest",
        "intake.salvage",
        "intake.kernellog",
        "analyze",
        "deliver",
        "delivery.dispatch",
        "boots.settle",
        "daemon.watch",
    },
    {"intake.kdump", "intake.neighbours", "intake.elsewhere", "daemon.netconsole"},
    {"intake.flash"},
    {"stages"},
    {"cli.context"},
    {"cli.output", "cli.outgoing"},
    {"cli.collect"},
    {
        "cli.imports",
        "cli.show",
        "cli.archive",
        "cli.settings",
        "cli.boots",
        "cli.watch",
        "cli.decode",
        "cli.outbox",
        "cli.netconsole",
        "cli.fleet",
        "cli.harvest",
    },
    {"cli.parser"},
    {"cli"},
    {"__main__"},
]
"""Modules below pstored, lowest floor first.  A module imports only from floors below its own.

The empty name is the package itself, which holds the version; ``cli``, ``parse``, ... are their ``__init__``.
"""

PACKAGE = REPOSITORY / "pstored"
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)
OURS = [
    *FILES,
    *sorted((REPOSITORY / "fake_pstore").rglob("*.py")),
    # make test-vm keeps an installed tree, with the libraries, in tests/vm/.cache
    *sorted(path for path in (REPOSITORY / "tests").rglob("*.py") if ".cache" not in path.parts),
]
MAX_LINES = 500


def module(path: Path) -> str:
    """``parse.ecc`` for pstored/parse/ecc.py, empty for pstored/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}


def short(path: Path) -> str:
    """The path in the repository, for the names of tests."""
    return str(path.relative_to(REPOSITORY))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, as written; ``from a import b`` gives a.b where b is one."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix("pstored").removeprefix(".")
                yield f"{base}.{alias.name}" if base.startswith("pstored") and inner in MODULES else base


# -- floors


def test_every_module_has_its_floor() -> None:
    """A new module must be placed; one that is gone must not linger here."""
    assert set(FLOOR) == set(MODULES)
    assert sum(len(names) for names in FLOORS) == len(FLOOR)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_downwards(name: str) -> None:
    """Those inside functions, too."""
    for wanted in imported(MODULES[name]):
        if wanted == "pstored" or wanted.startswith("pstored."):
            below = wanted.removeprefix("pstored").removeprefix(".")
            assert below in FLOOR, f"{name} imports {wanted}, which is no module"
            assert FLOOR[below] < FLOOR[name], f"{name} imports {wanted}, which is not below it"


# -- purity


IMPURE = {"os", "time", "pathlib", "subprocess", "socket", "logging", "shutil", "tempfile", "sys", "random"}
ANALYSIS = {
    "journal.export",
    "crashes.dumps",
    "crashes.incidents",
    "logs",
    "crashes.crash",
    "boots.attribution",
    "boots.ends",
    "crashes.report",
    "crashes.eventreport",
    "page.excerpt",
    "delivery.cloudevent",
    "delivery.exposition",
    "delivery.metrics",
    "delivery.otlp",
    "delivery.payload",
    "delivery.redact",
    "delivery.repeats",
    "page.render",
    "decode",
    "symbolize.disassemble",
    "symbolize.frames",
} | {name for name in MODULES if name.split(".")[0] == "oops"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "parse").glob("*.py")), ids=short)
def test_parsers_touch_nothing(path: Path) -> None:
    """No file, no clock, no log: bytes in, values out."""
    assert {name.split(".")[0] for name in imported(path)} & IMPURE == set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "print", "input", "eval", "exec", "__import__"), f"line {node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("now", "utcnow", "today"), f"line {node.lineno}: the clock"


@pytest.mark.parametrize("name", sorted(ANALYSIS))
def test_the_analysis_touches_nothing(name: str) -> None:
    """What stands on the parsers is as pure, but for the types it takes from the edges."""
    assert {wanted.split(".")[0] for wanted in imported(MODULES[name])} & (IMPURE - {"time"}) == set()


@pytest.mark.parametrize("path", FILES, ids=short)
def test_only_one_module_flushes_and_renames(path: Path) -> None:
    """What survives a power cut is decided in durable.py alone."""
    if path.name == "durable.py":
        return
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("os", "shutil"):
            banned = ("fsync", "fdatasync", "sync", "rename", "renames", "replace", "link", "move", "rmtree", "copy")
            assert node.attr not in banned, f"line {node.lineno}: {node.value.id}.{node.attr}"


# -- what is loaded


def loaded(code: str, *arguments: str, flags: tuple[str, ...] = ()) -> set[str]:
    """The modules that a fresh interpreter has after *code*."""
    code += "\nimport sys\nprint(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, *flags, "-c", code, *arguments],
        capture_output=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    return set(ast.literal_eval(done.stderr.splitlines()[-1].decode()))


EXTRAS = {
    "opentelemetry",
    "google.protobuf",
    "paho",
    "lz4",
    "lzo",
    "backports.zstd",
    "compression.zstd",
    "elftools",
    "capstone",
    "reedsolo",
}
HEAVY = {"pydantic", "pydantic_core", "systemd", "pyudev", "http", "ssl", "asyncio"} | EXTRAS
RUN = "import sys\nfrom pstored.cli import run\nrun(sys.argv[1:])"


def parsers(modules: set[str]) -> set[str]:
    """The parsers among them."""
    return {m.removeprefix("pstored.parse.") for m in modules if m.startswith("pstored.parse.")}


SLOW = {"re", "typing", "enum", "json", "contextlib", "collections", "dataclasses", "argparse", "tomllib", "tarfile"}
"""Of the library, what takes longer than the first harvest (:mod:`pstored.lean`)."""
OPENSSL = "_hashlib"
"""What hashlib loads; that itself may be imported for a long record."""


def test_the_harvest_imports_no_parser_no_pydantic_no_network() -> None:
    """It runs early at boot and can destroy evidence: it is small."""
    modules = loaded("import pstored.harvest")
    assert modules & HEAVY == set()
    assert parsers(modules) == {"filename", "ecc"}
    assert {
        "pstored.intake.systemdpstore",
        "pstored.analyze",
        "pstored.crashes.report",
        "pstored.deliver",
        "pstored.oops",
    } & modules == set()


def test_running_the_harvest_imports_no_more(root: MakeRoot) -> None:
    """The command itself, on a crash, with imports inside functions; where no key of the configuration is set."""
    made = root("lab-erst")
    made.configure("")
    modules = loaded(RUN, "--root", str(made.path), "harvest", flags=("-S",))
    assert modules & (HEAVY | SLOW | {OPENSSL}) == set()
    assert parsers(modules) == {"filename", "ecc"}
    assert made.harvests()


OUTGOING = {
    "delivery.dispatch",
    "delivery.courier",
    "delivery.outgoing",
    "delivery.payload",
    "delivery.redact",
    "delivery.repeats",
    "delivery.relay",
    "sinks.settings",
    "sinks.base",
}


def test_without_a_sink_nothing_of_what_goes_out_is_imported(root: MakeRoot) -> None:
    """Not in collect, either; and with one only what that one needs, in its own process."""
    made = root("lab-erst")
    modules = loaded(RUN, "--root", str(made.path), "collect")
    assert {f"pstored.{name}" for name in OUTGOING} & modules == set()
    assert modules & {"http", "http.client", "ssl", "opentelemetry", "google.protobuf"} == set()
    made.configure('[otlp]\nendpoint = "http://localhost:1"\n')
    modules = loaded(RUN, "--root", str(made.path), "deliver")
    assert {f"pstored.{name}" for name in OUTGOING} <= modules
    assert modules & {"http", "http.client", "ssl", "opentelemetry", "google.protobuf"} == set()


def test_list_and_show_import_no_pydantic(root: MakeRoot) -> None:
    """They are what a person waits for."""
    made = root("lab-erst")
    loaded(RUN, "--root", str(made.path), "collect")
    listing = loaded(RUN, "--root", str(made.path), "list")
    assert listing & HEAVY == set()
    assert not parsers(listing) - {"kmsg"}
    assert loaded(RUN, "--root", str(made.path), "show") & HEAVY == set()


def test_the_daemon_imports_next_to_nothing() -> None:
    """It stays in memory for as long as the machine runs; pyudev and systemd come on top of this."""
    modules = loaded("import pstored.daemon.watch")
    assert modules & HEAVY == set()
    assert modules & {"typing", "dataclasses", "logging", "argparse", "tomllib", "socket", "subprocess"} == set()
    ours = {name for name in modules if name.startswith("pstored.")}
    assert ours == {
        f"pstored.{name}"
        for name in (
            "daemon",
            "daemon.watch",
            "daemon.child",
            "daemon.schedule",
            "daemon.service",
            "daemon.wakeups",
            "errors",
        )
    }


def test_the_listener_reads_nothing_of_what_it_receives() -> None:
    """Who talks to the net has neither parser nor archive, and is as small as the daemon."""
    modules = loaded("import pstored.daemon.netconsole")
    assert modules & HEAVY == set()
    assert modules & {"typing", "dataclasses", "logging", "argparse", "tomllib", "subprocess"} == set()
    ours = {name.removeprefix("pstored.") for name in modules if name.startswith("pstored.")}
    assert {name for name in ours if not name.startswith("daemon")} == {"durable", "errors", "lean", "steps"}


def test_a_collect_without_packed_records_loads_no_extra(root: MakeRoot) -> None:
    """The extras are imported only where a record needs them."""
    made = root("lab-erst")
    assert loaded(RUN, "--root", str(made.path), "collect") & EXTRAS == set()


# -- form


@pytest.mark.parametrize("path", OURS, ids=short)
def test_every_module_has_its_licence_and_says_what_it_is(path: Path) -> None:
    """First line and docstring."""
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", FILES, ids=short)
def test_no_module_is_too_large(path: Path) -> None:
    """What does not fit a head does not fit a file."""
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{lines} lines"


@pytest.mark.parametrize("path", FILES, ids=short)
def test_every_public_name_says_what_it_gives(path: Path) -> None:
    """Functions, classes and methods."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            inner = isinstance(node, ast.FunctionDef) and any(a.arg == "step" for a in node.args.args)
            assert inner or ast.get_docstring(node) or _is_local(path, node), f"line {node.lineno}: {node.name}"


def _is_local(path: Path, wanted: ast.AST) -> bool:
    """Whether a function is inside another one, or in a private class."""
    line = getattr(wanted, "lineno", -1)
    for node in ast.walk(ast.parse(path.read_bytes())):
        private = isinstance(node, ast.FunctionDef) or (isinstance(node, ast.ClassDef) and node.name.startswith("_"))
        if private and any(getattr(inner, "lineno", 0) == line for inner in ast.walk(node) if inner is not node):
            return True
    return False


@pytest.mark.parametrize("path", sorted((REPOSITORY / "fake_pstore").rglob("*.py")), ids=short)
def test_the_fake_knows_nothing_of_pstored(path: Path) -> None:
    """So that a misreading must happen twice to pass; demo.py runs it as a program."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
        assert not [n for n in names if n.split(".")[0] == "pstored"]


@pytest.mark.parametrize("path", OURS, ids=short)
def test_no_file_names_the_machine_it_was_written_on(path: Path) -> None:
    """No path of a workplace."""
    assert "/" + "work/" not in path.read_text()
