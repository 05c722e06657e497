# The two commands: `make demo` and `make test`.  Both set up everything that they need in .venv and nothing elsewhere.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# A folder of wheels that pip knows is given to uv too; without one, PyTorch comes as its CPU build, not with gigabytes of CUDA.
UV_FLAGS := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",--torch-backend cpu)
# A certificate that pip trusts (PIP_CERT), uv is told to trust too.
ifdef PIP_CERT
export SSL_CERT_FILE ?= $(PIP_CERT)
endif
UV_INSTALL = VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --compile-bytecode $(UV_FLAGS)

.PHONY: demo test test-all check docs bench lock clean

demo: $(VENV)/.installed ## run the digits recipe end to end
	$(BIN)/groundup run examples/digits

test: $(VENV)/.installed ## the fast tests
	scripts/test

test-all: $(VENV)/.installed-all ## every test that CI runs, with every extra
	scripts/test --all

check: $(VENV)/.installed-all ## what CI checks besides tests
	scripts/check

docs: $(VENV)/.installed-all ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.installed-all ## the benchmarks beside their peers
	scripts/bench

lock: $(BIN)/uv ## compile the pinned requirements again
	scripts/lock

clean: ## remove what demo and tests leave, but not the virtual environment
	rm -rf examples/*/.groundup examples/*/build site .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/uv:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "groundup needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/uv
	$(UV_INSTALL) -r requirements.txt
	$(UV_INSTALL) --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.installed-all: requirements-all.txt $(VENV)/.installed
	$(UV_INSTALL) -r requirements-all.txt
	touch $@
