# SPDX-License-Identifier: Apache-2.0
# Set-up and the main jobs; every target does the set-up it needs.

PYTHON ?= python3
VENV := .venv
PREFIX ?= /usr

.PHONY: all demo test test-vm bench lint install install-units clean

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
	.ci/apt systemd util-linux
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

# The program with all it imports in one directory that needs no other, so it is no matter to Debian's "externally managed"
# Python; and the units. DESTDIR= is for packagers, PIP_* for those without a network; who packages the program by other
# means takes install-units. PYTHON= is what runs it: one in a home directory is out of the units' sight.
LIBRARY = $(DESTDIR)$(PREFIX)/lib/pstored
install: $(VENV)/.ready install-units
	rm -rf '$(LIBRARY)'
	$(VENV)/bin/pip --python $(PYTHON) install --quiet --disable-pip-version-check --root-user-action=ignore \
		--target '$(LIBRARY)' '.[compress]'
	rm -rf '$(LIBRARY)/bin'
	install -d '$(DESTDIR)$(PREFIX)/bin'
	printf '%s\n' "#!$$($(PYTHON) -c 'import sys; print(sys.executable)') -I" 'import sys' \
		'sys.path.insert(0, "$(PREFIX)/lib/pstored")' 'from pstored.__main__ import main' 'main()' \
		>'$(DESTDIR)$(PREFIX)/bin/pstored'
	chmod 755 '$(DESTDIR)$(PREFIX)/bin/pstored'

UNITS := $(wildcard units/*.service units/*.target)
install-units:
	install -d '$(DESTDIR)$(PREFIX)/lib/systemd/system' '$(DESTDIR)$(PREFIX)/share/doc/pstored'
	set -e; for unit in $(UNITS); do \
		sed 's,/usr/,$(PREFIX)/,' $$unit >'$(DESTDIR)$(PREFIX)/lib/systemd/system/'$${unit#units/}; done
	install -Dm644 units/80-pstored.preset -t '$(DESTDIR)$(PREFIX)/lib/systemd/system-preset'
	install -Dm644 units/pstored.tmpfiles '$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/pstored.conf'
	install -Dm644 units/pstored.sysusers '$(DESTDIR)$(PREFIX)/lib/sysusers.d/pstored.conf'
	install -Dm644 units/pstored.conf -t '$(DESTDIR)$(PREFIX)/lib'
	install -Dm644 README.md LICENSE -t '$(DESTDIR)$(PREFIX)/share/doc/pstored'

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
