# make demo · make test: each installs what it needs into .venv first, and is fast the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
STAMP := $(VENV)/.installed

.PHONY: demo test install venv lint types floors tests slow clean

install: $(STAMP)

# One environment for both commands: torch is most of it, and what the tests add is small.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; found $$($(PYTHON) --version). Set PYTHON=python3.12"; exit 2; }
	@$(MAKE) --no-print-directory venv
	$(PIP) install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

# Debian's python3 comes without ensurepip: asked before anything is made, or an environment without pip would be left.
# One that was left is completed.
venv:
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make an environment with pip: apt-get install python3-venv, then make again"; exit 2; }
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)

demo: install
	$(BIN)/dropclass demo -o demo-out --overwrite

test: install lint types floors tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

floors: install
	$(BIN)/lint-imports

# The usual round; the slow rest of it: make slow.
tests: install
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile -m "not slow or chosen"

slow: install
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile -m "slow and not chosen"

clean:
	rm -rf demo-out build dist *.egg-info
