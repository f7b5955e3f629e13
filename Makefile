# `make demo` and `make test` create their own environment. Only Python 3.11 or newer is needed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DOCS   := $(VENV)/.docs
DEMO   ?= demo
# `make env HASHES=yes` installs only files whose hashes are in requirements.lock (Linux on x86-64, Python 3.11 to 3.13).
HASHES ?=
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help env demo test test-slow fuzz test-cluster test-gpu test-gpu-dry bench check audit lock losses tables format docs clean
help:           ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 16

env: $(READY)   ## create the virtual environment with the tested versions
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "isograft needs Python 3.11 or newer; set PYTHON=/path/to/it")'
	$(PYTHON) -m venv $(VENV)
ifneq ($(HASHES),)
	grep -A9 '^setuptools==' requirements.lock | sed '/[^\\]$$/q' > $(VENV)/setuptools.lock
	$(PIP) install --quiet --require-hashes --no-deps --only-binary :all: -r $(VENV)/setuptools.lock
	$(PIP) install --quiet --require-hashes --no-deps --no-build-isolation -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	$(PIP) check
else
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
endif
	touch $@

demo: $(READY)  ## phantoms -> pretraining -> benchmark -> report; one to five minutes on two cores
	PATH="$(abspath $(BIN)):$$PATH" bash configs/demo.sh $(DEMO)

test: $(READY)  ## run the test suite; tests on real images look for them in ISOGRAFT_DATA
	$(BIN)/python -m pytest -n 2 -m 'not cluster and not long' tests

test-slow: $(READY) ## kill runs of every method twenty times, break every write of every command, let two processes write the same
	$(BIN)/python -m pytest -n 2 -m long tests

fuzz: $(READY)  ## give every reader 10000 mutated inputs of each class and print how they end; classes in ARGS, e.g. ARGS="store npz"
	FUZZ_INPUTS=$${FUZZ_INPUTS:-10000} OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(ARGS)

test-cluster: $(READY)  ## run the job tests on a two-node SLURM, installed and started on this machine (Debian, root)
	bash tests/cluster/install.sh
	$(BIN)/python -m pytest -m cluster tests

test-gpu: $(READY)  ## check every path of a GPU against the CPU and measure its speed; needs a GPU; options in ARGS
	$(BIN)/python -m tests.gpu $(ARGS)

test-gpu-dry: $(READY)  ## the same on a CPU at tiny sizes, with the code path of a GPU forced
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.gpu --dry --out $${TMPDIR:-/tmp}/isograft-gpu-dry.json $(ARGS)

bench: $(READY) ## measure speed against what a user would use instead: one table; rows in ARGS, e.g. ARGS="knn loops", ARGS=growth
	$(BIN)/python -m tests.perf.bench $(ARGS)

check: $(READY) ## check formatting, lint, types and layering
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layering.py

audit: $(READY) ## compare the installed versions with published vulnerabilities; installs pip-audit and asks its database
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

lock: $(READY)  ## rewrite requirements.lock, the hashes of the files of constraints.txt
	$(BIN)/python -m tests.requirements_lock

losses: $(READY) ## rewrite tests/golden/losses.json, the first losses of every method
	$(BIN)/python -m tests.golden.losses

tables: $(READY) ## rewrite the tables of README and docs that list methods, protocols, shifts and sources
	$(BIN)/python -m tests.doc_tables

format: $(READY) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DOCS)   ## build the documentation as a website in site/, in strict mode
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(DOCS): $(READY)
	$(PIP) install --quiet -c constraints.txt -e '.[docs]'
	touch $@

clean:          ## remove the environment, the demo, the website and caches
	rm -rf $(VENV) $(DEMO) site .pytest_cache .mypy_cache .ruff_cache
