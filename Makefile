# `make` explains itself.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4

# torch's default build for Linux holds gigabytes of CUDA libraries. Without an NVIDIA GPU its CPU build is taken,
# where PyTorch's package index answers within five seconds.
CPU_BUILDS := https://download.pytorch.org/whl/cpu
define CPU_BUILD_OPTION
import os, shutil, sys, urllib.request
if sys.platform == "linux" and not shutil.which("nvidia-smi") and not os.environ.get("PIP_EXTRA_INDEX_URL"):
    try:
        urllib.request.urlopen("$(CPU_BUILDS)/torch/", timeout=5).close()
        print("--extra-index-url $(CPU_BUILDS)")
    except OSError:
        pass
endef
export CPU_BUILD_OPTION

# Tests whose results depend on how the processor computes.
NUMERICAL := $(addprefix tests/test_,$(addsuffix .py,calibration compare crf global_state inputs invariance nbest \
	network optimization partial_labels resume spacy_component tagger training variants windows))

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-portable check format bench corpus clean

help:  ## show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## make .venv and install nertool in it, with the versions it was tested with

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("nertool needs Python 3.11 or later, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		$$($(PYTHON) -c "$$CPU_BUILD_OPTION") --editable '.[dev,plots,datasets,tune,serve]'
	@touch $@

demo: install  ## train on the demonstration corpus, evaluate, tag a sample text
	$(BIN)/nertool train demo.yaml
	$(BIN)/nertool evaluate corpora/demo/test.txt
	$(BIN)/nertool tag corpora/sample.txt

test: install  ## run the tests (set NERTOOL_DATA to run those on real corpora too)
	$(PYTEST)

test-slow: install  ## run the slow tests too
	$(PYTEST) -m 'slow or not slow'

test-portable: install  ## run numerical tests with other vector instructions, and all tests in the C locale without a home
	ATEN_CPU_CAPABILITY=default $(PYTEST) $(NUMERICAL)
	ATEN_CPU_CAPABILITY=avx2 $(PYTEST) $(NUMERICAL)
	env -u XDG_CACHE_HOME LC_ALL=C HOME=/nonexistent $(PYTEST)

check: install  ## run the linters: ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## measure speed beside a plain implementation of the same network
	$(BIN)/python benchmarks/bench.py

corpus: install  ## build the demonstration corpus from its sources
	$(BIN)/python corpora/build.py

clean:  ## remove what was installed and built, but no run
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
