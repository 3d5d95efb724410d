# One command each. `make demo` and `make test` set themselves up.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONFORMANCE := build/conformance

.PHONY: help demo test conformance check fmt bench powerbench twin day grid chaos policy lock golden clean
.DEFAULT_GOAL := help

help:           ## this list
	@grep -hE '^[a-z]+: .*##|^[a-z]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

# uv when it is there, venv and pip when it is not; the same pinned and hashed set either way.
$(STAMP): requirements.lock pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	  [ -x $(BIN)/python ] || uv venv --quiet --python $(PYTHON) $(VENV); \
	  uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock; \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
	  [ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	@touch $@

demo: $(STAMP)  ## a simulated hall, one grid cut, every part real; under 90 s
	@$(BIN)/interlock demo $(DEMO)

test: $(STAMP)  ## the promises
	@$(BIN)/python -m pytest $(TEST)

# The official suite and the Inspector, with the Node that they need; npm is all that must be there.
$(CONFORMANCE)/.installed: tests/conformance/package.json tests/conformance/package-lock.json
	@mkdir -p $(CONFORMANCE)
	@cp $^ $(CONFORMANCE)/
	@cd $(CONFORMANCE) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

conformance: $(STAMP) $(CONFORMANCE)/.installed ## the official MCP suite, both eras, and the Inspector
	@$(BIN)/python -m tests.conformance --modules $(CONFORMANCE)/node_modules

check: $(STAMP) ## format, lint, types, import contracts, golden lists
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy .
	@$(BIN)/lint-imports
	@$(BIN)/python tests/golden.py --check

fmt: $(STAMP)   ## format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(STAMP) ## speeds and ratios into reports/bench.json
	@$(BIN)/python -m interlock_evals.bench $(BENCH)

powerbench: $(STAMP) ## caps against the simple policies into reports/powerbench.json; POWERBENCH=--quick for a minute
	@$(BIN)/python -m interlock_evals.powerbench $(POWERBENCH)

twin: $(STAMP)  ## the plant against public numbers into reports/twin.json; needs INTERLOCK_DATA
	@$(BIN)/python -m interlock_evals.twin $(TWIN)

day: $(STAMP)   ## a simulated day of the lab, unattended, into reports/day.json; DAY="--cut 0.18" for another grid cut
	@$(BIN)/python -m interlock_evals.day $(DAY)

grid: $(STAMP)  ## what the grid may rely on, a third less in 30 s and a quarter less for 3 h, into reports/grid.json, and its settlement
	@$(BIN)/python -m interlock_evals.scenarios.grid_promises; held=$$?; \
	  $(BIN)/interlock settlement --config reports/grid-site/interlock.toml --method 10-of-10 --out reports/grid-settlement \
	  && exit $$held

chaos: $(STAMP) ## a million lies of the bus, then a thousand kills on each store; 25 minutes; reports/chaos*.json
	@$(BIN)/python -m interlock_evals.chaos.bus $(BUS)
	@$(BIN)/python -m interlock_evals.chaos $(CHAOS)

policy: $(STAMP) ## cases, every combination and mutants of the policy into reports/policy.json
	@$(BIN)/interlock policy test --report reports $(POLICY)

golden: $(STAMP) ## write again what a model sees of each server, and docs/tools.md (read the diff)
	@$(BIN)/python tests/golden.py --write

lock:           ## resolve requirements.lock again (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --quiet -o requirements.lock

clean:          ## remove what make made
	rm -rf $(VENV) build reports .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
