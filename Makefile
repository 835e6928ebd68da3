# Every target sets up what it needs: `make demo` on a fresh machine is all there is to do first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= demo
PEERS := $(VENV)/.peers

export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: help setup demo test lint bench bench-search bench-search-short chaos chaos-short clean

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

setup: $(READY)  ## make the virtual environment with the tested versions

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; give it with: make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "the module venv is missing; install it (Debian: apt-get install python3-venv)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY)  ## run the main job: a study of the reference model, its front and its report
	@mkdir -p $(DEMO)
	$(BIN)/hpo launch quickstart --storage $(DEMO)/hpo.db --resume
	$(BIN)/hpo report quickstart --storage $(DEMO)/hpo.db --out $(DEMO)/quickstart.html --force
	@echo "the report is $(DEMO)/quickstart.html; browse with: $(BIN)/hpo dashboard --storage $(DEMO)/hpo.db"

test: $(READY)  ## run the tests, on two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY)  ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## measure the figures of benchmarks/ and write their tables
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks

# A peer that cannot be installed is left out of the races; installing is tried again the next time.
$(PEERS): $(READY)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --editable '.[dev,peers,bench]' && touch $(PEERS) || echo "some peers or matplotlib could not be installed"

bench-search: $(PEERS)  ## race our search and others, up to 2 hours, what is known already apart; FRESH=1: everything
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.search.bench $(if $(FRESH),--fresh)

bench-search-short: $(PEERS)  ## the same in 10 minutes, to see that it works; writes below build/
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.search.bench --short $(if $(FRESH),--fresh)

chaos: $(READY)  ## let everything fail at random moments and check that nothing is lost; HPO_CHAOS_MINUTES bounds it
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks nodes chaos faults
	HPO_STUDY_FILES=2000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/core/test_study_files_generated.py

chaos-short: $(READY)  ## four of those runs, some two minutes; writes below build/ and fails if anything is lost
	@mkdir -p build && rm -f build/faults.jsonl
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_faults --runs 4 --minutes 6 --strict --ledger build/faults.jsonl

clean:  ## remove the virtual environment and the demo
	rm -rf $(VENV) $(DEMO)
