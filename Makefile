# `make` explains itself.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4

LOCKS := requirements
PIP := -m pip install --quiet --disable-pip-version-check
AS_LOCKED := --require-hashes --no-deps --only-binary :all:
TOOLS := .venv-tools/bin
LOWEST := .venv-lowest/bin

# PyPI's torch for Linux holds gigabytes of CUDA libraries. Without an NVIDIA GPU its CPU build is taken, where pip
# finds one: in PyTorch's package index, if that answers within five seconds, or in what pip is configured to look at.
CPU_BUILDS := https://download.pytorch.org/whl/cpu
define CPU_BUILD_OPTION
import os, urllib.request
if not os.environ.get("PIP_EXTRA_INDEX_URL"):
    try:
        urllib.request.urlopen("$(CPU_BUILDS)/torch/", timeout=5).close()
        print("--extra-index-url $(CPU_BUILDS)")
    except OSError:
        pass
endef
export CPU_BUILD_OPTION
WANTS_CPU_BUILD := import shutil, sys; sys.exit(sys.platform != "linux" or shutil.which("nvidia-smi") is not None)
define PYTHON_IS_NEW_ENOUGH
import sys
if sys.version_info < (3, 11):
    sys.exit("nertool needs Python 3.11 or later, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12")
endef
export PYTHON_IS_NEW_ENOUGH

# Tests whose results depend on how the processor computes.
NUMERICAL := $(addprefix tests/test_,$(addsuffix .py,calibration compare crf global_state inputs invariance nbest \
	network optimization partial_labels resume spacy_component tagger training variants windows))

# Tests of every package that nertool needs, in a few minutes.
QUICK := $(addprefix tests/test_,$(addsuffix .py,api cli conll crf docbin evaluation export hub imports network \
	resume spacy_component statistics training))

.DEFAULT_GOAL := help
.PHONY: help install demo test test-attack test-slow test-cluster test-portable test-lowest check format lock audit bench corpus clean

help:  ## show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## make .venv and install nertool in it, with the versions it was tested with

# Every file is checked against the digests of the lock files.
$(INSTALLED): pyproject.toml $(addprefix $(LOCKS)/,build.lock torch.lock torch-cpu.lock requirements.lock)
	@$(PYTHON) -c "$$PYTHON_IS_NEW_ENOUGH"
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) $(AS_LOCKED) --requirement $(LOCKS)/build.lock
	@if $(PYTHON) -c '$(WANTS_CPU_BUILD)' && $(BIN)/python $(PIP) $(AS_LOCKED) \
		$$($(PYTHON) -c "$$CPU_BUILD_OPTION") --requirement $(LOCKS)/torch-cpu.lock; \
		then :; else echo "torch: the build on PyPI"; \
			$(BIN)/python $(PIP) $(AS_LOCKED) --requirement $(LOCKS)/torch.lock; fi
	$(BIN)/python $(PIP) $(AS_LOCKED) --no-binary seqeval --no-build-isolation --requirement $(LOCKS)/requirements.lock
	$(BIN)/python $(PIP) --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check --quiet
	@touch $@

demo: install  ## train on the demonstration corpus, evaluate, tag a sample text
	$(BIN)/nertool train demo.yaml
	$(BIN)/nertool evaluate corpora/demo/test.txt
	$(BIN)/nertool tag corpora/sample.txt

test: install  ## run the tests (set NERTOOL_DATA to run those on real corpora too)
	$(PYTEST)

test-attack: install  ## run every tenth attack (kills, forks, interrupts, fuzzing, memory): about seven minutes
	NERTOOL_ATTACK_EVERY=10 $(PYTEST) -m slow tests/attack

test-long: install  ## run the slow tests that are no attacks: about five minutes
	$(PYTEST) -m slow --ignore tests/attack

test-slow: install  ## run the slow tests too, and all attacks: about an hour and a half
	$(PYTEST) -m 'slow or not slow'

# Half a gigabyte, which is why `make install` leaves it out. Spark needs Java 17 or later.
test-cluster: install  ## install Ray and Spark in .venv and run the tests of the Mapper in them
	$(BIN)/python $(PIP) --require-hashes --no-deps --no-build-isolation --requirement $(LOCKS)/cluster.lock
	$(PYTEST) -n 0 -m 'slow or not slow' tests/test_clusters.py

test-portable: install  ## run numerical tests with other vector instructions, and all tests in the C locale without a home
	ATEN_CPU_CAPABILITY=default $(PYTEST) $(NUMERICAL)
	ATEN_CPU_CAPABILITY=avx2 $(PYTEST) $(NUMERICAL)
	env -u XDG_CACHE_HOME LC_ALL=C HOME=/nonexistent $(PYTEST)

# The lowest torch is of 2.6 to 2.7 GB where PyTorch's index does not answer: then the tested one is taken, and said.
.venv-lowest/.installed: pyproject.toml $(LOCKS)/lowest.lock
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python $(PIP) $(AS_LOCKED) --requirement $(LOCKS)/build.lock
	torch=$$(sed -n 's/^ *"torch>=\(.*\)",/\1/p' pyproject.toml); index=$$($(PYTHON) -c "$$CPU_BUILD_OPTION"); \
	$(LOWEST)/python -c "import importlib.metadata as m, sys; sys.exit(not m.version('torch').startswith('$$torch.'))" 2>/dev/null \
		|| $(LOWEST)/python $(PIP) --no-deps $$index "torch==$$torch+cpu" \
		|| { echo "No CPU build of torch $$torch was found: testing with the version of torch-cpu.lock."; \
			$(LOWEST)/python $(PIP) $(AS_LOCKED) $$index --requirement $(LOCKS)/torch-cpu.lock; }
	$(LOWEST)/python $(PIP) $(AS_LOCKED) --no-binary seqeval --no-build-isolation --requirement $(LOCKS)/lowest.lock
	$(LOWEST)/python $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

test-lowest: .venv-lowest/.installed  ## run quick tests with the lowest versions that pyproject.toml admits
	$(LOWEST)/python -m pytest -p no:randomly $(QUICK)

check: install  ## run the linters: ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv-tools/.installed  ## write the lock files and constraints.txt after a change of a dependency
	PATH="$$PWD/$(TOOLS):$$PATH" $(TOOLS)/python $(LOCKS)/lock.py $(OPTIONS)

audit: install .venv-tools/.installed  ## write an SBOM of .venv, sbom.json, and look its packages up among known vulnerabilities
	$(TOOLS)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.json $(BIN)/python
	$(TOOLS)/python $(LOCKS)/audit.py

.venv-tools/.installed: $(LOCKS)/tools.lock
	$(PYTHON) -m venv .venv-tools
	$(TOOLS)/python $(PIP) $(AS_LOCKED) --requirement $(LOCKS)/tools.lock
	@touch $@

bench: install  ## measure speed beside a plain implementation of the same network
	$(BIN)/python benchmarks/bench.py

corpus: install  ## build the demonstration corpus from its sources
	$(BIN)/python corpora/build.py

clean:  ## remove what was installed and built, but no run
	rm -rf .venv .venv-tools .venv-lowest sbom.json build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
