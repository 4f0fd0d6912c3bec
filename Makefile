# `make demo` and `make test` are all a newcomer needs: each sets up what is missing and goes.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test test-everywhere lint fmt docs docs-serve pins chromium node chaos simulate clean bench
help:  ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --upgrade 'pip>=25.1'

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --group dev --editable '.[cli,prices,postgres]'
	@touch $@

$(DEMO_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[cli]'
	@touch $@

demo: $(DEMO_STAMP)  ## Serve the demo and say what to try; PORT=... chooses the port
	@AUTUMN_EMULATOR=$${AUTUMN_EMULATOR:-true} $(BIN)/python -m demo_app

lint: $(STAMP)  ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(STAMP)  ## Format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(STAMP) chromium node  ## Run every test, and on further Pythons what moves credits
	$(BIN)/python scripts/run_tests.py --briefly

test-everywhere: $(STAMP) chromium node  ## The same with coverage, under uvloop, all on each Python found, and on the oldest dependencies
	$(BIN)/python scripts/run_tests.py

# The tests of the demo's page drive it. Playwright's own download would be another 150 MB and another source.
chromium:
	@test -x /usr/bin/chromium || { test "$$(id -u)" = 0 && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  { echo 'The browser tests need /usr/bin/chromium: install the package chromium.' >&2; exit 1; }

# The tests of the official clients get atmn and autumn-js with it.
node:
	@command -v npm >/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null; } || \
	  { echo 'The tests of the official clients need Node.js 20 or newer, with npm: install it.' >&2; exit 1; }

docs-serve: docs  ## Show the documentation on http://localhost:8001
	@$(BIN)/python -m http.server 8001 --bind 127.0.0.1 --directory site

docs: $(STAMP)  ## Build the documentation into site/; a broken link is an error
	$(BIN)/zensical build --clean --strict

pins:  ## Renew constraints.txt from a clean environment
	$(PYTHON) -m venv --clear $(VENV)-pins
	$(VENV)-pins/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VENV)-pins/bin/python -m pip install --quiet --group dev '.[cli,prices,postgres]'
	$(VENV)-pins/bin/python -m pip freeze --exclude fastapi-autumn > constraints.txt
	rm -rf $(VENV)-pins

bench: $(STAMP)  ## Measure everything side by side, with Node, and write bench/RESULTS.md (20 minutes)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	npm ci --prefix bench/node --no-audit --no-fund
	$(BIN)/python -m bench.run

chaos: $(STAMP)  ## Kill, pause and cut off real processes for 30,000 calls, then audit the books (half an hour)
	PYTHONPATH=tests $(BIN)/python -W ignore -m chaos.run

SEEDS ?= 1000
simulate: $(STAMP)  ## Play SEEDS scenarios of the simulated world, new ones each time, and audit the books of each
	PYTHONPATH=tests $(BIN)/python -W ignore -m simulation --layer lean --seeds $(SEEDS)
	PYTHONPATH=tests $(BIN)/python -W ignore -m simulation --layer full --seeds $$(( $(SEEDS) / 20 ))

clean:  ## Remove what make made
	rm -rf $(VENV) $(VENV)-* .autumn .interop .coverage* dist site
