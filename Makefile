# make demo | test | test-slow | lint | install     (needs Python 3.11 to 3.13, pip and make; nothing else)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow lint format install clean

demo: $(VENV)/installed
	$(BIN)/forethought demo

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "slow and not gpu"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/installed

# constraints.txt pins the tested versions; its torch is a CPU build. For a GPU, install your own torch first.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
