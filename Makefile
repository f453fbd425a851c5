# `make setup` creates .venv; the others depend on it. DEMO_ARGS and PYTEST_ARGS pass arguments through.
SHELL := bash
.DELETE_ON_ERROR:
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
STAMP := $(VENV)/.ratchet-setup
PYTEST := $(BIN)/python -m pytest
LOCKS := requirements/build.lock requirements/cpu.lock requirements/cuda.lock requirements/model.lock

.PHONY: setup demo test test-fast test-engines test-faults test-clients lint format bench docs lock clean

setup: $(STAMP)

$(STAMP): requirements/install.sh $(LOCKS) pyproject.toml
	requirements/install.sh $(VENV)
	touch $@

demo: setup
	$(BIN)/ratchet demo $(DEMO_ARGS)

test: setup
	$(PYTEST) $(PYTEST_ARGS)

test-fast: setup
	$(PYTEST) -m "not real and not slow" $(PYTEST_ARGS)

# SGLang and LMDeploy are not built yet: their adapters do not exist, so only vLLM's contract is tested here.
test-engines: setup
	@echo "test-engines: vLLM only; SGLang and LMDeploy are not built yet"
	$(PYTEST) tests/contracts $(PYTEST_ARGS)

test-faults: setup
	RATCHET_FAULTS=full $(PYTEST) tests/chaos $(PYTEST_ARGS)

# A stranger's script in an environment that holds the openai package and nothing of ours. Other clients' suites are not built yet.
test-clients: setup $(CLIENTS)/.ratchet-setup
	RATCHET_CLIENT_PYTHON=$(CURDIR)/$(CLIENTS)/bin/python $(PYTEST) tests/e2e/test_up.py $(PYTEST_ARGS)

$(CLIENTS)/.ratchet-setup: requirements/clients.lock
	$(BIN)/python -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements/clients.lock
	touch $@

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Writes docs/benchmarks.md. One script: make bench BENCH=fidelity BENCH_ARGS="--count 200"
BENCH ?= capture fidelity durability demo_seeds
bench: setup
	set -e; for script in $(BENCH); do $(BIN)/python bench/$$script.py $(BENCH_ARGS); done

docs: setup
	$(BIN)/python docs/generate.py

lock: setup
	requirements/lock.sh $(BIN)/uv

clean:
	rm -rf $(VENV) $(CLIENTS) build dist
