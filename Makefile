# Every target works in .venv, which is made from the lock file at first need.
SHELL := /bin/bash
# which Python makes .venv; left empty, tools/make-venv chooses
PYTHON ?=
VENV := .venv
# every process of the tests would compile all modules again
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo check lint type test test-quick bench lock translations clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUNTIME)  ## set everything up and start the bridge with a demo portal and demo partners
	@echo "Starting the demo; what it keeps is in instance-demo/."
	@$(BIN)/saml-bridge demo

check: lint type test  ## what CI runs: lint, types, all tests

lint: $(DEV)  ## style, common mistakes, and the layers of rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

type: $(DEV)  ## static types
	$(BIN)/mypy

test: $(DEV) system-packages  ## all tests, on SQLite and PostgreSQL, in a real browser
	$(BIN)/pytest -n 3 --dist worksteal

test-quick: $(DEV)  ## the tests without a browser and PostgreSQL, for the work between
	$(BIN)/pytest -n 3 --dist worksteal -m "not browser and not postgresql"

bench: $(DEV) system-packages  ## what a launch costs, in multiples of a raw RSA-2048 signature
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.introspection
	$(BIN)/python -m tests.bench.portal
	$(BIN)/python -m tests.bench.signed_link
	$(BIN)/python -m tests.bench.oidc
	$(BIN)/python -m tests.bench.commands

lock: $(DEV)  ## resolve the newest versions into the lock files
	$(PIP) install uv
	$(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate --allow-unsafe requirements/runtime.in -o requirements/runtime.lock
	$(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate --allow-unsafe requirements/dev.in -o requirements/dev.lock

translations: $(DEV)  ## compile the payer's texts after a change to messages.po
	$(BIN)/pybabel compile -d saml_bridge/web/translations
	$(BIN)/pybabel compile -d saml_bridge/demo/translations

clean:  ## remove the environment and everything that was built; keys and data stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@tools/make-venv "$(PYTHON)" $(VENV)

$(RUNTIME): requirements/runtime.lock setup.cfg | $(BIN)/python
	@test -e $(DEV) || echo "Installing what saml_bridge needs into $(VENV): half a minute or more, this once."
	@test -e $(DEV) || $(PIP) install --require-hashes -r requirements/runtime.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements/dev.lock setup.cfg | $(BIN)/python
	@echo "Installing what saml_bridge and its tests need into $(VENV): a minute or more, this once."
	@$(PIP) install --require-hashes -r requirements/dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(RUNTIME) $@

.PHONY: system-packages
system-packages:
	@tools/install-system-packages
