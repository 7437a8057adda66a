# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

OVFS ?= samples/ovfs
WORK ?= work
PORT ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help env run serve check campaign lint bench bench-host
.PHONY: bench-updater bench-stock rescue rpm check-rpm clean

help:
	@echo 'make run      put the OVFs of a directory on a storage domain, through a'
	@echo '              host, and show what lies there; then let the updater'
	@echo '              keep two more domains current'
	@echo '                OVFS=DIR   *.ovf or *.xml files ($(OVFS))'
	@echo '                WORK=DIR   where the domain is made, and found again ($(WORK))'
	@echo '                TYPE=posixfs|localfs   kind of a new domain (posixfs, with'
	@echo '                           a sanlock of its own, where sanlock is installed)'
	@echo 'make serve    keep a host of that domain running, with TLS, until Ctrl-C'
	@echo '                WORK=DIR, TYPE=...   as above'
	@echo '                PORT=N     (61325)'
	@echo 'make check    all tests; most of them with Python 3.9 and 3.12 as well'
	@echo '                ARGS=...   for pytest, e.g. ARGS="-k seal"'
	@echo '                PYTHONS="3.9 3.12"   these beside the system one; empty: none'
	@echo 'make campaign the tests that take minutes: kills at random moments'
	@echo 'make lint     ruff, mypy --strict, shell syntax, licence headers'
	@echo 'make bench    measure the store; make bench-host: a host of it;'
	@echo '              make bench-updater: the updater of a data center;'
	@echo '              make bench-stock: uploads of an unchanged engine'
	@echo '                ARGS=...   for bench/run.py, bench/host.py, ...'
	@echo 'make rescue   pack the command into one file for a rescue shell,'
	@echo '              dist/ovfstore: needs Python 3.9 and nothing else'
	@echo 'make rpm      build the packages, in dist/rpm; make check-rpm: and try to'
	@echo '              install, update and remove them in an empty root'
	@echo 'make env      only make the virtual environment, .venv'
	@echo '                PYTHON=...           make it from this Python'
	@echo '                SYSTEM_PACKAGES=no   as root, do not install sanlock'
	@echo 'make clean    remove the environments, caches and ./work'

env:
	@scripts/setup-env run

run: env
	@.venv/bin/python scripts/run "$(OVFS)" "$(WORK)"

serve: env
	@.venv/bin/python scripts/serve "$(WORK)" $(PORT)

check:
	@scripts/check $(ARGS)

campaign: env
	@scripts/setup-env tests
	@.venv/bin/python -m pytest -m campaign $(ARGS)

lint:
	@scripts/lint

bench-updater: env
	@.venv/bin/python -m bench.updater $(ARGS)

bench-stock: env
	@.venv/bin/python -m bench.stock $(ARGS)

bench: env
	@.venv/bin/python -m bench.run $(ARGS)

bench-host: env
	@.venv/bin/python -m bench.host $(ARGS)

rescue:
	@python3 scripts/make-rescue dist/ovfstore

rpm:
	@scripts/make-rpm $(ARGS)

check-rpm:
	@scripts/check-rpm

clean:
	rm -rf .venv .venvs work build dist *.egg-info
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
