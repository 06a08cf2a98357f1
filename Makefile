# The whole developer interface. Every target builds the virtual environment first where it is missing.
PYTHON ?= python3
BIN := .venv/bin
STUDY = $(sort $(wildcard recipes/pocket-study/*.yaml))

.PHONY: install demo test test-slow study bench check clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install            ## the whole main job on the embedded model: runs/demo/report.html
	rm -rf runs/demo
	$(BIN)/equipoise run recipes/pocket.yaml --name demo

test: install            ## the normal suite, in two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

test-slow: install       ## simulations and other long tests
	$(BIN)/python -m pytest -m slow

study: install           ## the pocket twins of the original experiments, 5 seeds each: resumable, compared in runs/study
	$(BIN)/equipoise study $(STUDY) --seeds 0,1,2,3,4 --jobs 2
	$(BIN)/equipoise leaderboard runs/study

bench: install           ## speed and memory of a DPO step, side by side with TRL: benchmarks/results/dpo_step.json
	$(BIN)/python benchmarks/dpo_step.py

check: install           ## lint, formatting, types
	$(BIN)/ruff check src tests benchmarks compat
	$(BIN)/ruff format --check src tests benchmarks compat
	$(BIN)/mypy

clean:
	rm -rf .venv runs build dist .pytest_cache .mypy_cache .ruff_cache
