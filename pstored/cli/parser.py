# SPDX-License-Identifier: Apache-2.0
"""The commands and their options, for argparse."""

import argparse
from collections.abc import Sequence

from pstored import __version__
from pstored.cli.arguments import byte_count, count, endpoint, parameter, seconds
from pstored.readers import KINDS

EPILOG = """\
exit status:
  0   done, or nothing to do
  1   something is damaged, deferred, left for a later run, or not found; or another watch is running
  2   wrong usage
  73  the archive cannot be written or read; what is not whole in it stays in the store
  75  not delivered yet; kept for the next try
  77  no permission to list the store, or the directory to import
  78  wrong configuration
"""

ID_HELP = "crash id, the beginning of one or of its digest, or -1 for the newest, -2 for the one before, ..."


def _add_import(command: argparse.ArgumentParser) -> None:
    width = max(map(len, KINDS)) + 2
    kinds = "".join(f"  {name.ljust(width)}{kind.about}\n" for name, kind in KINDS.items())
    command.epilog = f"kinds, told by what is in a file:\n{kinds}"
    command.set_defaults(function="import_")
    command.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="a file, raw or packed by gzip, xz or bzip2, a device, a directory, or - for standard input "
        "(default: what this machine has beside the store)",
    )
    command.add_argument("--list", action="store_true", help="say what each would give, and write nothing")
    command.add_argument("--as", dest="kind", choices=KINDS, metavar="KIND", help="it is of this kind (below)")
    command.add_argument(
        "--deleted", action="store_true", help="records, too, that the kernel had erased, if they are still there"
    )
    command.add_argument(
        "--parameter",
        action="append",
        type=parameter,
        default=[],
        metavar="NAME=VALUE",
        help="by the kernel's name, where it cannot be found out: ramoops.record_size=0x20000",
    )
    command.add_argument(
        "--offset", type=byte_count, default=0, metavar="BYTES", help="begin there in each file (0x1000, 4K)"
    )
    command.add_argument("--size", type=byte_count, metavar="BYTES", help="read so much from there on")


def _add_netconsole(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--listen",
        action="append",
        type=endpoint,
        metavar="ADDRESS[:PORT]",
        help="where to receive, over and over (default: [::]:6666, which is all addresses, of IPv4, too; not heeded if "
        "the service manager hands over a socket)",
    )
    command.add_argument(
        "--lines", type=count, default=1000, metavar="N", help="keep the last N messages of each sender (default: 1000)"
    )
    command.add_argument(
        "--quiet",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="a crash is over once its sender has been silent for so long (default: 5)",
    )


def _add_fleet(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", choices=("simulate",), help="simulate: crashes, and each day a sign of life, as OTLP")
    command.add_argument("--devices", type=count, default=1000, metavar="N", help="boards (default: %(default)s)")
    command.add_argument("--crashes", type=count, default=10000, metavar="N", help="crashes (default: %(default)s)")
    command.add_argument("--days", type=count, default=30, metavar="N", help="how long (default: %(default)s)")
    command.add_argument(
        "--builds", type=count, default=6, metavar="N", help="one after the other (default: %(default)s)"
    )
    command.add_argument(
        "--seed", type=int, default=1, metavar="N", help="the same gives the same (default: %(default)s)"
    )
    command.add_argument(
        "--end", type=int, default=0, metavar="SECONDS", help="its last second, Unix time (default: now)"
    )
    target = command.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "-o", "--output", metavar="DIR", help="write logs.jsonl and metrics.jsonl there, a request a line"
    )
    target.add_argument("--endpoint", metavar="URL", help="send it to this receiver of OTLP/HTTP (JSON)")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; a usage error ends the process."""
    return make_parser().parse_args(arguments, argparse.Namespace(root="/"))


def make_parser() -> argparse.ArgumentParser:
    """All commands and options."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--root", metavar="DIR", default=argparse.SUPPRESS, help="every path is below DIR (tests, rescue systems)"
    )
    parser = argparse.ArgumentParser(
        prog="pstored",
        description="Takes what a crashed kernel left in pstore, keeps it, and tells which boot crashed and why.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
    )
    parser.add_argument("--version", action="version", version=f"pstored {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, module: str, text: str, *, json: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            parents=[shared],
            # without this, "-1" would be taken for an option
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(module=module, function=name.replace("-", "_"))
        if json:
            command.add_argument("--json", action="store_true", help='print JSON, with a "schema" key')
        return command

    collect = add("collect", "collect", "harvest, import, analyze and deliver, once: what to run after a reboot")
    collect.add_argument(
        "--kernel-log", action="store_true", help="also take an oops that the running boot has survived from its log"
    )
    add("watch", "watch", "the daemon: sleep until records can have come, then collect", json=False)
    _add_netconsole(
        add("netconsole", "netconsole", "receive what kernels send by netconsole, and keep their crashes", json=False)
    )
    add("harvest", "harvest", "take what is in the store into the archive, durably, then clear the store of it")
    analyze = add("analyze", "collect", "find the crashes in what was harvested")
    analyze.add_argument("--all", action="store_true", help="do all harvests anew, e.g. with new extras")
    _add_import(add("import", "imports", "take what lies elsewhere than in the store into the archive, and analyze it"))
    deliver = add("deliver", "collect", "give crashes to the sinks that do not have them yet")
    deliver.add_argument(
        "--outgoing", action="store_true", help="only to those that need no more than to read the archive"
    )
    for command in (collect, deliver):
        command.add_argument(
            "--status-fd",
            metavar="FD",
            type=int,
            help="for the daemon: at the end, write a line on how things stand to this descriptor, "
            '"retry" if another run may do more, "deliver SECONDS" if something is due to outgoing sinks',
        )
    outbox = add("outbox", "outbox", "what is still to be delivered, to which sink, why, and when it is tried")
    change = outbox.add_mutually_exclusive_group()
    change.add_argument(
        "--retry",
        metavar="SINK|ID",
        nargs="?",
        const="",
        help="have what waits tried at the next delivery, and what was refused, too (default: all)",
    )
    change.add_argument("--drop", metavar="SINK|ID", help="take it out of the outbox: it is not delivered")
    stamp = add(
        "stamp", "collect", "write the running boot's id into its kernel log, so that a crash can be told to be its"
    )
    stamp.add_argument(
        "--end",
        action="store_true",
        help="note in the ledger that this boot ends in order, if the service manager is stopping the system; no stamp",
    )

    listing = add("list", "show", "one line for each crash, oldest first")
    show = add("show", "show", "what happened: in one sentence, when, on which boot, and the kernel's own words")
    show.add_argument("crash", nargs="?", default="-1", metavar="ID", help=f"{ID_HELP} (default: -1)")
    decode = add("decode", "decode", "what happened, from any log: a file's, a serial capture, one record of pstore")
    decode.add_argument("files", nargs="*", metavar="FILE", help="raw or packed; none, or -: standard input")
    symbols = decode.add_mutually_exclusive_group()
    symbols.add_argument(
        "--vmlinux",
        metavar="FILE",
        help="the kernel that crashed, with symbols: addresses get names, frames file and line",
    )
    symbols.add_argument("--system-map", metavar="FILE", help="its System.map: addresses get names")
    boots = add("boots", "boots", "the history of boots: when each began, how long it lived, how it ended, its crash")
    boots.add_argument("-n", "--lines", type=count, default=0, metavar="N", help="the newest N boots only")
    for command in (listing, show, boots, decode, outbox):
        command.add_argument("--no-pager", action="store_true", help="do not page on a terminal")
    export = add("export", "archive", "one tar with everything about a crash, or its log for a journal", json=False)
    export.add_argument("crash", metavar="ID", help=ID_HELP)
    export.add_argument(
        "-o", "--output", metavar="FILE", help="where to, - for standard output (default: pstored-ID.FORMAT)"
    )
    export.add_argument(
        "--format",
        choices=("tar", "journal"),
        default="tar",
        help="tar: everything; journal: the kernel's lines in the Journal Export Format, for systemd-journal-remote(8)",
    )
    add("verify", "archive", "read the whole archive against its digests")
    check = add("check-config", "settings", "check the configuration, and show what counts")
    check.add_argument("file", nargs="?", metavar="FILE", help="check this file instead of those of the system")
    add("schema", "settings", "the JSON Schema of crash.json", json=False)
    _add_fleet(
        add("fleet", "fleet", "for who runs a fleet: write, or send, what one that never was would send", json=False)
    )
    return parser
