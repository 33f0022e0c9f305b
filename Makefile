# make demo and make test set everything up by themselves: a virtual environment in .venv, exact versions.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DVC_NO_ANALYTICS := true
# Python keeps what it compiles: compiling all that is installed beforehand takes minutes, what is used of it seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check lint types bench install clean
demo: install          ## render a clip, edit it, change one setting
	$(BIN)/retake demo

test: install          ## the whole suite, on all cores
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: lint types      ## lint, format, types

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/pyright

bench: install         ## every benchmark, at the size that docs/benchmarks.md shows
	$(BIN)/python -m benchmarks

install: .venv/.installed

# uv takes half of pip's time. It reads no settings of pip, so pip does it where packages come from elsewhere.
.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	{ $(PIP) install uv && $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[test]'; } \
	  || $(PIP) install --no-compile -c constraints.txt -e '.[test]'
	touch $@

clean:                 ## results and caches of tests; never the store
	rm -rf .pytest_cache .ruff_cache .hypothesis artifacts/demo
