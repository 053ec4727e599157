# Two commands do everything on a fresh machine with Python 3.11 to 3.13: `make reproduce` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup test test-all browser reproduce published lab lock clean

bin := .venv/bin
# Where Python may keep no bytecode, every process compiles torch anew: ten seconds for each of hundreds.
unexport PYTHONDONTWRITEBYTECODE
fits := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed ## make the environment in .venv (again only when requirements.lock has changed)

test: setup ## lint, types, import rules and all tests but the slow ones (about 13 minutes on two cores)
	$(bin)/ruff check
	$(bin)/ruff format --check
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(bin)/pyright
	$(bin)/lint-imports
	$(bin)/pytest -n 2 --dist loadfile

test-all: test ## the same, then the slow tests
	$(bin)/pytest -m slow

browser: setup ## install Chromium and Playwright where they are missing; then the panels and notebooks in a real browser
	@$(bin)/python -c 'import playwright' 2> /dev/null || PATH="$$PATH:$(bin)" uv pip install --quiet --python $(bin)/python -e '.[browser]' 2> /dev/null \
	    || $(bin)/python -m pip install --quiet -e '.[browser]'
	@type chromium chromium-browser google-chrome 2> /dev/null | grep -q . || [ -n "$$IFTTN_CHROMIUM" ] \
	    || { [ "$$(id -u)" = 0 ] && type apt-get &> /dev/null && apt-get update -qq && apt-get install -y -qq chromium; } \
	    || { echo 'no Chromium: install the package chromium, or let IFTTN_CHROMIUM name the file of one' >&2; exit 1; }
	$(bin)/pytest -m slow -rs tests/browser

reproduce: setup ## the whole study and its report in results/ (about 45 minutes; QUICK=1: Table 3 and the figures, 16 minutes)
	$(bin)/ifttn reproduce $(if $(filter-out 0,$(QUICK)),--quick)

published: setup ## make the published run (ifttn/published) anew from the study in results/
	$(bin)/python -m ifttn.experiment.published results

# Subshells lose clicks on widgets ("Unknown subshell_id"): comms go through the main shell, which no panel blocks.
# The page asks no other machine for news. Its root is this folder: the report that a notebook links to opens beside it.
lab: setup ## open JupyterLab on the first notebook
	@mkdir -p .venv/share/jupyter/lab/settings
	@echo '{"@jupyterlab/apputils-extension:kernels-settings": {"commsOverSubshells": "disabled"},' \
	    '"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' \
	    > .venv/share/jupyter/lab/settings/overrides.json
	$(bin)/jupyter lab --ServerApp.root_dir='$(CURDIR)' --LabApp.default_url=/lab/tree/notebooks/0_start_here.ipynb \
	    $(if $(filter 0,$(shell id -u)),--allow-root)

lock: setup ## write requirements.lock anew from pyproject.toml, keeping every version that still fits
	PATH="$$PATH:$(bin)" uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --all-extras \
	    --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

clean: ## remove the environment and what the tools leave; data, stores, runs and results stay
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find ifttn lab tests notebooks -name __pycache__ -prune -exec rm -rf {} +

# Every candidate is run, not only looked up: a shim of pyenv may be on the PATH and fail.
$(bin)/python:
	@for python in python3.13 python3.12 python3.11 python3 python; do \
	    if $$python -c '$(fits)' 2> /dev/null; then echo "$$python makes .venv"; exec $$python -m venv --clear .venv; fi; \
	done; \
	if uv --version &> /dev/null; then exec uv venv --seed --clear --python '>=3.11,<3.14' .venv; fi; \
	echo 'ifttn needs Python 3.11, 3.12 or 3.13 with its modules venv and ensurepip, or uv: none is on the PATH' >&2; \
	exit 1

# uv takes a minute where pip takes several. It is on the PATH, or comes from the index, or pip must do.
.venv/installed: requirements.lock pyproject.toml | $(bin)/python
	@PATH="$$PATH:$(bin)"; \
	uv --version &> /dev/null || $(bin)/python -m pip install --quiet --disable-pip-version-check uv \
	    || echo 'uv cannot be had: pip installs instead' >&2; \
	if uv --version &> /dev/null; then install='uv pip install --python $(bin)/python'; \
	else install='$(bin)/python -m pip install'; fi; \
	$$install -r requirements.lock -e .
	@touch $@
