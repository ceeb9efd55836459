# SPDX-License-Identifier: Apache-2.0
"""``check-config`` and ``schema``."""

import json
from argparse import Namespace

from pstored.config import load


def check_config(options: Namespace) -> int:
    """Strict, where reading is lenient: any problem is exit 78."""
    loaded = load(options.root, only=options.file)
    problems = list(loaded.problems)
    if loaded.config.outgoing:
        from pstored.sinks.settings import lacking

        problems += lacking(loaded.config.outgoing)
    if options.json:
        tables = {name: table._asdict() for name, table in loaded.config.tables().items()}
        document = {"schema": 1, "files": list(loaded.files), "problems": problems, "config": tables}
        print(json.dumps(document, indent=2))
        return 78 if problems else 0
    for path in loaded.files:
        print(f"# {path}")
    if not loaded.files:
        print("# no configuration file: all defaults")
    for name, table in loaded.config.tables().items():
        print(f"[{name}]")
        for key, value in table._asdict().items():
            print(f"# {key} is decided by the circumstances" if value is None else f"{key} = {json.dumps(value)}")
        print()
    for problem in problems:
        print(f"problem: {problem}")
    return 78 if problems else 0


def schema(options: Namespace) -> int:  # noqa: ARG001 - as all commands
    """The JSON Schema of crash.json."""
    from pstored.crashes.report import Report

    print(json.dumps(Report.model_json_schema(by_alias=True), indent=2))
    return 0
