# SPDX-License-Identifier: Apache-2.0
# Set-up and the main jobs; every target does the set-up it needs.

PYTHON ?= python3
VENV := .venv
PREFIX ?= /usr

.PHONY: all demo test test-vm proof bench lint install install-units clean

all: $(VENV)/.ready

PACKAGES := python3 python3-venv python3-dev gcc pkg-config libsystemd-dev liblzo2-dev libudev1
# Debian packages: a C compiler, pkg-config and headers for systemd-python and python-lzo, and journald for the tests.
$(VENV)/.ready: pyproject.toml .ci/apt
	.ci/apt $(PACKAGES)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[compress,ecc]' --group dev
	touch $@

# The main job on a real crash, in a throw-away directory: what `pstored collect` does after a reboot.
demo: $(VENV)/.ready
	$(VENV)/bin/python -m fake_pstore --demo

# What Debian starts as soon as it is installed: on CI's machine only; at home the tests that need it say so, and skip.
DAEMONS := mosquitto prometheus prometheus-node-exporter
test: $(VENV)/.fleet
	.ci/apt openssl strace systemd systemd-journal-remote util-linux $(if $(CI),$(DAEMONS))
	$(VENV)/bin/pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

# Servers as fleets run them, which the tests deliver to. A library that one of them has from Debian's own Python 3.11.
$(VENV)/.fleet: $(VENV)/.ready
	.ci/apt $$($(VENV)/bin/python -c 'import sys; print("libpython3.11" * (sys.version_info[:2] == (3, 11)))')
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --group fleet
	$(PYTHON) -m venv --without-pip $(VENV)/bugsink
	$(VENV)/bin/pip --python $(VENV)/bugsink/bin/python3 install --quiet --disable-pip-version-check --group bugsink
	# the engine of ClickHouse, without what only its DataFrames need
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps 'chdb-core==26.9.*'
	touch $@

# Real kernels in QEMU, crashed and collected from: some 20 minutes on two cores.
test-vm: $(VENV)/.ready
	.ci/apt $$(cat tests/vm/packages.txt)
	$(VENV)/bin/pytest -m vm tests/vm --numprocesses=auto

# Killed, and failed, at every system call there is: the long ways of what `make test` goes short ways of.  Needs root;
# an hour or two on two cores.
proof: $(VENV)/.ready
	.ci/apt strace systemd systemd-journal-remote util-linux
	$(VENV)/bin/pytest -m proof tests/proof

# Ratios between whole processes, against the budgets; not part of the tests, since a busy machine would fail them.
bench: $(VENV)/.ready
	.ci/apt systemd
	$(VENV)/bin/python tests/benchmarks/bench.py
	$(VENV)/bin/python tests/benchmarks/oops.py
	$(VENV)/bin/python tests/benchmarks/netconsole.py
	$(VENV)/bin/python tests/benchmarks/ramoops.py

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The program in a virtual environment of its own, which is how Debian's "externally managed" Python wants it, and the
# units. DESTDIR= is for packagers, PIP_* for those without a network (pip(1)); who packages the program by other means
# takes install-units. PYTHON= is what runs it: one in a home directory is out of the units' sight. No file knows when or
# where it was made: two builds are equal, and an image that sets times back does not compile all of it at every boot.
# EXTRAS= are those of pyproject.toml. The pip is PYTHON's own, in a place of its own: $(VENV) is left as it is.
LIBRARY := $(PREFIX)/lib/pstored
EXTRAS ?= compress,ecc
install: install-units
	.ci/apt $(PACKAGES)
	rm -rf '$(DESTDIR)$(LIBRARY)'
	$(PYTHON) -m venv --without-pip '$(DESTDIR)$(LIBRARY)'
	set -e; pip=$$(mktemp -d); trap 'rm -rf "$$pip"' EXIT; $(PYTHON) -m venv "$$pip"; \
		"$$pip/bin/pip" --python '$(DESTDIR)$(LIBRARY)/bin/python3' install --quiet --disable-pip-version-check --no-compile \
		'.$(if $(EXTRAS),[$(EXTRAS)])'
	find '$(DESTDIR)$(LIBRARY)' -name direct_url.json -delete
	find '$(DESTDIR)$(LIBRARY)' -name RECORD -exec sed -i -e '/\/direct_url.json,/d' -e '/\/bin\//d' {} +
	sed -i '/^command = /d' '$(DESTDIR)$(LIBRARY)/pyvenv.cfg'
	$(PYTHON) -m compileall -q --invalidation-mode=unchecked-hash $(if $(DESTDIR),-s '$(DESTDIR)' -p /) '$(DESTDIR)$(LIBRARY)/lib'
	find '$(DESTDIR)$(LIBRARY)/bin' -type f -delete
	install -d '$(DESTDIR)$(PREFIX)/bin'
	printf '%s\n' '#!$(LIBRARY)/bin/python3 -IS' '# -S: what the module site does takes 2 ms, and is not needed' \
		'import sys' "sys.path.append('$(LIBRARY)/lib/$$($(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])')/site-packages')" \
		'from pstored.__main__ import main' 'main()' >'$(DESTDIR)$(PREFIX)/bin/pstored'
	chmod 755 '$(DESTDIR)$(PREFIX)/bin/pstored'

UNITS := $(wildcard units/*.service units/*.socket units/*.timer)
install-units:
	install -d '$(DESTDIR)$(PREFIX)/lib/systemd/system' '$(DESTDIR)$(PREFIX)/share/doc/pstored'
	set -e; for unit in $(UNITS); do \
		sed 's,/usr/,$(PREFIX)/,' $$unit >'$(DESTDIR)$(PREFIX)/lib/systemd/system/'$${unit#units/}; done
	install -Dm644 units/80-pstored.preset -t '$(DESTDIR)$(PREFIX)/lib/systemd/system-preset'
	install -Dm644 units/pstored.tmpfiles '$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/pstored.conf'
	install -Dm644 units/pstored.sysusers '$(DESTDIR)$(PREFIX)/lib/sysusers.d/pstored.conf'
	install -Dm644 units/pstored.catalog -t '$(DESTDIR)$(PREFIX)/lib/systemd/catalog'
	install -Dm644 units/pstored.conf -t '$(DESTDIR)$(PREFIX)/lib'
	install -Dm644 README.md LICENSE -t '$(DESTDIR)$(PREFIX)/share/doc/pstored'

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
