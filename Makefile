# make demo: set up and run the digits study. make test: set up and run the tests. Needs Python 3.11 to 3.13 and git.
PYTHON ?= python3
VENV ?= .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)
# No telemetry.
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
# Packages are installed without bytecode; it is written at their first import.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint ui report setup lock

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(0 if ok else "edc needs Python 3.11 to 3.13; give one with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup ## the digits study: tables, figures, tracked runs and a page with all of them
	edc plan digits
	dvc repro
	edc report
	@echo 'Tables: results/tables. Page: results/report.html. Tracked runs: make ui'

test: setup ## all tests but the long ones
	python -m pytest -n auto -m 'not slow'

test-all: setup ## the long ones too
	python -m pytest -n auto

lint: setup ## style, types, import order, schemas
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	edc schema --check

report: setup ## results/ as one page
	edc report

ui: setup ## compare the tracked runs in the browser
	@echo 'Runs: http://127.0.0.1:5000/#/experiments?workflowType=machine_learning'
	mlflow ui --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}

lock: ## renew requirements.lock (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --extra dev --extra slurm pyproject.toml -o requirements.lock
