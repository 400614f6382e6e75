# The commands of this project; CI calls the same ones. `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Two test processes with one thread each are faster than one process whose threads fight over the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all check format bench docs clean package package-extras

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP)  ## create .venv with the pinned development versions (made once)

# The stamp is written last: an interrupted installation is repeated, a finished one is not.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "constraints.txt pins versions that need Python 3.11 or newer: make env PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	-$(BIN)/python -m compressor.export.bench.fetch # without a network the tests of the bench are skipped
	@touch $@

demo: $(STAMP)  ## train, prune, fine-tune, verify and export a small network
	$(BIN)/python examples/demo.py

test: $(STAMP)  ## run the tests and doctests, without the slow ones
	$(PYTEST) -m "not slow"

test-all: $(STAMP)  ## run every test
	$(PYTEST) -m ""

check: $(STAMP)  ## formatting, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_layers.py

format: $(STAMP)  ## format the code and mend what lint can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

package:  ## build wheel and sdist into dist/ and check them; `make package-extras` installs each extra alone
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip install --quiet build twine
	rm -rf dist
	build/tools/bin/python -m build --outdir dist .
	build/tools/bin/twine check --strict dist/*

package-extras: package  ## the wheel with each extra alone, in environments of their own (minutes, a package index)
	$(PYTHON) tests/packaging/alone.py dist/*.whl

bench: $(STAMP)  ## run the benchmarks (timing belongs here, not in the tests)
	$(BIN)/python -m benchmarks

# -W: every warning is an error, a link that leads nowhere included.
docs: $(VENV)/.docs  ## build the documentation into site/, warnings are errors
	rm -rf site
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -c docs -b html -E -W --keep-going -q -d build/doctrees . site
	@echo site/index.html

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	@touch $@

clean:  ## remove what the targets above made, .venv included
	rm -rf $(VENV) build dist out site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
