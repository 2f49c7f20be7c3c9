# Everything runs in .venv, which is made once and updated when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: demo test test-fast test-slurm test-all test-lowest test-gpu wheels clean

demo: .venv/base
	$(BIN)/python benchmarks/demo.py

test: .venv/test
	$(PYTEST) -m "not nightly and not slurm"

test-fast: .venv/test
	$(PYTEST) -m "not slow and not nightly and not slurm"

test-slurm: .venv/test
	$(PYTEST) -n 0 -m slurm

test-all: .venv/test
	$(PYTEST)

# With the oldest packages that a project takes, in an environment made anew.
test-lowest: .venv/base
	$(BIN)/python benchmarks/lowest.py

# With the Python that has torch for CUDA and Lightning (PYTHON=...), not with .venv; no network.
test-gpu:
	$(PYTHON) benchmarks/gpu

# What such a machine may lack, for a copy of this folder that goes there.
wheels: .venv/test
	$(BIN)/python benchmarks/gpu/wheels.py

.venv/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/base: .venv/pip pyproject.toml
	$(BIN)/python -m pip install --quiet .
	touch $@

.venv/test: .venv/base
	$(BIN)/python -m pip install --quiet --group test
	touch $@

clean:
	rm -rf .venv build
