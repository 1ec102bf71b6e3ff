# Every target makes what it needs: an environment in .venv, with the package installed from this checkout.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# Folders of installed packages that are seldom imported: a third of all bytecode.
SELDOM := /(tests|testing|networkx|mypy|torch/_inductor|transformers/models)/

.PHONY: help install figures gallery test quick fuzz results docs mutations bench kills wheel gpu-check lint format types clean environment packages early bytecode kernels
.DEFAULT_GOAL := help

help: ## list every target
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: .venv/.installed ## make .venv and install dyncollapse with its bridge in it

figures: .venv/.installed ## draw the paper's figures and ours into figures/out/
	$(BIN)/python figures

gallery: figures ## refresh the pictures that the README shows, their captions, and the captions' numbers in the docs
	mkdir -p figures/gallery && cp figures/out/*.png figures/out/*.txt figures/gallery/
	$(BIN)/python tests/quotes.py --docs-only

test: .venv/.developed lint ## lint, check types and run all tests
	@$(BIN)/mypy >.types.txt 2>&1 & types=$$!; \
	$(BIN)/python -m pytest -n 2 --dist worksteal; tests=$$?; \
	wait $$types; types=$$?; cat .types.txt; rm -f .types.txt; exit $$((tests ? tests : types))

quick: .venv/.developed ## run the tests that take less than about three seconds each
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

fuzz: .venv/.developed ## try 2000 odd command lines and damaged files (TRIES=N for others); faults go to fuzz.json
	cd tests && ../$(BIN)/python -m fuzz --tries $(or $(TRIES),2000) --minimise --json ../fuzz.json

results: .venv/.developed ## measure all claims again, and rewrite the numbers and outputs in README and docs
	$(BIN)/python tests/quotes.py
	$(BIN)/python tests/show_output.py

docs: .venv/.developed ## build the documents' site into site/ (open site/index.html)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

mutations: .venv/.developed ## try wrong formulas on copies of the package: which claim catches each? (minutes)
	$(BIN)/python tests/mutate.py --out docs/measured/mutations.json
	$(BIN)/python tests/quotes.py --docs-only

bench: .venv/.developed ## time what the project promises against its peers: ratios in brackets, JSON in benchmarks.json
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-json=benchmarks.json \
	  --benchmark-group-by=param --benchmark-columns=median,min,max

gpu-check: .venv/.installed ## check results and speeds at full size on a CUDA GPU, not yet run on one (CIFAR=PATH: tables, too)
	$(BIN)/python -m dyncollapse bridge check --device cuda --full $(if $(CIFAR),--cifar '$(CIFAR)')

kills: .venv/.developed ## kill commands 20 times each at drawn moments, and count what is half-written, lost or blocked
	$(BIN)/python tests/kills.py --kills 20

wheel: .venv/.developed ## build dist/, and use the wheel in empty environments of each Python at hand (minutes, 6 GB each)
	$(BIN)/python tests/wheel.py

lint: .venv/.developed ## check style, formatting and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pydoclint --quiet dyncollapse

format: .venv/.developed ## format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/.developed ## check types
	$(BIN)/mypy

clean: ## remove .venv, caches and drawn figures
	rm -rf .venv site figures/out benchmarks.json fuzz.json .pytest_cache .import_linter_cache .mypy_cache .ruff_cache .hypothesis build dist

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dyncollapse needs Python 3.11 or newer, and '$(PYTHON)' is older or missing; try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	@$(PIP_INSTALL) --upgrade pip || true # Python brings its own, which may be years old and take twice as long

.venv/.installed: pyproject.toml | .venv/pyvenv.cfg
	@+$(MAKE) --no-print-directory environment EXTRA=bridge
	touch $@

.venv/.developed: pyproject.toml | .venv/pyvenv.cfg
	@+$(MAKE) --no-print-directory environment EXTRA=dev
	touch $@ .venv/.installed

# Kernels take numba and SciPy only: they are compiled beside the rest of the install, and looked at again after it.
environment: | .venv/pyvenv.cfg
	@$(PIP_INSTALL) $$($(BIN)/python -c "$$FOR_KERNELS")
	@+$(MAKE) --no-print-directory -j 2 packages early
	@+$(MAKE) --no-print-directory -j 2 bytecode kernels

export FOR_KERNELS = import tomllib; \
  needed = tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']; \
  print(*(one for one in needed if one.startswith(('numba', 'numpy', 'scipy'))))

packages:
	$(PIP_INSTALL) --editable '.[$(EXTRA)]'

early:
	@$(MAKE) --no-print-directory kernels >/dev/null 2>&1 || true

bytecode: # on all cores, where pip would take one; some packages hold files that no Python reads
	@$(BIN)/python -m compileall -qq -j 0 -x '$(SELDOM)' .venv/lib || true

kernels: # numba keeps what it compiled in __pycache__, so that no later process has to
	@$(BIN)/python -m dyncollapse.dynamics.compile_kernels
