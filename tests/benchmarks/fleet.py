# SPDX-License-Identifier: Apache-2.0
"""A large fleet in ClickHouse's engine: how long its questions take, and how much room it needs.

``python tests/benchmarks/fleet.py [DEVICES CRASHES DAYS [DIRECTORY]]``; by default 100,000 devices, 1,000,000 crashes,
30 days.  The files in DIRECTORY (7 GB) are left there, and used again.  Budgets: the top signatures from the roll-up in
0.5 s, from the raw records in 5 s.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import json

from pstored.fleet.simulate import Fleet, Simulation
from tests.clickhouse import FLEET, ClickHouse

RUNS = 5
BUDGETS = {"top_signatures": 0.5, "top_signatures_raw": 5.0}
BUILDS = 6


def write(directory: Path, fleet: Fleet) -> None:
    """The requests, unless they are there from an earlier run."""
    simulation = Simulation(fleet)
    for signal, requests in (("logs", simulation.logs()), ("metrics", simulation.metrics())):
        path = directory / f"{signal}.jsonl"
        if path.exists():
            continue
        partial = path.with_suffix(".partial")
        with partial.open("w") as file:
            file.writelines(json.dumps(request, separators=(",", ":")) + "\n" for request in requests)
        partial.rename(path)


def sizes(database: ClickHouse) -> dict[str, tuple[int, int]]:
    """Table to rows and bytes on disk."""
    rows = database.run(
        "SELECT table, sum(rows) AS n, sum(bytes_on_disk) AS size FROM system.parts "
        f"WHERE active AND database = '{database.name}' GROUP BY table ORDER BY table"
    )
    return {row["table"]: (int(row["n"]), int(row["size"])) for row in rows}


def main(arguments: list[str]) -> int:
    """Print the table; 1 if a budget is missed."""
    devices, crashes, days = (int(a) for a in arguments[:3]) if len(arguments) >= 3 else (100_000, 1_000_000, 30)
    directory = Path(arguments[3] if len(arguments) > 3 else tempfile.mkdtemp(prefix="fleet-"))
    directory.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    write(directory, Fleet(devices=devices, crashes=crashes, days=days, builds=BUILDS))
    print(f"{devices} devices, {crashes} crashes, {days} days: written in {time.monotonic() - start:.0f} s")
    database = ClickHouse()
    database.run_file("clickhouse/otel.sql")
    database.run_file("clickhouse/schema.sql")
    start = time.monotonic()
    database.run_file("clickhouse/load.sql", **{name: str(directory / f"{name}.jsonl") for name in ("logs", "metrics")})
    print(f"loaded in {time.monotonic() - start:.0f} s")
    for table, (number, size) in sizes(database).items():
        print(f"{table:24} {number:10} rows {size / 1e6:8.1f} MB {size / max(number, 1):7.1f} B each")
    (device,) = database.run("SELECT device FROM pstored_crashes GROUP BY device ORDER BY count() DESC LIMIT 1")
    answers = {"days": days, "build": f"2026.{BUILDS}", "before": f"2026.{BUILDS - 1}", "device": device["device"]}
    missed = False
    for path in sorted((FLEET / "queries").glob("*.sql")):
        best = float("inf")
        for _ in range(RUNS):
            start = time.monotonic()
            rows = database.run(path.read_text(), **answers)
            best = min(best, time.monotonic() - start)
        late = best > BUDGETS.get(path.stem, float("inf"))
        missed |= late
        budget = f"  budget {BUDGETS[path.stem]} s{': MISSED' if late else ''}" if path.stem in BUDGETS else ""
        print(f"{path.stem:24} {best:8.3f} s {len(rows):6} rows{budget}")
    database.drop()
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
