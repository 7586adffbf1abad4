# Everything from a fresh clone: Python 3.11 or later and make are all it takes.
# The virtual environment in .venv is made on the way, and again when the requirements change.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTHONS := $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python

.DEFAULT_GOAL := help
.PHONY: help run test check format coverage chaos fuzz audit clean

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

run: $(VENV)/installed ## Start everything here: Redis, the orchestrator on port 8001, the demo agents
	@exec $(BIN)/python run.py $(ARGS)

test: $(VENV)/installed-dev ## Run all tests, side by side; ARGS="-k word" for some
	@.ci/javascript-tests
	@.ci/python-tests $(ARGS)

check: $(VENV)/installed-dev ## Lint, format, strict types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict .

format: $(VENV)/installed-dev ## Format, and repair what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

coverage: $(VENV)/installed-dev ## Which branches of actors/ and common/ the tests take
	REQUIRE_ALL_TESTS=1 $(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage report --fail-under=95

chaos: $(VENV)/installed ## Ten minutes of faults and a checker; ARGS="--minutes 2 --seed 1"
	$(BIN)/python -m benchmarks.chaos $(ARGS)

fuzz: $(VENV)/installed ## Generated input against a real service; ARGS="--inputs 10000 --seed 1"
	$(BIN)/python -m benchmarks.fuzz $(ARGS)

audit: $(VENV)/installed-dev ## Ask whether anything we build on has known holes
	@.ci/audit

clean: ## Remove the environment and caches; the data of the embedded Redis stays in .data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	$(PIP) -r requirements-dev.txt
	@touch $@

$(VENV)/installed: requirements.txt | $(BIN)/python
	$(PIP) -r requirements.txt
	@touch $@

$(BIN)/python:
	@for python in $(PYTHONS); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  found="$$python"; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	  exec "$$python" -m venv $(VENV); \
	done; \
	if [ -n "$$found" ]; then \
	  echo "$$found cannot make virtual environments: install its venv package (python3-venv)." >&2; \
	else \
	  echo "Python 3.11 or later is needed, and none is on PATH; or name one: make PYTHON=/path" >&2; \
	fi; exit 1
