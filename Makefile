# `make run` and `make test` are all that a newcomer needs; both install what is missing by themselves.
.DEFAULT_GOAL := run
.PHONY: run demo test soak check lint bench screenshots reference lock setup clean

PYTHON := .venv/bin/python
SOAK := 100

run: setup ## hvtui on this machine; without a terminal, the host's overview
	@scripts/run $(ARGS)

demo: setup ## a simulated host of about thirty VMs
	@scripts/run --demo

test: setup ## every test, the real hypervisor's too (they need root)
	@$(PYTHON) -m pytest $(ARGS)

soak: setup ## a hundred random moves with random faults between three lab hosts (it needs root); SOAK=1000 makes more
	@HVTUI_SOAK=$(SOAK) $(PYTHON) -m pytest -q -s -n 0 $(ARGS) tests/lab/test_soak_lab.py

check: lint test ## everything that must hold before a change goes in

lint: setup
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

bench: setup ## the budgets, measured against virsh and virtui-manager: docs/benchmarks.md
	@$(PYTHON) -m bench

screenshots: setup ## screenshots/*.svg from the scenarios of the tests
	@$(PYTHON) scripts/screenshots.py

reference: setup ## docs/headless.md and docs/keys.md from the commands and actions themselves
	@$(PYTHON) scripts/headless_reference.py
	@$(PYTHON) scripts/keys_reference.py

lock: setup ## requirements.lock from pyproject.toml
	@scripts/lock

setup:
	@scripts/setup

clean: ## removes what the targets made in this directory; installed Debian packages stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
