# Every task sets up what it needs in .venv, on a machine that has only Python 3.11 or newer.
# `make help` lists the tasks. `PYTHON=… make …` chooses the Python.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test ci lint types imports units fmt golden hooks clean static-oldest
MAKEFLAGS += --no-builtin-rules --no-print-directory

# One thread: on a busy machine with few cores it is several times faster than more.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Relative, so that a space in the path of this folder does no harm.
PYTHON_HERE := .venv/bin/python
SOURCES := cnndsl grammars kernels
INSTALL := $(PYTHON_HERE) -m pip install --quiet --constraint constraints.txt

help: ## list the tasks
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)$$/make \1\t\2/p' Makefile | expand -t 20

# ── for users ────────────────────────────────────────────────────────────────────────────────────

# The demo's own folder is made anew: with the same seed, the same result each time.
demo: .venv/installed ## check, compile and train a network on real digits, in a minute or two
	@$(PYTHON_HERE) -m compileall -q $(SOURCES)
	.venv/bin/cnndsl check examples/digits.cnn
	@mkdir -p runs && rm -rf runs/digits
	.venv/bin/cnndsl compile examples/digits.cnn -o runs/digits.py
	.venv/bin/cnndsl train examples/digits.cnn --data digits --device cpu --out runs/digits
	@echo
	@echo "The program is .venv/bin/cnndsl. To call it cnndsl, activate its environment:"
	@echo "    . .venv/bin/activate"
	@echo "    cnndsl check examples/lenet.cnn"

# ── for developers ───────────────────────────────────────────────────────────────────────────────

test: lint types imports units ## everything that must pass: lint, types, import rules, tests

ci: ## the demo and the tests in a clean clone of the last commit, each twice
	@.ci/clean-clone

lint: .venv/installed-dev ## ruff: lint and layout
	$(PYTHON_HERE) -m ruff check
	$(PYTHON_HERE) -m ruff format --check

types: .venv/installed-dev ## basedpyright, strict
	$(PYTHON_HERE) -m basedpyright

imports: .venv/installed-dev ## import-linter: who may import whom
	.venv/bin/lint-imports

units: .venv/installed-dev ## the tests alone
	@$(PYTHON_HERE) -m compileall -q $(SOURCES)
	$(PYTHON_HERE) -m pytest -n 2

fmt: .venv/installed-dev ## lay the Python files out, and mend what ruff can mend
	$(PYTHON_HERE) -m ruff check --fix
	$(PYTHON_HERE) -m ruff format

golden: .venv/installed-dev ## write the files under tests/golden/ anew; read the diff before you commit it
	$(PYTHON_HERE) -m pytest -q -n 2 --golden

static-oldest: .venv/triton-3.6.0 ## compile all kernels offline with the oldest Triton: tables, and faults
	PYTHONPATH=$< $(PYTHON_HERE) -m tests.kernels.compile_all --table sm_80 sm_90 sm_100
	PYTHONPATH=$< $(PYTHON_HERE) -m tests.kernels.compile_all --table --free sm_80 sm_90 sm_100

hooks: .venv/installed-dev ## run lint and layout before each commit (git hook, through pre-commit)
	$(INSTALL) pre-commit
	.venv/bin/pre-commit install

clean: ## remove .venv and all caches; runs/ stays
	rm -rf .venv build dist ./*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(SOURCES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ── set-up ───────────────────────────────────────────────────────────────────────────────────────
# A stamp is as new as the files that decide what is installed; while it is, a task starts at once.
# Dependency groups need pip 25.1. In a folder that was moved, all is made anew.

ifneq ($(shell cat .venv/here 2>/dev/null),$(shell pwd))
.PHONY: .venv/installed
endif

.venv/installed: pyproject.toml constraints.txt .ci/venv
	@.ci/venv
	@echo "installing (about a minute, once)"
	@$(INSTALL) --upgrade pip setuptools
	@$(INSTALL) --no-build-isolation --editable '.[train]'
	@touch $@

# The compiler alone, beside the newer one: what it compiles with needs no other torch.
.venv/triton-3.6.0: .venv/installed-dev
	@$(PYTHON_HERE) -m pip install --quiet --no-deps --target $@ triton==3.6.0

.venv/installed-dev: .venv/installed
	@echo "installing the developers' tools"
	@$(INSTALL) --group dev
	@touch $@
