# Every command creates the environment it needs: a fresh machine wants Python 3.11 to 3.13 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
DEBIAN := postgresql redis-server

.PHONY: help demo servers test check format clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --editable ".[test,check,quantize]" --constraint constraints.txt
	@touch $(STAMP)

demo: $(STAMP) ## train B-LoRAs from real pictures, draw every combination, score them (CPU, no server, no bucket)
	$(BIN)/blora run manifests/examples/demo.yaml --root $(DEMO)

servers: ## for some tests: Postgres and Redis, from Debian (as root); without them, those tests are skipped
	apt-get update --quiet --quiet
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends $(DEBIAN)

test: $(STAMP) ## the whole test suite, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 40

check: $(STAMP) ## lint, format and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## drop the environment, the demo's store and every cache
	rm -rf $(VENV) $(DEMO) .mypy_cache .ruff_cache .pytest_cache .hypothesis
