# SPDX-License-Identifier: Apache-2.0
"""``python -m fake_pstore DIR``: a crash to look at."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from . import capture
from .compress import ALGORITHMS
from .damage import DAMAGES, ECC_NEW, ECC_OLD
from .demo import demo
from .host import PSTORE, write_host
from .kernels import BACKENDS, ERAS, Era, default_era
from .klog import STAMP_PREFIX
from .machine import Outcome, run
from .model import Options
from .scenarios import SCENARIOS, Scenario
from .tree import write_records

_USAGE = 2
_ECC_WORDS = {"none": None, "old": ECC_OLD, "new": ECC_NEW}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fake_pstore",
        description="Write what a crashed kernel leaves in pstore, and the few /proc and /sys files of the next boot.",
    )
    parser.add_argument("dir", metavar="DIR", nargs="?", type=Path, help="root directory to write below")
    parser.add_argument("--bare", action="store_true", help="DIR is the pstore directory itself; write nothing else")
    parser.add_argument("--list", action="store_true", help="show scenarios and captures")
    parser.add_argument("--demo", action="store_true", help="run pstored on a real crash in a temporary directory")
    parser.add_argument(
        "--capture", metavar="NAME", choices=capture.names(), help="a real crash instead of a scenario; see --list"
    )
    story = parser.add_argument_group("scenario")
    story.add_argument("--scenario", choices=SCENARIOS, default="oops-panic", help="default: %(default)s")
    story.add_argument("--backend", choices=BACKENDS, help="default: the first that can tell the scenario")
    story.add_argument("--kernel-era", choices=ERAS, help="kernels of both boots; default: the newest with the backend")
    story.add_argument("--seed", type=int, default=0, help="another seed, other times, addresses and ids")
    story.add_argument(
        "--boot-id",
        nargs="+",
        action="extend",
        default=[],
        metavar="UUID",
        help="oldest boot first, collecting boot last",
    )
    story.add_argument(
        "--stamp-prefix",
        default=STAMP_PREFIX,
        help="before the boot id in the log; empty: no stamp (default: %(default)r)",
    )
    shape = parser.add_argument_group("shape")
    shape.add_argument(
        "--compress", choices=ALGORITHMS, help="of the crashed kernel, where the collecting kernel has another: .enc.z"
    )
    shape.add_argument("--ecc", choices=_ECC_WORDS, help="notice behind each record of ramoops, in old or new words")
    shape.add_argument("--parts", type=int, metavar="N", help="as many parts a dump, whatever kmsg_bytes")
    shape.add_argument(
        "--missing-part", nargs="+", action="extend", type=int, default=[], metavar="N", help="leave out"
    )
    shape.add_argument(
        "--damage", nargs="+", action="extend", choices=DAMAGES, default=[], help="each damages one record"
    )
    return parser


def _print_list() -> None:
    print("scenarios (--scenario):")
    for name, scenario in SCENARIOS.items():
        print(f"  {name:20} {scenario.what} [{' '.join(scenario.backends)}]")
    print("captures of real kernels (--capture):")
    for name in capture.names():
        loaded = capture.load(name)
        note = "" if loaded.files else " (no pstore records)"
        print(f"  {name:24} {loaded.what}{note}")


def _ecc_word(chosen: str | None, scenario: Scenario, era: Era) -> bytes | None:
    if chosen is not None:
        return _ECC_WORDS[chosen]
    return era.ecc_word if scenario.needs_ecc else None


def _options(args: argparse.Namespace, scenario: Scenario) -> Options:
    """The options that the arguments mean.

    Raises:
        ValueError: they contradict each other.
    """
    backend = args.backend or scenario.backends[0]
    era = ERAS[args.kernel_era or default_era(backend)]
    ecc = _ecc_word(args.ecc, scenario, era)
    if backend not in scenario.backends:
        raise ValueError(f"scenario {args.scenario!r} is told by {', '.join(scenario.backends)}")
    if not BACKENDS[backend].since <= era.version <= BACKENDS[backend].until:
        raise ValueError(f"kernels of {era.release} have no backend of the name {backend!r}")
    if ecc is not None and backend != "ramoops":
        raise ValueError("only ramoops has ECC")
    if args.parts is not None and (BACKENDS[backend].parts or args.parts < 1):
        raise ValueError(f"{backend} cannot keep {args.parts} parts")
    return Options(
        backend=backend,
        era=era,
        algorithm=args.compress,
        ecc=ecc,
        seed=args.seed,
        boot_ids=tuple(args.boot_id),
        stamp_prefix=args.stamp_prefix,
        damage=tuple(args.damage),
        missing_parts=frozenset(args.missing_part),
        parts=args.parts,
    )


def _summarize(outcome: Outcome) -> None:
    for record in outcome.records:
        when = datetime.fromtimestamp(record.mtime_ns // 1_000_000_000, UTC)
        print(f"{record.name:40} {len(record.data):7} bytes  {when:%Y-%m-%dT%H:%M:%SZ}  {record.what}")
    for line in outcome.hidden:
        print(f"not shown: {line}")
    for boot in outcome.boots:
        began = datetime.fromtimestamp(boot.began, UTC)
        print(f"boot {boot.boot_id} began {began:%Y-%m-%dT%H:%M:%SZ}: {', '.join(boot.events)}")
    print(f"boot {outcome.host.boot_id} looks at it: {outcome.host.kernel}, backend {outcome.host.backend}")


def _make_capture(args: argparse.Namespace) -> None:
    chosen = capture.load(args.capture)
    if args.bare:
        chosen.unpack(args.dir)
    else:
        capture.populate_root(args.dir, chosen)
    for name, facts in sorted(chosen.files.items()):
        print(f"{name:40} {facts.size:7} bytes")
    print(f"{chosen.name}: {chosen.what}")
    for boot_id in sorted({chosen.crash_boot_id, *chosen.stamped_boot_ids}):
        print(f"boot {boot_id} crashed")
    print(f"boot {chosen.collect_boot_id} looks at it: {chosen.collect_kernel}, backend {chosen.backend}")


def _make_scenario(args: argparse.Namespace, records: Path) -> None:
    scenario = SCENARIOS[args.scenario]
    outcome = run(scenario, _options(args, scenario))
    if not args.bare:
        write_host(args.dir, outcome.host)
    write_records(records, outcome.records)
    _summarize(outcome)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.list:
        _print_list()
        return 0
    if args.demo:
        return demo()
    if args.dir is None:
        parser.print_usage(sys.stderr)
        return _USAGE
    records = args.dir if args.bare else args.dir / PSTORE
    try:
        if records.is_dir() and any(records.iterdir()):
            raise ValueError(f"there are records already in {str(records)!r}")
        if args.capture:
            _make_capture(args)
        else:
            _make_scenario(args, records)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return _USAGE
    except ImportError as error:
        print(f"error: {error}; pip install 'pstored[compress]' brings it", file=sys.stderr)
        return _USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
