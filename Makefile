# The project's commands. `make` lists them; each does its own set-up.

.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

PYTHON := .venv/bin/python
# tests.strict turns a skip into a failure where CRAFTASTIC_TEST_STRICT=1 is set.
PYTEST := $(PYTHON) -m pytest -p tests.strict
# The same, and what failed beside others once more, alone; it says so where that passes.
STEADY_PYTEST := $(PYTHON) -m tests.second_look -p tests.strict
# Processes that share the tests; each has a database server of its own.
WORKERS ?= 2
UV_COMPILE := .tools/bin/uv pip compile --universal --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --python-version 3.11 --quiet

.PHONY: help serve test slow faults soak fuzz check setup format lint types imports unit rules web web-check \
	lock reference openapi bench clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

serve: ## set everything up and start the server
	@scripts/setup.sh serve
	@exec .venv/bin/craftastic serve

test: ## set everything up and run every check and every test
	@scripts/setup.sh test
	@$(PYTHON) scripts/with_services.py --image $(MAKE) -k .all

# `make test DATABASES=both` runs on both what otherwise runs on one of the two.
DATABASES ?= spread

# With -k a fault of the format does not hide what the tests would say.
.PHONY: .all .tests
.all: format-check lint types imports web-check .tests
.tests:
	$(STEADY_PYTEST) $(if $(filter spread,$(DATABASES)),-p tests.spread) \
		-n $(WORKERS) --dist worksteal --durations 40 -m "not slow" tests

slow: ## torture and load: the tests that `make test` and `make faults` leave out
	@scripts/setup.sh test
	@$(PYTHON) scripts/with_services.py --image $(STEADY_PYTEST) \
		--durations 20 -m "slow and not fault" tests

# They mostly wait: for a claim of a dead server to end, for a machine that comes back.
FAULT_WORKERS ?= 4
faults: ## faults and crashes at every step, with the invariants after each, and what was measured
	@scripts/setup.sh test
	@rm -f .cache/faults.jsonl
	@$(PYTHON) scripts/with_services.py --image $(STEADY_PYTEST) \
		-n $(FAULT_WORKERS) --dist worksteal --durations 40 -m "fault and slow" tests
	@$(PYTHON) -m tests.faults._figures

MINUTES ?= 30
RUNTIME ?= local
soak: ## half an hour of faults at random over two servers: make soak MINUTES=30 SEED=1 RUNTIME=local
	@scripts/setup.sh test
	@$(PYTHON) scripts/with_services.py --image $(PYTHON) -m tests.faults.soak \
		--minutes $(MINUTES) --seed $(SEED) --runtime $(RUNTIME)

CASES ?= 20000
SEED ?= 1
fuzz: ## requests made from the API's document: make fuzz CASES=20000 SEED=1
	@scripts/setup.sh test
	@CRAFTASTIC_FUZZ_CASES=$(CASES) CRAFTASTIC_FUZZ_SEED=$(SEED) \
		$(PYTEST) -p no:xdist tests/contract/test_api_fuzz.py

check: ## the fast half: format, lint, types, imports, unit and documentation tests
	@scripts/setup.sh
	@$(MAKE) -k -j2 --output-sync=target format-check lint imports types unit rules

setup: ## only the set-up: uv, the virtual environment, the locked packages
	@scripts/setup.sh

format: ## rewrite the code in the project's format
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

.PHONY: format-check
format-check:
	$(PYTHON) -m ruff format --check .

lint: ## ruff
	$(PYTHON) -m ruff check .

types: ## pyright, strict
	$(PYTHON) -m pyright --pythonpath $(PYTHON)

imports: ## the layers of the packages
	.venv/bin/lint-imports --no-cache

unit: ## unit tests
	$(PYTEST) tests/unit

rules: ## tests of the repository's rules and of the documents
	$(PYTEST) tests/test_repository_rules.py tests/test_docs.py tests/test_tooling.py

web: ## build the web page
	@CRAFTASTIC_SKIP_UI=1 scripts/setup.sh
	$(PYTHON) hatch_build.py

web-check: ## the web page's lint, types, unit tests and size
	$(PYTHON) hatch_build.py --check

lock: ## renew requirements.lock and tools.lock with releases that are at least a week old
	@scripts/setup.sh
	@scripts/lock.sh "$(UV_COMPILE)"

reference: ## rewrite the generated pages of docs/reference
	$(PYTHON) scripts/reference.py

openapi: ## write docs/reference/openapi.json
	$(PYTHON) scripts/openapi.py

bench: ## the measurements in bench/
	@scripts/setup.sh test
	@$(PYTHON) scripts/with_services.py --image $(PYTHON) -m bench

clean: ## remove what the commands above made in this folder
	rm -rf web/node_modules web/dist src/craftastic/web/app
	rm -rf .venv .tools .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
