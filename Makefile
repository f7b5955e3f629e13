# `make demo` and `make test` do all their set-up themselves; the only thing needed is Python 3.11 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEMO   ?= demo

.PHONY: help env demo test test-cluster check losses format clean
help:           ## what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 16

env: $(READY)   ## the environment: a virtual environment with the tested versions
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "isograft needs Python 3.11 or newer; set PYTHON=/path/to/it")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)  ## phantoms -> pretrain -> benchmark -> comparison table, five to nine minutes on two cores
	PATH="$(abspath $(BIN)):$$PATH" bash configs/demo.sh $(DEMO)

test: $(READY)  ## the whole test suite; tests that need real images find them by ISOGRAFT_DATA
	$(BIN)/python -m pytest -n 2 -m 'not cluster' tests

test-cluster: $(READY)  ## job tests on a real SLURM of two nodes, installed and started on this machine (Debian, root)
	bash tests/cluster/install.sh
	$(BIN)/python -m pytest -m cluster tests

check: $(READY) ## formatting, lint, types, layering
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layering.py

losses: $(READY) ## rewrite tests/golden/losses.json, the first losses of every method
	$(BIN)/python -m tests.golden.losses

format: $(READY) ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:          ## remove the environment, the demo and caches
	rm -rf $(VENV) $(DEMO) .pytest_cache .mypy_cache .ruff_cache
