# The whole developer interface. Every target builds the virtual environment first where it is missing.
PYTHON ?= python3
BIN := .venv/bin
STUDY = 1-pure-reddit 3-hybrid-2way 4-hybrid-3way 5-optimized-2way 6-balanced 7-progressive-2stage 8-progressive-3stage
KINDS = ungated one-mixture reversed flipped
CONTROLS = $(foreach kind,$(KINDS),$(patsubst %,%-$(kind),7-progressive-2stage 8-progressive-3stage)) \
	4-hybrid-3way-flipped 6-balanced-flipped
TWINS = $(patsubst %,runs/twins/%.yaml,$(STUDY) $(CONTROLS))

.PHONY: install demo test test-slow study guide bench pictures check clean

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

runs/twins/%.yaml: recipes/original/%-as-designed.yaml | install
	mkdir -p runs/twins
	$(BIN)/equipoise recipes pocket $*-as-designed --out $@

define control
runs/twins/%-$(1).yaml: runs/twins/%.yaml
	$$(BIN)/equipoise recipes control $$< --as $(1) --out $$@
endef
$(foreach kind,$(KINDS),$(eval $(call control,$(kind))))

study: install $(TWINS)  ## the twins of the original experiments and their controls, 5 seeds each: runs/study (resumable)
	OMP_NUM_THREADS=1 $(BIN)/equipoise study $(TWINS) --seeds 0,1,2,3,4 --jobs 2 --out runs/study
	$(BIN)/python benchmarks/pocket_study.py runs/study

guide: study             ## one value changed at a time, 5 seeds each: the figures of docs/guide-progressive.md
	$(BIN)/python benchmarks/guide_study.py recipes runs/twins runs/guide/recipes
	OMP_NUM_THREADS=1 $(BIN)/equipoise study runs/guide/recipes/*.yaml --seeds 0,1,2,3,4 --jobs 2 --out runs/guide
	$(BIN)/python benchmarks/guide_study.py tables runs/study runs/guide

bench: install           ## speed and memory of a DPO step, side by side with TRL: benchmarks/results/dpo_step.json
	$(BIN)/python benchmarks/dpo_step.py

pictures: demo           ## the pictures of README.md from a fresh demo: docs/pictures (needs Chromium)
	$(BIN)/python benchmarks/pictures.py runs/demo

check: install           ## lint, formatting, types
	$(BIN)/ruff check src tests benchmarks compat
	$(BIN)/ruff format --check src tests benchmarks compat
	$(BIN)/mypy

clean:
	rm -rf .venv runs build dist .pytest_cache .mypy_cache .ruff_cache
