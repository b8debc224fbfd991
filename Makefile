PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3))
# digits, or fashion-mnist.
DATA ?= digits
export DATA

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXAMPLES := $(filter-out examples/demo.py,$(wildcard examples/*.py))
# Small models gain little from more threads, and lose much where other processes want the same cores.
ONE_THREAD := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test lint types examples tests clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## create .venv with the pinned versions (the other targets do this by themselves)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,plot,table]'
	@touch $@

demo: $(INSTALLED)  ## balance long-tailed digits; DATA=fashion-mnist for Fashion-MNIST
	$(BIN)/python examples/demo.py

# The tests come last so that their summary ends the output.
test: lint types examples tests  ## everything that must pass: linters, types, examples, tests

lint: $(INSTALLED)  ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## mypy
	$(BIN)/mypy

examples: $(INSTALLED)  ## run every example but the demo
	@for example in $(EXAMPLES); do \
		echo "$$example"; $(ONE_THREAD) MPLBACKEND=agg $(BIN)/python $$example || exit 1; \
	done

tests: $(INSTALLED)  ## pytest, with the doctests
	$(ONE_THREAD) $(BIN)/python -m pytest -n auto --maxprocesses 8

clean:  ## remove .venv and what the tools left behind
	rm -rf $(VENV) build dist *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache
