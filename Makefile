# Quorum. `make demo` shows the whole chain; `make test` runs every test.
# Everything runs from .venv, which `make setup` builds once from requirements.lock.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.quorum-setup
# Two processes, each with whole files; tests/conftest.py puts those with slow tests first.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
CODE   := quorum analysis search ensemble trainables journal common benchmarks deploy tests

.PHONY: help setup demo test fast test-cluster check format bench lock clean

help:
	@echo "make setup   build .venv once (about a minute, 7 GB)"
	@echo "make demo    the whole chain on bundled digits, in minutes"
	@echo "make test    every test          make fast   without the slow ones"
	@echo "make test-cluster   a Ray cluster of several hosts on this machine (root; ONLY=lost_host, ALL=1)"
	@echo "make check   format, lint, types, tests: what CI runs"
	@echo "make bench   side-by-side measurements"

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Quorum needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 setup"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 2; }
	@awk '/^uv==/ {on=1} on {print} on && !/\\$$/ {exit}' requirements.lock > $(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)
	$(BIN)/quorum demo

test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL)

fast: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-cluster: $(STAMP)
	$(BIN)/python -m tests.cluster $(if $(ONLY),--only $(ONLY)) $(if $(ALL),--all)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)
	$(MAKE) test

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Those that need no arguments; benchmarks/README.md has the others.
BENCHES = training augment int8

bench: $(STAMP)
	@for name in $(BENCHES); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

# The lock holds versions and hashes only, for every platform and Python from 3.11 on.
lock:
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra cluster --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade -o requirements.lock

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
