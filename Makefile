.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PROCESSES ?= 2
SEED ?=
ORDER := $(if $(SEED),--seed $(SEED))

.PHONY: help install run test check format lint types imports schema bench guard-baseline graphiql lock lowest wheel clean

help: ## Show this page
	@awk -F':.*## ' '/^[a-z_-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The lock pins every package by hash; the project itself is installed in place, without looking anything up.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "atomo_gql needs Python 3.11 or later; name one: make PYTHON=python3.12 install")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(STAMP) ## Make .venv with the service, the worker SDK and all tools

run: install ## Install, start everything and watch a first job run (Ctrl-C ends it)
	$(BIN)/atomo-gql dev

# What kills or replaces servers under load, and what counts instructions, wants the machine for itself; the rest runs side by side.
# SEED=7 runs them in another order, the same again for the same number.
test: install ## Run all tests, on an embedded PostgreSQL or on DATABASE_URL
	$(BIN)/python -m pytest -m "not chaos and not guard and not upgrade" -n $(PROCESSES) --dist loadfile $(ORDER)
	$(BIN)/python -m pytest -m "chaos or guard or upgrade" $(ORDER)

check: install ## The one gate: format, lint, types, imports, schema, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/atomo-gql schema | diff -u schema.graphql -
	@$(MAKE) --no-print-directory test

format: install ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: install ## Print the GraphQL schema into schema.graphql
	$(BIN)/atomo-gql schema > schema.graphql

bench: install ## Measure this machine: rates, and their ratios to a reference in the same run
	$(BIN)/atomo-gql bench

guard-baseline: install ## Take what the hot paths cost now as what they may cost (tests/guard)
	$(BIN)/python -m tests.guard

graphiql: ## Build the GraphiQL page into the package (needs Node.js)
	cd web/graphiql && npm ci --silent && npm run --silent build

lowest: install ## Try the lowest versions that pyproject.toml admits
	.ci/lowest

wheel: install ## Build the wheel and try it away from this folder
	.ci/wheel

lock: ## Pin every dependency by hash (needs uv, which make install brings)
	PATH="$(CURDIR)/$(BIN):$$PATH" uv pip compile --quiet --no-emit-index-url --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --extra server --group dev pyproject.toml -o requirements.lock

clean: ## Remove what the other targets made
	rm -rf .venv .venv-lowest dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache
