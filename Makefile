# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

OVFS ?= samples/ovfs
WORK ?= work
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help env run check lint bench clean

help:
	@echo 'make run      put the OVFs of a directory on a storage domain, and show'
	@echo '              what lies there'
	@echo '                OVFS=DIR   *.ovf or *.xml files ($(OVFS))'
	@echo '                WORK=DIR   where the domain is made, and found again ($(WORK))'
	@echo '                TYPE=posixfs|localfs   kind of a new domain (posixfs, with'
	@echo '                           a sanlock of its own, where sanlock is installed)'
	@echo 'make check    all tests, with each Python from 3.9 to 3.13 that is here'
	@echo '                ARGS=...   for pytest, e.g. ARGS="-k seal"'
	@echo '                PYTHONS="3.9 3.12"   these beside the system one; empty: none'
	@echo 'make lint     ruff, mypy --strict, shell syntax, licence headers'
	@echo 'make bench    measure'
	@echo '                ARGS=...   for bench/run.py'
	@echo 'make env      only make the virtual environment, .venv'
	@echo '                PYTHON=...           make it from this Python'
	@echo '                SYSTEM_PACKAGES=no   as root, do not install sanlock'
	@echo 'make clean    remove the environments, caches and ./work'

env:
	@scripts/setup-env run

run: env
	@.venv/bin/python scripts/run "$(OVFS)" "$(WORK)"

check:
	@scripts/check $(ARGS)

lint:
	@scripts/lint

bench: env
	@.venv/bin/python -m bench.run $(ARGS)

clean:
	rm -rf .venv .venvs work build dist *.egg-info
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
