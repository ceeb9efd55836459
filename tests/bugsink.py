# SPDX-License-Identifier: Apache-2.0
"""Bugsink, which takes what is meant for Sentry, on the loopback interface; and what it has made of it."""

import contextlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import REPOSITORY, require
from tests.loopback import free_port, running

ENVIRONMENT = REPOSITORY / ".venv/bugsink/bin"
PATIENCE_S = 30
_SET_UP = """
import django, sys
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("migrate", database="snappea", verbosity=0)
from projects.models import Project
project = Project.objects.create(name=sys.argv[1], slug=sys.argv[1])
print(project.id, project.sentry_key.hex)
"""


class Issue(NamedTuple):
    """Events that it takes for the same."""

    title: str
    events: int


class Bugsink(NamedTuple):
    """A running one, with one project."""

    port: int
    project: str
    key: str
    database: Path

    @property
    def dsn(self) -> str:
        """Where the project's events go."""
        return f"http://{self.key}@127.0.0.1:{self.port}/{self.project}"

    def issues(self) -> list[Issue]:
        """All of them, oldest first."""
        return [
            Issue(f"{kind}: {value}", count)
            for kind, value, count in self._ask(
                "SELECT calculated_type, calculated_value, digested_event_count FROM issues_issue ORDER BY digest_order"
            )
        ]

    def events(self) -> list[dict[str, Any]]:
        """All of them, as they were sent, in the order of their arrival."""
        return [json.loads(data) for (data,) in self._ask("SELECT data FROM events_event ORDER BY digested_at")]

    def empty(self) -> None:
        """Begin anew."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=PATIENCE_S)) as connection, connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                if table.startswith(("events_", "issues_", "tags_", "releases_")):
                    connection.execute(f"DELETE FROM {table}")

    def _ask(self, query: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.database, timeout=PATIENCE_S)) as connection:
            return connection.execute(query).fetchall()


@contextlib.contextmanager
def bugsink(directory: Path) -> Iterator[Bugsink]:
    """Run it, on a database of its own; ready on return, ended after."""
    require((ENVIRONMENT / "gunicorn").exists(), "bugsink (make .venv/.fleet)")
    port = free_port()
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(directory), "DJANGO_SETTINGS_MODULE": "bugsink_conf"}
    python, configure = ENVIRONMENT / "python3", ENVIRONMENT / "bugsink-create-conf"
    _run([python, configure, "--template=local", f"--port={port}", "--host=127.0.0.1"], directory, env)
    project, key = _run([python, "-c", _SET_UP, "boards"], directory, env).split()
    options = [f"--bind=127.0.0.1:{port}", "--workers=1", "--threads=2"]
    command = [str(ENVIRONMENT / "gunicorn"), *options, "bugsink.wsgi"]
    with running(command, port, directory / "bugsink.log", directory=directory, env=env):
        yield Bugsink(port, project, key, directory / "db.sqlite3")


def _run(command: list[str | Path], directory: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
