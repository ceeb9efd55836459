# SPDX-License-Identifier: Apache-2.0
"""How a world ends: the program run once more with nothing in its way, and what must not be so then."""

import contextlib
import errno
import io
import json
import os
import re
from collections.abc import Callable
from typing import NamedTuple

import pstored.cli.archive
import pstored.cli.collect
import pstored.cli.imports
import pstored.crashes.report
import pstored.quota
import pstored.sinks.restore
import pstored.stages  # noqa: F401 - slow to import: here once, not in every child
from pstored.cli import run
from pstored.sinks.journal import MESSAGE_ID
from tests.conftest import Done, Root, forked
from tests.proof import strace
from tests.proof.world import State, World, litter, state_of


def quietly(root: Root, *arguments: str, before: Callable[[], None] | None = None) -> Done:
    """Run the program to its end, in a child, where everything is imported already; *before* runs there, too."""

    def child() -> Done:
        os.chdir(root.path)  # the way there may be for root only
        if before is not None:
            before()
        written, err = io.BytesIO(), io.StringIO()
        out = io.TextIOWrapper(written, encoding="utf-8", errors="surrogateescape", write_through=True)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run(["--root", ".", *arguments])
        out.flush()
        return Done(status, written.getvalue().decode(errors="surrogateescape"), err.getvalue())

    return forked(child)


class End(NamedTuple):
    """How a world is after the work was done to its end."""

    state: State
    told: list[str]


def end_of(world: World, arguments: tuple[str, ...]) -> tuple[End, list[str]]:
    """Do the work undisturbed, if there is any, and collect; gives how things are then, and what must not be so."""
    problems = []
    for words in (arguments, ("collect",)) if arguments else ():
        done = quietly(world.root, *words)
        if done.status not in (0, 1):
            problems.append(f"{words[0]} exits with {done.status}: {done.stderr}")
    verified = quietly(world.root, "verify")
    if verified.status:
        problems.append(f"verify: {verified.stderr}")
    if left := litter(world.root):
        problems.append(f"litter: {left}")
    told = _told()
    if len(set(told)) < len(told):
        problems.append(f"told twice: {told}")
    crashes = {path.name for path in world.root.crashes()}
    if unknown := [t for t in told if t.split()[0] not in crashes]:
        problems.append(f"told of crashes that are none: {unknown}")
    return End(state_of(world.root), sorted(t.split("-")[1] for t in told)), problems


def _told() -> list[str]:
    """Crash id and revision of each entry in the journal beside us."""
    command = ["journalctl", "--namespace=t", "-q", "--no-pager", "-o", "json", f"MESSAGE_ID={MESSAGE_ID}"]
    entries = map(json.loads, strace.run(command).stdout.splitlines())
    return [f"{entry['PSTORE_CRASH_ID']} {entry['PSTORE_REVISION']}" for entry in entries]


def differences(wanted: End, end: End) -> list[str]:
    """In words."""
    found = [f"told {end.told}, not {wanted.told}"] if end.told != wanted.told else []
    for name, mine, theirs in zip(State._fields, end.state, wanted.state, strict=True):
        if mine != theirs:
            found.append(f"{name}: {_shorter(mine, theirs)}, not {_shorter(theirs, mine)}")
    return found


def _shorter(mine: object, theirs: object) -> str:
    """What is only in *mine*, if they are lists."""
    if isinstance(mine, list) and isinstance(theirs, list):
        return repr([one for one in mine if one not in theirs])[:500]
    return repr(mine)


def wrong_end(
    world: World, arguments: tuple[str, ...], compare: Callable[[End, End], list[str]], wanted: End
) -> list[str]:
    """What is not as it should be in the end."""
    try:
        end, problems = end_of(world, arguments)
    except (AssertionError, OSError, KeyError, TypeError, ValueError) as e:
        return [f"{type(e).__name__}: {e}"]
    return problems + compare(wanted, end)


STATUSES = (0, 1, 73, 75, 77)
"""Those of the README that a collect can have."""


def wrong_words(done: Done, error: str) -> list[str]:
    """What the run itself should not have said or done."""
    found = []
    if "Traceback" in done.stdout + done.stderr:
        found.append(f"a traceback: {done.stderr[-2000:]}")
    if done.status not in STATUSES:
        found.append(f"status {done.status}")
    if done.status and os.strerror(getattr(errno, error)) not in done.stderr:
        found.append(f"status {done.status}, and why is not said: {done.stderr!r}")
    if done.status == 73 and not re.search(r"^error: .*'/.*'", done.stderr, re.MULTILINE):
        found.append(f"with what it failed is not said: {done.stderr!r}")
    return found
