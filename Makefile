# One-line targets for people and for checks alike. `make` prints them.
VENV ?= .venv
PYTHON ?= python3
JOBS ?= 2
BIN := $(VENV)/bin
PY := $(BIN)/python
DEPENDENCIES := $(VENV)/.dependencies
INSTALLED := $(VENV)/.installed
FOLDERS := syscalls kernel drivers userland
COVERAGE := --cov --cov-report=term-missing:skip-covered --cov-fail-under=100

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A test run starts thousands of processes: what they import is compiled once, wherever this is set.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup run demo test test-all lint fmt type view docs docs-check abi kernels bench bench-gpu examples peers clients quality-model sweep mutants size cov check clean

help:  ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(INSTALLED)  ## make .venv with everything in it (torch first, from its pin)

run: $(INSTALLED)  ## set up if needed, then open the shell on a kernel with the bundled model
	@$(BIN)/llmos

demo: $(INSTALLED)  ## the same without a terminal: prompts, streamed answers, clean exit
	@$(PY) -m llmos.userland.programs.demo

test: $(INSTALLED)  ## every test not marked slow; syscalls/ and kernel/ must be covered whole
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) -rs --durations=10 --durations-min=5 --hypothesis-profile=quick -m "not slow" $(COVERAGE)

test-all: $(INSTALLED)  ## every test
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) -rs --durations=10 --durations-min=5 $(COVERAGE)

lint: $(DEPENDENCIES)  ## ruff over everything
	$(BIN)/ruff check .

fmt: $(DEPENDENCIES)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .

view:  ## build/view/llmos/*: the sources under their import names, for type checkers and editors
	@mkdir -p build/view/llmos
	@for folder in $(FOLDERS); do ln -sfn ../../../$$folder build/view/llmos/$$folder; done

type: $(DEPENDENCIES) view  ## mypy --strict over the four packages
	MYPYPATH=build/view $(BIN)/mypy $(foreach folder,$(FOLDERS),-p llmos.$(folder))

docs: $(INSTALLED)  ## write the generated parts of docs/ again
	$(PY) docs/generate.py

docs-check: $(INSTALLED)  ## generated parts are current (make test checks the rest: links, code blocks, completeness)
	$(PY) docs/generate.py --check

abi: $(INSTALLED)  ## write tests/golden/abi.txt again, to be reviewed as a change of the contract
	$(PY) tests/golden/abi.py > build/abi.txt && mv build/abi.txt tests/golden/abi.txt

kernels: $(INSTALLED)  ## write tests/golden/kernels_sm90.txt again: registers, spills and shared memory of each kernel
	$(PY) tests/golden/kernels.py --jobs $(JOBS) > build/kernels.txt && mv build/kernels.txt tests/golden/kernels_sm90.txt

bench-gpu: view  ## a GPU in eight minutes: kernels checked, ceilings, the engine beside its peers and its aims
	PYTHONPATH=build/view $(if $(wildcard $(PY)),$(PY),$(PYTHON)) tests/perf/gpu/bench.py $(ARGS)

bench: $(INSTALLED)  ## measure against peers in the same run
	$(PY) tests/perf/bench.py $(ARGS)

examples: $(INSTALLED)  ## docs/worked-examples.md: three ways from raw text to a served model, in ten minutes
	$(PY) docs/examples/worked/all.py --write docs/worked-examples.md $(ARGS)

peers: $(INSTALLED)  ## build/peers/*: environments of the engines that make bench ARGS=engine measures against
	$(PY) tests/perf/peers/install.py $(ARGS)

clients: $(INSTALLED)  ## build/clients/*: environments of foreign clients (ollama, schemathesis, browser) for slow tests
	$(PY) tests/clients/install.py $(ARGS)

quality-model: $(INSTALLED)  ## build/quality: the model that the quality of quantization is measured on, in half an hour
	OMP_WAIT_POLICY=passive MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 $(PY) tests/perf/quality/train.py $(ARGS)

sweep: $(INSTALLED)  ## try every causal architecture that the library knows, or TYPES, and write docs/coverage.md
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(PY) tests/sweep/report.py $(TYPES)

mutants: $(INSTALLED)  ## plant faults into ledger and scheduler: the tests must catch each
	OMP_NUM_THREADS=1 $(PY) tests/mutants/run.py $(ARGS)

size:  ## lines per folder
	@$(PYTHON) tests/test_size.py

cov: $(INSTALLED)  ## coverage of the quick tests as HTML in build/coverage
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) -m "not slow" --cov --cov-report=html:build/coverage

check: lint type test docs-check size  ## what a change must pass

clean:  ## remove what was built, but not .venv
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; $(PYTHON) is not. Try: make PYTHON=python3.11 setup"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A torch that another package pulls in is the CUDA build, so it comes first and alone.
$(DEPENDENCIES): constraints.txt | $(PY)
	$(PY) -m pip install -c constraints.txt torch
	$(PY) -m pip install -r constraints.txt
	@touch $@

$(INSTALLED): $(DEPENDENCIES) pyproject.toml
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
