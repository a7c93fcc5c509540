# Two commands do everything, set-up included: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COQUI ?= .venv-coqui
TRAINERS ?= .venv-trainers
RUN := runs/demo

.PHONY: demo test test-coqui test-trainers test-faults lint bench models clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	$(BIN)/speechchat models pull
	$(BIN)/speechchat run quickstart --out $(RUN)
	$(BIN)/speechchat verify $(RUN) --decode
	$(BIN)/speechchat text $(RUN) --excerpts 2
	$(BIN)/python scripts/stream_training.py $(RUN) --limit 8
	$(BIN)/python scripts/inspect_samples.py $(RUN)

test: $(VENV)/.ready-test
	$(BIN)/speechchat models pull
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations 15

# Real Coqui code, in an environment of its own that the tests of .venv call. 12 GB of disk, minutes to install.
test-coqui: $(VENV)/.ready-test $(COQUI)/.ready
	SPEECHCHAT_COQUI=$(COQUI) $(BIN)/pytest -q -m coqui tests/coqui --durations 5

# Exports read by the loaders of ms-swift, LLaMA-Factory, NeMo and Moshi, in an environment of their own. 0.3 GB, a minute to install.
test-trainers: $(VENV)/.ready-test $(TRAINERS)/.ready
	SPEECHCHAT_TRAINERS=$(TRAINERS) $(BIN)/pytest -q -m trainers tests/training --durations 5

# Every row of the fault matrix, of which `make test` runs a part; ends with a table of them.
test-faults: $(VENV)/.ready-test
	$(BIN)/speechchat models pull
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m faults

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.ready-test
	for bench in scripts/bench/bench_*.py; do $(BIN)/python $$bench || exit 1; done

models: $(VENV)/.ready
	$(BIN)/speechchat models pull

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 13); sys.exit(0 if ok else \
	"speechchat needs Python 3.11 or 3.12, $(PYTHON) is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	{ echo 'Python has no venv here; on Debian: apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.ready: $(VENV)/.python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[embedded,inspect]'
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[embedded,inspect,s3,sherpa,train,views,watermark,dev]'
	touch $@

$(COQUI)/.ready: constraints-coqui.txt | $(VENV)/.python
	@$(PYTHON) -c 'import shutil, sys; free = shutil.disk_usage("$(dir $(abspath $(COQUI)))").free / 1e9; sys.exit(0 if free > 12 else \
	"Coqui needs 12 GB of disk (torch with CUDA, and the cache of pip), here are %.1f: make COQUI=/other/disk ..." % free)'
	$(PYTHON) -m venv $(COQUI)
	$(COQUI)/bin/python -m pip install -q --disable-pip-version-check --no-compile -c constraints-coqui.txt \
	torch torchaudio 'coqui-tts[zh]' six pydantic pyyaml soxr
	touch $@

# Over the packages of .venv: one torch is enough.
$(TRAINERS)/.ready: constraints-trainers.txt | $(VENV)/.ready-test
	$(PYTHON) -m venv $(TRAINERS)
	$(TRAINERS)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r constraints-trainers.txt
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	$$($(TRAINERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth
	touch $@

clean:
	rm -rf $(VENV) $(COQUI) $(TRAINERS) runs build *.egg-info
