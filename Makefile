# Needs Python >= 3.11, git and make. Everything else is installed into ignored folders of the checkout.
# PYTHON: the interpreter for the virtual environment. AZURITE, CHROMIUM: an installed Azurite and browser to use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
AZURITE_VERSION := 3.35.0
# Not quiet: mkdocs fails for the warnings that it prints, and for no others.
MKDOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check docs picture bench lint build clean azurite viewers viewer viewer-test
.DELETE_ON_ERROR:

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.test ## see tilesync work; needs no account
	@$(BIN)/tilesync demo
	@echo
	@echo "(in this checkout, tilesync is $(BIN)/tilesync)"

# Without its cache pytest compiles every test file anew, in each worker.
test test-fast: export PYTHONDONTWRITEBYTECODE =

test: $(VENV)/.test azurite viewers ## run all tests; with Azurite and a browser if npm can install them
	@$(BIN)/python -m pytest -n auto --dist worksteal

test-fast: $(VENV)/.test ## run the fast tests: no whole runs, killed processes, browsers or bulk data
	@$(BIN)/python -m pytest -q -n auto --dist worksteal --hypothesis-profile=fast -m 'not (e2e or kill or scale or browser)'

check: $(VENV)/.check ## check style, types, layers and documentation; changes nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_architecture.py
	@site=$$(mktemp -d); trap 'rm -rf "$$site"' EXIT; $(MKDOCS) --site-dir "$$site"

docs: $(VENV)/.check ## build the documentation into site/
	@$(MKDOCS)

picture: $(VENV)/.test viewers ## take the pictures that the documentation shows
	@$(BIN)/python scripts/docs/picture.py

viewer: viewer/node_modules/.installed ## build the viewer page into tilesync/serving/viewer_files/ (needs npm)
	@cd viewer && npm run --silent build

viewer-test: viewer/node_modules/.installed ## test the modules and types of the viewer page, and compare its committed files with its sources
	@cd viewer && npm run --silent test && npm run --silent check

bench: $(VENV)/.bench ## compare the speed with azcopy, rclone, curl and others (Linux; 35 GB of disk, more than an hour)
	@$(BIN)/python scripts/bench/compare.py

lint: $(VENV)/.check ## format, and fix what ruff can fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

build: $(VENV)/.build ## build the source archive and the wheel into dist/
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist

clean: ## remove everything that these targets made
	@rm -rf $(VENV) .azurite .viewers .bench viewer/node_modules dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis tilesync-demo
	@find tilesync tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# PYTHON when it is given, else the first of these that runs and is new enough.
PYTHONS := $(if $(filter file,$(origin PYTHON)),python3 python3.14 python3.13 python3.12 python3.11,$(PYTHON))
$(BIN)/python:
	@for python in $(PYTHONS); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  "$$python" -m venv $(VENV) && exit 0; \
	  rm -rf $(VENV); \
	  echo "$$python cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 1; \
	done; \
	echo 'tilesync needs Python 3.11 or newer, and none of these is: $(PYTHONS); name one: make PYTHON=...' >&2; exit 1

# Stamps: pip runs only when pyproject.toml says something new.
$(VENV)/.test: EXTRAS := test
$(VENV)/.check: EXTRAS := test,check,docs
$(VENV)/.bench: EXTRAS := bench
$(VENV)/.test $(VENV)/.check $(VENV)/.bench: pyproject.toml | $(BIN)/python
	@echo 'installing tilesync[$(EXTRAS)] into $(VENV)'
	@$(PIP) install --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.build: | $(BIN)/python
	@$(PIP) install build
	@touch $@

# Exactly the packages of the lock file.
viewer/node_modules/.installed: viewer/package-lock.json
	@cd viewer && npm ci --ignore-scripts --include=dev --no-audit --no-fund --loglevel=error
	@touch $@

# Without npm, or when it fails, the Azurite tests are skipped and say so.
azurite:
	@if test -n "$$AZURITE" || test -e .azurite/$(AZURITE_VERSION); then exit 0; fi; \
	rm -rf .azurite; \
	if ! command -v npm >/dev/null; then echo 'no npm, so no Azurite: the tests against it are skipped'; exit 0; fi; \
	echo 'installing Azurite into .azurite'; mkdir .azurite; \
	npm install --prefix .azurite --ignore-scripts --no-audit --no-fund --loglevel=error --fetch-retries=1 \
	  azurite@$(AZURITE_VERSION) && touch .azurite/$(AZURITE_VERSION) || \
	  { rm -rf .azurite; echo 'npm cannot install Azurite: the tests against it are skipped'; }

# Likewise for two viewers of 3D Tiles, and for Chromium where the system has none.
viewers:
	@if cmp -s tests/viewers/package.json .viewers/installed.json && .viewers/browser --version >/dev/null 2>&1; \
	  then exit 0; fi; \
	rm -rf .viewers; \
	if ! command -v npm >/dev/null; then echo 'no npm, so no viewers: the tests in a browser are skipped'; exit 0; fi; \
	echo 'installing CesiumJS and 3d-tiles-renderer into .viewers'; \
	sh tests/viewers/install.sh .viewers || \
	  { rm -rf .viewers; echo 'the viewers cannot be installed: the tests in a browser are skipped'; }
