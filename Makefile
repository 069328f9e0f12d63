# make demo: set up and run the main job. make test: set up and run the tests. Needs Python 3.11 to 3.13 and git.
PYTHON ?= python3
VENV ?= .venv
# More for Snakemake; FLAGS=--forceall makes the demo's results anew.
FLAGS ?=
export PATH := $(abspath $(VENV))/bin:$(PATH)
# Nothing phones home.
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
# Installed without bytecode, packages keep it from their first import on: a hundred runs that compile PyTorch's sources
# anew each time take a minute longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast lint ui report setup lock

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(0 if ok else "edc needs Python 3.11 to 3.13; give one with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup ## the digits study: finished tables, pictures, tracked runs and a page with all of them
	edc plan digits
	snakemake --quiet rules --cores all --resources gpu=4 $(FLAGS)
	edc track
	cat results/tables/table1.md
	@echo 'Tables: results/tables. Pictures: results/synthesize/*/contact_sheet.png. Runs: make ui'
	edc report

test: setup ## all tests
	python -m pytest -n auto --dist loadgroup

test-fast: setup ## without those that run whole stages
	python -m pytest -n auto -m 'not slow'

lint: setup ## style and types
	ruff check .
	ruff format --check .
	mypy

report: setup ## everything in results/ as one page
	edc report

ui: setup ## compare the tracked runs in the browser
	mlflow ui --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}

lock: ## renew requirements.lock (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --extra dev pyproject.toml -o requirements.lock
