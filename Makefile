# Everything a person does here. `make` alone lists the targets.

# Python for the environment: `make demo PYTHON=python3.12` takes another one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-quick lint format demo-model bench reproduce reproduce-full studio clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

venv: $(VENV)/.dev ## Make .venv with pinned versions of everything, for development

demo: $(VENV)/.demo ## Reconstruct the missing modality of a sample with the embedded model
	@$(BIN)/omg run --input examples/sample.pkl

# A worker for each core, and one thread in each: more of them would wait for each other.
test test-quick: export OMP_NUM_THREADS ?= 1
WORKERS ?= auto
# A file to a worker, the longest ones first (tests/conftest.py names them).
SPREAD := --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev ## Run all tests (PYTEST_ARGS='-k retriever' narrows them, WORKERS=0 runs them in one process)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) $(SPREAD) $(PYTEST_ARGS)

test-quick: $(VENV)/.dev ## Run the tests that take less than half a minute each
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) $(SPREAD) -m "not slow" $(PYTEST_ARGS)

lint: $(VENV)/.dev ## Check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Put the code into the house's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

demo-model: $(VENV)/.demo ## Train the embedded model anew on simulated data (minutes; the same from the same seed)
	$(BIN)/python -m omg_graph.embedded.build

bench: $(VENV)/.dev ## Measure start-up, latency node by node, and memory on this machine
	@$(BIN)/python benchmarks/latency.py

reproduce: $(VENV)/.dev ## Run every study in small, to see that all of it runs (OMG_DATA names the data sets' folder)
	@$(BIN)/python benchmarks/reproduce.py $(REPRODUCE_ARGS)

reproduce-full: $(VENV)/.dev ## Run every study in full and write docs/results.md: hours; it goes on where it was cut off
	@$(BIN)/python benchmarks/reproduce.py --full $(REPRODUCE_ARGS)

studio: $(VENV)/.dev ## Serve the graphs over HTTP, to programs and to LangGraph Studio (docs/studio.md)
	@$(BIN)/langgraph dev

clean: ## Remove caches and build products; .venv and results stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Stamps, so that a second run starts at once. PyTorch has one of its own: it is by far the largest.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later was expected, $$($(PYTHON) --version 2>&1) came:" \
	  "name another one, as in make demo PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) can't make virtual environments:" \
	  "install its venv module (python3-venv on Debian and Ubuntu)" >&2; exit 2; }
	@touch $@

$(VENV)/.torch: $(VENV)/.python constraints.txt
	@echo "Installing $(TORCH) into $(VENV): about a minute, more for a CUDA build" >&2
	@$(PIP) $(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@echo "Installing omg-graph with its text encoder: about two minutes, 2 GB in all" >&2
	@$(PIP) $(TORCH) --editable '.[offline]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "Installing omg-graph with its text encoder and tools: about two minutes, 2 GB in all" >&2
	@$(PIP) $(TORCH) --editable '.[offline,dev]'
	@touch $@ $(VENV)/.demo
