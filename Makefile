# make expand: expands the demo model.  make test: runs the tests.  Both create .venv and install what they need.
PYTHON ?= python3
BIN := .venv/bin
PARALLEL := -n auto --dist loadfile
MODULES := lesa_jax $(subst /,.,$(patsubst %/__init__.py,%,$(wildcard lesa_jax/*/__init__.py)) \
    $(patsubst %.py,%,$(filter-out %/__init__.py %/__main__.py,$(wildcard lesa_jax/*.py))))

.PHONY: expand test test-slow test-compilers lint types docs clean

expand: .venv/installed
	$(BIN)/python -m lesa_jax.expand --overwrite

test: .venv/installed-test
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: .venv/installed-test
	$(BIN)/python -m pytest $(PARALLEL) -m slow

# Steps compiled for a TPU slice and for GPUs, with their own compilers: 3.4 GB.
test-compilers: .venv/installed-test
	$(BIN)/python -m pip install --quiet --requirement requirements-compilers.txt
	$(BIN)/python -m pytest -m slow tests/training/test_targets.py

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-test
	$(BIN)/pyright

# The API from docstrings: build/docs/index.html. Needs no network; a warning is an error.
docs: .venv/installed-test
	$(BIN)/python -W error -m pdoc --docformat google --output-directory build/docs $(MODULES)

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/installed: requirements.txt pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-test: requirements-test.txt .venv/installed
	$(BIN)/python -m pip install --quiet --requirement requirements-test.txt
	touch $@

clean:
	rm -rf .venv expanded build
