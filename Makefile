# `make demo` and `make test` do everything on a fresh machine: each makes .venv by itself.
PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
# One thread a process: two test processes share two cores.
TEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: demo test test-slow check docs figures upsamplers bench clean

demo: $(VENV)/.made
	rm -rf segtool-demo
	$(BIN)/segtool demo --out segtool-demo

test: check
	$(TEST) -n 2

test-slow: $(VENV)/.made
	$(TEST) -m slow

check: $(VENV)/.made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

docs: $(VENV)/.made
	$(BIN)/python docs/make_config_reference.py

figures: $(VENV)/.made
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python docs/make_theory_figures.py

# 42 trainings on one core, about 45 minutes; goes on where it was interrupted.
upsamplers: $(VENV)/.made
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.upsamplers --out runs/upsamplers --docs docs

# What the speed is measured against comes with it; about 20 minutes on two idle cores. DATA is CamVid, where it is there.
DATA = data/camvid
bench: $(VENV)/.made
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.bench --data $(DATA)

$(VENV)/.made: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,tiff]'
	touch $@

clean:
	rm -rf $(VENV) segtool-demo runs build dist
