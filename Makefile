# What people do here, by name. Needs Python 3.11 or newer (with venv) and make, as root or not; the
# virtual environment makes itself and is made again whenever requirements.lock changes.

PYTHON ?= python3
VENV := .venv
# Names the environment's content: the lock, the project's own metadata, and where it stands.
KEY := $(shell (cat requirements.lock pyproject.toml; pwd; $(PYTHON) --version) 2>&1 | sha256sum | cut -c1-16)
READY := $(VENV)/ready.$(KEY)
IN := $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore
# Tests start hundreds of processes: what they import is compiled once, whatever the shell says.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help demo test check bench compose-test verifiers mutations lock clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## the main job end to end on embedded servers; about half a minute, exit 0
	@$(IN)/noticebus demo

test: $(READY) ## every test that needs no Docker engine
	$(IN)/python -m pytest -m "not compose" --numprocesses 3 --dist loadfile --no-loadscope-reorder

check: $(READY) ## what to run before each commit: linters, types, floors, unit and contract tests
	$(IN)/python -m pytest tests/house tests/docs tests/unit tests/contract

bench: $(READY) ## speed and memory, as JSON and a small table
	$(IN)/python -m tests.benches

compose-test: $(READY) ## the real services in containers, killed and restarted in the middle
	@docker info >/dev/null 2>&1 || { echo "make compose-test needs a running Docker engine with the compose plugin: 'docker info' failed" >&2; exit 1; }
	$(IN)/python -m pytest -m compose --timeout 1200 tests/compose

verifiers: $(READY) ## sixteen tools that nobody here wrote, on what two agencies made and on spoilt copies
	$(IN)/python -m tests.verifiers

mutations: $(READY) ## 20,000 random changes of what is kept as evidence, each found and named; about half an hour
	$(IN)/python -m tests.faults.mutations

# Pins follow pyproject.toml; the image's lock is the part of the same pins that runs in production.
LOCK_OPTIONS := --quiet --python-version 3.11 --universal --generate-hashes --no-header --no-emit-index-url
lock: ## choose the newest versions pyproject.toml allows and pin them (needs uv)
	uv pip compile $(LOCK_OPTIONS) --upgrade --extra build --extra embedded --extra dev pyproject.toml --output-file requirements.lock
	uv pip compile $(LOCK_OPTIONS) --upgrade --constraint requirements.lock --extra build pyproject.toml --output-file requirements.image.lock

clean: ## remove the environment, caches and the demo's home
	rm -rf $(VENV) .noticebus .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find schemas services tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("noticebus needs Python 3.11 or newer; this is " + sys.version.split()[0] + " (try make PYTHON=python3.11 ...)")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) from requirements.lock (once, about half a minute)" >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@$(IN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	@$(IN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@$(IN)/python -m pip check --quiet
	@touch $@
