# SPDX-License-Identifier: Apache-2.0
"""The fleet's side: a fleet that never was in the real ClickHouse engine, its questions answered, and counted again."""

import contextlib
import importlib.util
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pstored.fleet.simulate import Fleet, Simulation
from tests.conftest import REPOSITORY, Pstored, require
from tests.test_otlp import attributes

FLEET_DIRECTORY = REPOSITORY / "units/fleet"
FLEET = Fleet(devices=200, crashes=3000, days=16, builds=4)
NEWEST, BEFORE = "2026.4", "2026.3"


def test_the_same_seed_gives_the_same_fleet() -> None:
    """And another seed another."""
    one, same, other = (
        list(Simulation(FLEET._replace(crashes=50, seed=seed, end_s=1_800_000_000)).logs()) for seed in (1, 1, 2)
    )

    assert one == same
    assert one != other


def test_a_fleet_is_written_a_request_a_line(pstored: Pstored, tmp_path: Path) -> None:
    """As many crashes as were asked for, and each board each day."""
    done = pstored("fleet", "simulate", "--devices=7", "--crashes=30", "--days=3", "-o", str(tmp_path / "out"))

    assert (done.status, done.stderr) == (0, "")
    sent = list(read_logs(tmp_path / "out/logs.jsonl"))
    assert len({record["pstore.crash.id"] for _, record in sent}) == 30
    days = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [len(day["resourceMetrics"]) for day in days] == [7, 7, 7]


def test_where_a_fleet_cannot_be_written_is_said(pstored: Pstored, tmp_path: Path) -> None:
    """No traceback."""
    (tmp_path / "file").write_text("")
    done = pstored("fleet", "simulate", "--devices=1", "--crashes=1", "-o", str(tmp_path / "file"))

    assert done.status == 1
    assert "cannot write" in done.stderr


# -- in the engine


class Crash(NamedTuple):
    """The newest revision of one crash, as a person would count it."""

    device: str
    crash: str
    record: dict[str, Any]

    @property
    def group(self) -> tuple[str, str]:
        """Build and signature; of a reset the kind stands for it."""
        return self.record["os.build_id"], self.record.get("pstore.crash.signature", self.record["pstore.crash.kind"])

    @property
    def day(self) -> str:
        """Of the crash; of its collection if its clock was wrong."""
        return day(self.record["at"])


def read_logs(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Attributes of resource and record, and the record's time."""
    for line in path.read_text().splitlines():
        for one in json.loads(line)["resourceLogs"]:
            resource = attributes(one["resource"]["attributes"])
            for record in (record for scope in one["scopeLogs"] for record in scope["logRecords"]):
                yield resource, attributes(record["attributes"]) | {"at": int(record["timeUnixNano"]) // 10**9}


def read_alive(path: Path) -> dict[tuple[str, str], set[str]]:
    """Day and build to devices."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for line in path.read_text().splitlines():
        for one in json.loads(line)["resourceMetrics"]:
            resource = attributes(one["resource"]["attributes"])
            (point,) = one["scopeMetrics"][0]["metrics"][0]["gauge"]["dataPoints"]
            found[day(int(point["timeUnixNano"]) // 10**9), resource["os.build_id"]].add(resource["host.id"])
    return found


def day(seconds: int) -> str:
    """As ClickHouse writes it."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


class Loaded(NamedTuple):
    """A fleet in the engine, and all that it has sent."""

    engine: Any
    crashes: list[Crash]
    alive: dict[tuple[str, str], set[str]]

    def groups(self) -> dict[tuple[str, str], list[Crash]]:
        """Build and signature to crashes; a crash counts in each signature that a revision of it had: that is one."""
        found = defaultdict(list)
        for crash in self.crashes:
            found[crash.group].append(crash)
        return found

    def ask(self, question: str, **parameters: object) -> list[dict[str, Any]]:
        """The rows of one of units/fleet/queries."""
        rows: list[dict[str, Any]] = self.engine.run_file(f"queries/{question}.sql", **parameters)
        return rows


@contextlib.contextmanager
def tables() -> Iterator[Any]:
    """A database of ClickHouse's engine with the tables of units/fleet."""
    require(importlib.util.find_spec("chdb"), "chdb-core, the engine of ClickHouse (make test)")
    from tests.clickhouse import ClickHouse

    database = ClickHouse()
    try:
        database.run_file("clickhouse/otel.sql")
        database.run_file("clickhouse/schema.sql")
        yield database
    finally:
        database.drop()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """The whole fleet, twice: deliveries are at least once, and a whole batch may come again."""
    directory = tmp_path_factory.mktemp("fleet")
    simulation = Simulation(FLEET)
    paths = {signal: directory / f"{signal}.jsonl" for signal in ("logs", "metrics")}
    paths["logs"].write_text("".join(json.dumps(request) + "\n" for request in simulation.logs()))
    paths["metrics"].write_text("".join(json.dumps(request) + "\n" for request in simulation.metrics()))
    newest = {}
    for resource, record in sorted(read_logs(paths["logs"]), key=lambda pair: int(pair[1]["pstore.crash.revision"])):
        key = resource["host.id"], record["pstore.crash.id"]
        newest[key] = Crash(*key, record)
    with tables() as engine:
        for _ in range(2):
            engine.run_file("clickhouse/load.sql", **{signal: str(path) for signal, path in paths.items()})
        yield Loaded(engine, list(newest.values()), read_alive(paths["metrics"]))


@pytest.mark.servers
def test_every_attribute_that_was_sent_is_there(loaded: Loaded) -> None:
    """The raw table has each record twice, as it was delivered; the crashes' has each crash once."""
    rows = loaded.engine.run(
        "SELECT LogAttributes AS a FROM otel_logs WHERE LogAttributes['pstore.crash.revision'] = '1'"
    )
    sent = {c.crash: c.record for c in loaded.crashes if c.record["pstore.crash.revision"] == 1}
    texts = {True: "true", False: "false"}

    assert len(rows) > 2 * FLEET.crashes
    for row in rows[:200]:
        wanted = dict(sent.get(row["a"]["pstore.crash.id"], {}))
        if wanted:
            del wanted["at"], wanted["pstore.type"]
            assert {
                k: str(texts.get(v, v)) if isinstance(v, bool) else str(v) for k, v in wanted.items()
            }.items() <= row["a"].items()
    assert loaded.engine.run("SELECT count() AS n FROM pstored_crashes FINAL") == [{"n": FLEET.crashes}]


@pytest.mark.servers
def test_top_signatures_are_counted_as_a_person_would(loaded: Loaded) -> None:
    """Devices and crashes, on each build; what came twice counts once, a loop's sum for as many as it stands for."""
    rows = loaded.ask("top_signatures", days=FLEET.days + 2)
    groups = loaded.groups()

    assert len(rows) == 10 * FLEET.builds
    for row in rows:
        crashes = groups[row["build"], row["signature"]]
        assert int(row["devices"]) == len({c.device for c in crashes})
        assert int(row["crashes"]) == sum(c.record["pstore.crash.count"] for c in crashes)
        assert row["kind"] == crashes[0].record["pstore.crash.kind"]
    for build in {build for build, _ in groups}:
        most = sorted(
            (len({c.device for c in crashes}) for (b, _), crashes in groups.items() if b == build), reverse=True
        )
        assert [int(row["devices"]) for row in rows if row["build"] == build] == most[:10]


@pytest.mark.servers
def test_the_raw_table_gives_the_same(loaded: Loaded) -> None:
    """Slower: but for resets, which have no signature there."""
    rolled_up = {
        (r["build"], r["signature"]): int(r["devices"]) for r in loaded.ask("top_signatures", days=FLEET.days + 2)
    }
    raw = {
        (r["build"], r["signature"]): int(r["devices"]) for r in loaded.ask("top_signatures_raw", days=FLEET.days + 2)
    }

    shared = rolled_up.keys() & raw.keys()
    assert len(shared) > 30
    assert all(raw[key] == rolled_up[key] for key in shared)


@pytest.mark.servers
def test_what_a_build_brought_is_new(loaded: Loaded) -> None:
    """The signatures that nobody had before its first day; the worst of them is the newest build's own bug."""
    days = [(d, build) for d, build in loaded.alive] + [(c.day, c.group[0]) for c in loaded.crashes]
    released = min(d for d, build in days if build == NEWEST)
    first: dict[str, str] = {}
    for crash in sorted(loaded.crashes, key=lambda c: c.day):
        first.setdefault(crash.group[1], crash.day)
    on_it = {c.group[1] for c in loaded.crashes if c.group[0] == NEWEST}
    rows = loaded.ask("new_signatures", build=NEWEST)

    assert {r["signature"] for r in rows} == {s for s, d in first.items() if d >= released and s in on_it}
    assert int(rows[0]["devices_on_it"]) > 3 * int(rows[1]["devices_on_it"])


@pytest.mark.servers
def test_days_without_a_crash_are_counted(loaded: Loaded) -> None:
    """Of the days that devices were up, by build."""
    crashed: dict[tuple[str, str], set[str]] = defaultdict(set)
    for crash in loaded.crashes:
        crashed[crash.day, crash.group[0]].add(crash.device)
    rows = loaded.ask("crash_free_days", days=FLEET.days + 2)

    assert [r["build"] for r in rows] == sorted({build for _, build in loaded.alive})
    for row in rows:
        up = sum(len(devices) for (_, build), devices in loaded.alive.items() if build == row["build"])
        bad = sum(len(devices) for (_, build), devices in crashed.items() if build == row["build"])
        assert (int(row["device_days"]), int(row["device_days_with_crash"])) == (up, bad)
        assert row["crash_free_percent"] == pytest.approx(100 * (1 - bad / up), abs=0.001)


@pytest.mark.servers
def test_boots_that_ended_badly_have_a_cause(loaded: Loaded) -> None:
    """Each once, as its newest revision says; nothing is left out."""
    wanted: dict[tuple[str, str, str], int] = defaultdict(int)
    for crash in loaded.crashes:
        wanted[crash.day, crash.record["pstore.crash.severity"], crash.record["pstore.crash.kind"]] += 1
    rows = loaded.ask("bad_ends", days=FLEET.days + 2)

    assert {(r["day"], r["severity"], r["kind"]): int(r["boots"]) for r in rows} == wanted


@pytest.mark.servers
def test_one_device_has_its_history(loaded: Loaded) -> None:
    """Newest first."""
    count: dict[str, int] = defaultdict(int)
    for crash in loaded.crashes:
        count[crash.device] += 1
    device = max(count, key=lambda d: count[d])
    rows = loaded.ask("device_history", device=device)
    theirs = sorted((c for c in loaded.crashes if c.device == device), key=lambda c: (-c.record["at"], c.crash))

    assert [r["crash"] for r in rows] == [c.crash for c in theirs]
    assert [r["severity"] for r in rows] == [c.record["pstore.crash.severity"] for c in theirs]


@pytest.mark.servers
def test_the_newest_builds_own_bug_is_its_worst_regression(loaded: Loaded) -> None:
    """And it is no chance; a build against itself has none."""
    worst = loaded.ask("new_signatures", build=NEWEST)[0]
    rows = loaded.ask("regressions", build=NEWEST, before=BEFORE)

    assert rows[0]["signature"] == worst["signature"]
    assert rows[0]["sigmas"] > 3
    assert int(rows[0]["crashes_before"]) == 0
    assert loaded.ask("regressions", build=NEWEST, before=NEWEST) == []


@pytest.mark.servers
def test_every_panel_of_the_dashboard_shows_something(loaded: Loaded) -> None:
    """With what Grafana puts for its variables."""
    device = loaded.crashes[0].device
    variables = {
        "$__fromTime": "now() - INTERVAL 30 DAY",
        "$__toTime": "now()",
        "${build:singlequote}": ", ".join(f"'2026.{n + 1}'" for n in range(FLEET.builds)),
        "${candidate:singlequote}": f"'{NEWEST}'",
        "${baseline:singlequote}": f"'{BEFORE}'",
        "${device:singlequote}": f"'{device}'",
    }
    dashboard = json.loads((FLEET_DIRECTORY / "grafana.json").read_text())
    queries = [panel["targets"][0]["rawSql"] for panel in dashboard["panels"]]
    queries += [v["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    for query in queries:
        for name, value in variables.items():
            query = query.replace(name, value)

        assert "$" not in query
        assert loaded.engine.run(query), query
