.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Exists only beside a complete installation; an interrupted one is thrown away and redone.
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
	--only-binary :all: --constraint constraints.txt

.PHONY: help demo test test-fast bench check format env clean

help: ## list what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## watch a run survive a crash, with everything on this machine
	@$(BIN)/runlane demo

# Many tests start processes, and each workflow loads its module anew: without compiled modules on
# disk a third of the time goes into compiling them.
unexport PYTHONDONTWRITEBYTECODE

# Most tests wait for a server or a clock, so more of them run than there are cores.
test: $(STAMP) ## every test, on real parts
	$(BIN)/pytest -n 3 --dist worksteal

test-fast: $(STAMP) ## the unit tests, in under a minute
	$(BIN)/pytest -n 2 -m "not slow" tests/unit

bench: $(STAMP) ## figures next to the plain ways, in half an hour; some: ONLY="memory week"
	@$(BIN)/python -m benchmarks $(ONLY) $(if $(JSON),--json "$(JSON)") $(if $(QUICK),--quick)

check: $(STAMP) ## style, strict types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## put the code into its style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

env: ## write .env with random secrets, for docker-compose.yml
	@sh deploy/env.sh

clean: ## remove what was installed, built and cached
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The builder is installed first, and used without isolation: pip would fetch an unpinned one.
$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "Runlane needs Python 3.11 or newer, and there is no '$(PYTHON)'. Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Runlane needs Python 3.11 or newer, and '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1). Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' comes without venv. Install it (Debian, Ubuntu: apt install python3-venv), then call again." >&2; exit 1; }
	@echo "Setting up $(VENV) with the versions pinned in constraints.txt (once; a minute or three) ..."
	@test -f $@ || "$(PYTHON)" -m venv --clear $(VENV)
	@rm -f $@
	@$(PIP) hatchling
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@
