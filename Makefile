# `make demo` and `make test` set up all they need in .venv (about 11 GB from the package registry, about 4 minutes).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check figures wheel clean

demo: .venv/installed
	$(BIN)/small4 demo

test: .venv/installed-dev
	$(BIN)/python -m pytest -m "not figures"

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Long: an hour and more on two cores. Prints the table of the README.
figures: .venv/installed-dev
	$(BIN)/python -m launch.bench.figures

wheel: .venv/installed-dev
	$(BIN)/pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf .venv build dist figures *.egg-info

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --disable-pip-version-check -e .
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --disable-pip-version-check -e '.[dev]'
	@touch .venv/installed $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than 3.11: install Python 3.11 or newer, or run make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian: apt-get install python3-venv)"; exit 1; }
	@command -v g++ > /dev/null || \
	  echo "note: no g++ (Debian: apt-get install g++); without it the CPU path runs in plain PyTorch, slower"
	$(PYTHON) -m venv .venv
