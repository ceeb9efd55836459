# SPDX-License-Identifier: Apache-2.0
# Set-up and the main jobs; every target does the set-up it needs.

PYTHON ?= python3
VENV := .venv

.PHONY: all demo test test-vm bench lint clean

all: $(VENV)/.ready

# Debian packages: a C compiler, pkg-config and headers for systemd-python and python-lzo, and journald for the tests.
$(VENV)/.ready: pyproject.toml .ci/apt
	.ci/apt python3 python3-venv python3-dev gcc pkg-config libsystemd-dev liblzo2-dev libudev1
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[compress]' --group dev
	touch $@

# The main job on a real crash, in a throw-away directory: what `pstored collect` does after a reboot.
demo: $(VENV)/.ready
	$(VENV)/bin/python -m fake_pstore --demo

test: $(VENV)/.ready
	.ci/apt systemd systemd-journal-remote util-linux
	$(VENV)/bin/pytest

# Real kernels in QEMU, crashed and collected from: some 15 minutes on two cores.
test-vm: $(VENV)/.ready
	.ci/apt $$(cat tests/vm/packages.txt)
	$(VENV)/bin/pytest -m vm tests/vm

# Ratios between whole processes, against the budgets; not part of the tests, since a busy machine would fail them.
bench: $(VENV)/.ready
	.ci/apt systemd
	$(VENV)/bin/python tests/benchmarks/bench.py

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
