# `make` explains itself.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check format bench corpus clean

help:  ## show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## make .venv and install nertool in it, with the versions it was tested with

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("nertool needs Python 3.10 or later, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,plots,datasets]'
	@touch $@

demo: install  ## train on the demonstration corpus, evaluate, tag a sample text
	$(BIN)/nertool train demo.yaml
	$(BIN)/nertool evaluate corpora/demo/test.txt
	$(BIN)/nertool tag corpora/sample.txt

test: install  ## run the tests (set NERTOOL_DATA to run those on real corpora too)
	$(BIN)/python -m pytest

test-slow: install  ## run the slow tests too
	$(BIN)/python -m pytest -m 'slow or not slow'

check: install  ## run the linters: ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## measure speed beside a plain implementation of the same network
	$(BIN)/python benchmarks/bench.py

corpus: install  ## build the demonstration corpus from its sources
	$(BIN)/python corpora/build.py

clean:  ## remove what was installed and built, but no run
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
