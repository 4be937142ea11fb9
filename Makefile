# countermand: `make` lists the targets. Needs Python 3.11 or newer with its venv module, git and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
RUN_LOCK := .requirements/run.txt
DEV_LOCK := .requirements/dev.txt

# A stamp is named after what it stands for: the place of the checkout, because an environment does not survive being
# moved, and the content of a lock. While the name stays the same, nothing is set up again.
key = $(shell { pwd -P; cat $(1); } 2>/dev/null | cksum | tr ' ' '-')
VENV_STAMP := $(VENV)/.made-$(call key,/dev/null)
RUN_STAMP := $(VENV)/.ready-run-$(call key,$(RUN_LOCK))
PROJECT_STAMP := $(VENV)/.ready-project-$(call key,$(RUN_LOCK) pyproject.toml)
DEV_STAMP := $(VENV)/.ready-dev-$(call key,$(RUN_LOCK) $(DEV_LOCK))

INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-input
LOCKED := $(INSTALL) --require-hashes --no-deps
COMPILE := env -u UV_FIND_LINKS -u PIP_FIND_LINKS $(BIN)/uv pip compile --quiet --no-config --universal \
	--python-version 3.11 --generate-hashes --custom-compile-command "make lock" pyproject.toml --group build

# The prompt is data: taken as it was typed, without expanding a dollar in it, and handed on in the environment.
override PROMPT := $(value PROMPT)
export PROMPT

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
.PHONY: help run serve test demo cancels explore machine crash reconnects check lint types fmt bench lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/\1	\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='	' read -r name what; do \
		printf '  make %-10s %s\n' "$$name" "$$what"; done

run: $(PROJECT_STAMP)  ## answer one prompt in the terminal: make run PROMPT="…"
	@if [ -z "$$PROMPT" ]; then echo 'say what to do: make run PROMPT="…"' >&2; exit 2; fi; \
		exec $(BIN)/countermand run $(ARGS) -- "$$PROMPT"

serve: $(PROJECT_STAMP)  ## start the server; ARGS="…" for its options
	@exec $(BIN)/countermand serve $(ARGS)

test: $(PROJECT_STAMP) $(DEV_STAMP)  ## run the tests; ARGS="…" for pytest
	@$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal $(ARGS)

demo: $(PROJECT_STAMP) $(DEV_STAMP)  ## watch a mistake being found and mended over the HTTP API, in a repository made for it
	@$(BIN)/python -m tests.story $(ARGS)

cancels: $(PROJECT_STAMP) $(DEV_STAMP)  ## cancel that piece of work at every point of it; ARGS="--threads --notes --every n --first n"
	@$(BIN)/python -m tests.story.cancels $(ARGS)

explore: $(PROJECT_STAMP) $(DEV_STAMP)  ## play seeded schedules of the engine's races; ARGS="--count 100000 --jobs 2", ARGS="--seed 17 -v"
	@$(BIN)/python -m tests.explorer $(ARGS)

machine: $(PROJECT_STAMP) $(DEV_STAMP)  ## play clients of the whole service at random; ARGS="--examples 5000", ARGS="--seed 17"
	@$(BIN)/python -m tests.machine $(ARGS)

crash: $(PROJECT_STAMP) $(DEV_STAMP)  ## kill servers under load, 500 times, and check what they promised; ARGS="--kills n --seed n"
	@$(BIN)/python -m tests.crash $(ARGS)

reconnects: $(PROJECT_STAMP) $(DEV_STAMP)  ## cut off readers of event streams, 10,000 times; ARGS="--count n --seed n"
	@$(BIN)/python -m tests.crash.reconnects $(ARGS)

check: lint types  ## everything that needs no test run, then the house rules
	@$(BIN)/python -m pytest --quiet tests/test_house_rules.py

lint: $(PROJECT_STAMP) $(DEV_STAMP)  ## ruff, its formatter, flake8-async and the layers
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/flake8 engine web
	@report=$$($(BIN)/lint-imports --no-cache --no-logo 2>&1) || { printf '%s\n' "$$report"; exit 1; }

types: $(PROJECT_STAMP) $(DEV_STAMP)  ## mypy
	@$(BIN)/mypy

fmt: $(PROJECT_STAMP) $(DEV_STAMP)  ## format, and mend what ruff can mend
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

bench: $(PROJECT_STAMP) $(DEV_STAMP)  ## run the benchmarks; ARGS="name …" for some of them
	@$(BIN)/python -m bench $(ARGS)

lock: $(PROJECT_STAMP) $(DEV_STAMP)  ## resolve the dependencies anew; ARGS=--upgrade for newer versions
	@$(COMPILE) $(ARGS) --output-file $(RUN_LOCK)
	@$(COMPILE) $(ARGS) --extra dev --constraint $(RUN_LOCK) --output-file $(DEV_LOCK)
	@! grep -nE '://|^-' $(RUN_LOCK) $(DEV_LOCK)

clean:  ## remove the environment and everything generated
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov build *.egg-info
	@find engine web tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV_STAMP):
	@if [ -z "$(PYTHON)" ]; then echo 'countermand needs Python 3.11 or newer, and there is no python3 here.' >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "countermand needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make a virtual environment. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo 'setting up $(VENV) (once) …' >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(RUN_STAMP): | $(VENV_STAMP)
	@$(LOCKED) --requirement $(RUN_LOCK)
	@rm -f $(VENV)/.ready-run-*
	@touch $@

$(PROJECT_STAMP): | $(RUN_STAMP)
	@$(INSTALL) --no-build-isolation --no-deps --editable .
	@rm -f $(VENV)/.ready-project-*
	@touch $@

$(DEV_STAMP): | $(RUN_STAMP)
	@echo 'adding the development tools to $(VENV) (once) …' >&2
	@$(LOCKED) --requirement $(DEV_LOCK)
	@rm -f $(VENV)/.ready-dev-*
	@touch $@
