# make demo   set up and run every study at its smallest preset
# make test   lint, types, import law and tests: what continuous integration runs on Linux
# make test-slow   every measure on networks of other libraries, which it installs, and what else takes long

PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
# Where pip finds torch, if not in the default index; for instance the index of CPU builds.
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt
TORCH := torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

.PHONY: help setup demo test test-slow lint type imports unit fmt clean

help:
	@echo "demo     set up and run every study at its smallest preset"
	@echo "setup    create $(VENV) with everything for development"
	@echo "test     lint, type, imports, unit"
	@echo "test-slow   every measure on networks of other libraries, and what else takes long"
	@echo "lint     ruff check and ruff format --check"
	@echo "type     mypy --strict"
	@echo "imports  the import law"
	@echo "unit     pytest and doctests"
	@echo "fmt      format and fix what can be fixed"
	@echo "clean    remove $(VENV) and caches"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) $(TORCH)
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.foreign: $(VENV)/.dev
	$(PIP) -e '.[foreign]'
	@touch $@

setup: $(VENV)/.dev

demo: $(VENV)/.runtime
	$(BIN)/overparam run

test: lint type imports unit

test-slow: $(VENV)/.foreign
	$(BIN)/pytest -n auto --dist load -m slow tests

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

type: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

unit: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist loadfile -m "not slow"

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
