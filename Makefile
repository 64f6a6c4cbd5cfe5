# Every developer command. A fresh machine needs nothing before `make demo` or `make test`.
VENV ?= .venv
PYTHON ?= python3

BIN := $(VENV)/bin
DEMO_STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
BENCH_STAMP := $(VENV)/.installed-bench
# Python compiles a module when it is first imported: a demo imports few, and pip would compile all on one core.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt
INSTALL_INPUTS := setup.py pyproject.toml constraints.txt

.PHONY: demo test test-slow lint types bench parity check
.DEFAULT_GOAL := check

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(DEMO_STAMP): $(INSTALL_INPUTS) | $(BIN)/python
	$(INSTALL) -e .
	touch $@

$(TEST_STAMP): $(INSTALL_INPUTS) | $(BIN)/python
	$(INSTALL) -e ".[test,hf,sweep,tpu,lm-eval,wandb,mlflow]"
# Tests take warnings for errors, such as those that compiling other people's modules gives. Some are of other Pythons.
	$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || :
	touch $@ $(DEMO_STAMP)

$(BENCH_STAMP): $(INSTALL_INPUTS) | $(BIN)/python
	$(INSTALL) -e ".[hf]"
	touch $@ $(DEMO_STAMP)

demo: $(DEMO_STAMP)
	$(BIN)/prompt-tuning demo

test: $(TEST_STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not tpu and not gpu"

test-slow: $(TEST_STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "slow and not tpu and not gpu"

lint: $(TEST_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# What is checked is named in pyproject.toml.
types: $(TEST_STAMP)
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(BENCH_STAMP)
	$(BIN)/python -m prompt_tuning.launch.benchmarks.speed

# Any other folder of reference numbers: make parity GOLDEN=/path/to/folder
GOLDEN ?= tests/golden
parity: $(TEST_STAMP)
	$(BIN)/python tests/golden/check.py $(GOLDEN) --format=table --huggingface

check: lint types test
