# make run: the whole workflow in a fresh clone. make test: the short tests. Both set up .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# dvc.yaml and the rules call `snakemake` and `python`: let them find this environment's.
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: compat histories kills help setup run train train-quick train-show-config train-sweep test test-all lint format \
  generated docs benchmark clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

setup: $(INSTALLED)  ## Create .venv with the exact versions of requirements.lock

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: setup  ## Run the workflow: smoke, tables, selection, long run, model, report
	snakemake
	@echo
	@echo "winner:  results/selected/selection.json"
	@echo "tables:  results/tables/summary.csv"
	@echo "model:   results/model/"
	@echo "report:  results/report.html"

TRAIN = python -m heteromark.training.factory_train
SWEEP = optimizer.learning_rate=1e-4,3e-4,1e-3

train: setup  ## Train what config/ composes, e.g. ARGS="--config-name=happo_config seed=1"
	$(TRAIN) $(ARGS)

train-quick: setup  ## The same, a few iterations
	$(TRAIN) +experiment=quick_test $(ARGS)

train-show-config: setup  ## Print the composed config
	$(TRAIN) --cfg job --resolve $(ARGS)

train-sweep: setup  ## Train every combination, e.g. ARGS="loss_type=happo,mappo seed=0,1"
	$(TRAIN) --multirun $(if $(ARGS),$(ARGS),$(SWEEP))

# Tests start hundreds of processes, each of which would compile heteromark.
unexport PYTHONDONTWRITEBYTECODE

# More workers than cores: tests of the workflow wait much of their time for other processes.
PYTEST = python -m pytest -n 3 --dist worksteal -rs

test: setup  ## Show that the product works: the short tier of the tests
	$(PYTEST) -m "not slow and not compat"

test-all: setup  ## Run every test, except those that need packages of other environments
	$(PYTEST) -m "not compat"

compat: setup  ## Install the packages of other environments, and train in each of them
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint requirements.lock \
	  --editable ".[compat]"
	$(PYTEST) -m compat

N ?= 20
histories: setup  ## Play N random histories of a project and look for stale results: make histories N=500
	HISTORIES=$(N) python -m pytest -n 2 -vv -rs tests/workflow/test_histories.py

kills: setup  ## Kill trainings at N random moments and compare their results: make kills N=100
	PYTHONPATH=.:tests python tests/training/kills.py --kills $(N)

lint: setup  ## Check style and types
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	mypy

docs: setup  ## Build the documentation site into site/; ARGS=serve: show it while you write
	NO_MKDOCS_2_WARNING=1 mkdocs $(if $(ARGS),$(ARGS),build)

format: setup  ## Apply the style
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

generated: setup  ## Write config/schema/ from the models and docs/dag.svg from the plan
	python -m heteromark.config.models.json_schema
	python -m heteromark workflow picture docs/dag.svg

benchmark: setup  ## Measure the workflow's own speed
	python benchmarks/workflow.py

clean:  ## Remove results, outputs and logs; the run store and DVC's cache keep what was trained
	rm -rf results logs outputs site
