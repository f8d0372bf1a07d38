# make demo · make test: each installs what it needs into .venv first, and is fast the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
STAMP := $(VENV)/.installed

.PHONY: demo test install lint types floors tests clean

install: $(STAMP)

# One environment for both commands: torch is most of it, and what the tests add is small.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; found $$($(PYTHON) --version). Set PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

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

tests: install
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

clean:
	rm -rf demo-out build dist *.egg-info
