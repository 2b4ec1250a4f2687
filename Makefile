# `make demo` and `make test` set up all they need; a machine brings only Python (3.11 or newer, with venv), make and git.
PYTHON ?= python3
# The server of the tests and benchmarks: empty for the embedded one, "docker", or a URL.
DATABASE ?=
# What pytest is given: files, -k …; empty for all.
TESTS ?=
# What the benchmarks are given: --only latest, --rounds 3, …; empty for all.
BENCH ?=
IMAGE ?= arbstore-timescaledb:pg17

VENV := .venv
BIN := $(VENV)/bin
DEV := $(VENV)/.installed-dev
DEMO := $(VENV)/.installed-demo
DOCS := $(VENV)/.installed-docs

.DEFAULT_GOAL := help
.PHONY: help demo test bench check format docs picture image clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
	@echo "Variables: PYTHON=python3.13, TESTS='tests/test_cache.py -k ttl', DATABASE=docker or a URL, IMAGE=name:tag"

# Everything for development includes what the demo needs.
demo: $(or $(wildcard $(DEV)),$(DEMO)) ## run the main job on an embedded database
	@$(BIN)/arbstore demo

test: $(DEV) ## run the tests in parallel; DATABASE picks the server, TESTS the tests
	@$(BIN)/pytest -n auto $(if $(DATABASE),--database='$(DATABASE)') $(TESTS)

bench: $(DEV) ## measure against the bare drivers; DATABASE picks the server, BENCH the options
	@$(BIN)/python -m benchmarks $(if $(DATABASE),--database='$(DATABASE)') $(BENCH)

check: $(DEV) ## look at format, lint and types; change nothing
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy

format: $(DEV) ## put the code into its format, and fix what the linter can
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

docs: $(DOCS) ## build the documentation into site/; a warning or a dead link is an error
	@$(BIN)/zensical build --clean --strict

picture: $(DEV) ## draw the output of the demo anew, for the README
	@$(BIN)/python .ci/picture.py

image: ## build the TimescaleDB image from Debian's packages
	@docker/build.sh '$(IMAGE)'

clean: ## delete the virtual environment and all that tools have left
	rm -rf $(VENV) build dist site .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A venv that could not be finished (no ensurepip) would pass for one the next time.
$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("arbstore needs Python 3.11 or newer: make PYTHON=…")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(DEV): EXTRAS := dev
$(DEMO): EXTRAS := cli,embedded
$(DOCS): EXTRAS := docs
$(DEV) $(DEMO) $(DOCS): pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "setting up $(VENV) ($(EXTRAS)) …"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@
