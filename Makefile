# make demo      design coolants end to end, results in runs/coolant
# make test      linters, types and the quick tests
# make test-all  the same with the slow tests
# make clean     forget the environment and every cache
#
# The first target that needs it builds .venv from the pinned versions in constraints.txt.
# To choose the interpreter:  make demo PYTHON=/path/to/python3.12

PYTHON  ?= python3.13 python3.12 python3.11 python3
WORKERS ?= 2

VENV    := .venv
BIN     := $(VENV)/bin
RUNTIME := $(VENV)/.installed-runtime
DEV     := $(VENV)/.installed-dev
RAY     := $(VENV)/.installed-ray
PYTEST   = $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The two constraints cover old and new pip: what is installed, and what builds the package.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all lint clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: $(RUNTIME)
	$(BIN)/bayesmat design examples/coolant.toml --out runs/coolant

test: lint
	$(PYTEST)

test-all: lint $(RAY)
	$(PYTEST) -m ""

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test test-all: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/.cache/jax
test test-all: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0.5
# Most programs of the quick tests run once: a third of the time that LLVM takes to better them is saved here.
test: export XLA_FLAGS ?= --xla_backend_optimization_level=1
# Two test processes share two cores; BLAS threads of both would fight over them.
test test-all: export OPENBLAS_NUM_THREADS = 1

clean:
	rm -rf $(VENV) .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache

# Each candidate is run, not only looked up: a pyenv shim exists for versions that are not active.
$(BIN)/python:
	@for python in $(PYTHON); do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null </dev/null; then \
	    echo "Creating $(VENV) with $$("$$python" -c 'import sys; print(sys.executable, sys.version.split()[0])')"; \
	    "$$python" -m venv --clear $(VENV) && exit 0; \
	    rm -rf $(VENV); exit 1; \
	  fi; \
	done; \
	echo "bayesmat needs Python 3.11 or later with the venv module; tried: $(PYTHON)." >&2; \
	echo "Install one (Debian: apt install python3 python3-venv) or say: make PYTHON=/path/to/python3.12" >&2; \
	exit 1

$(RUNTIME): $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing bayesmat into $(VENV)"
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(DEV): $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing bayesmat with its test tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(RUNTIME) $@

# A cluster's engine, for the slow tests alone.
$(RAY): $(DEV)
	@$(BIN)/python -m pip install --quiet --editable '.[dev,ray]'
	@touch $@
