# The commands of this repository. Each sets up what it needs in .venv; `make demo` and `make test` are all a
# newcomer has to know.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_CAMPAIGN := examples/polarizability.yaml

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types check bench clean

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# A stamp per set of extras: installing again only when what is installed was changed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "pilotwave needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1); set PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	@touch $@

demo: $(VENV)/.installed-demo  ## Run the main job: polarizable molecules, xTB, Ray, trust-direct.
	$(BIN)/pilotwave run $(DEMO_CAMPAIGN)

test: check  ## Lint, type-check, and run the tests that take less than 15 minutes.
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-all: check  ## The same with the slow tests.
	$(BIN)/python -m pytest

check: lint types

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check platform actors oracles tests benchmarks
	$(BIN)/ruff format --check platform actors oracles tests benchmarks

types: $(VENV)/.installed-dev
	$(BIN)/mypy

bench: $(VENV)/.installed-dev  ## Measure what benchmarks/RESULTS.md states.
	$(BIN)/python benchmarks/surrogate.py --write
	$(BIN)/python benchmarks/models.py molecule --record
	$(BIN)/python benchmarks/models.py druglike --record
	$(BIN)/python benchmarks/models.py image --record
	$(BIN)/python benchmarks/image_quality.py --record
	$(BIN)/python benchmarks/demo.py --write
	$(BIN)/python benchmarks/numerical.py --record
	$(BIN)/python benchmarks/asynchronous.py --record
	$(BIN)/python benchmarks/archive.py --record
	$(BIN)/python benchmarks/archive_store.py --record
	$(BIN)/python benchmarks/quantum_chemistry.py --record
	$(BIN)/python benchmarks/judges.py
	$(BIN)/python benchmarks/ready_queue.py --record
	$(BIN)/python benchmarks/runtime.py --record
	$(BIN)/python benchmarks/scale.py --record
	$(BIN)/python benchmarks/chaos.py bench/chaos --record
	for name in analytic analytic-noise analytic-failures settings images images-policies images-others \
	  molecules molecules-policies molecules-others; do \
	  $(BIN)/python benchmarks/comparisons.py $$name --record || exit 1; done

clean:  ## Remove the virtual environment and caches; runs are kept.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
