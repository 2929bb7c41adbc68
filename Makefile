# `make quickstart` and `make test` set up .venv by themselves. Everything is installed at the versions of constraints.txt.

VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3.12 python3 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && echo $$p && break; done)

# The accelerator that the environment is for: EXTRA=gpu or EXTRA=tpu, an extra of setup.py. The environment remembers it,
# so that no later target has to be given it; `make install EXTRA=` installs for the CPU again.
INSTALLED_EXTRA := $(shell cat $(VENV)/.extra 2>/dev/null)
EXTRA ?= $(INSTALLED_EXTRA)
ifneq ($(filter-out gpu tpu,$(EXTRA)),)
$(error EXTRA must be gpu or tpu, not $(EXTRA))
endif
comma := ,
EXTRAS := test,embeddings$(if $(EXTRA),$(comma)$(EXTRA))

.PHONY: help install quickstart lint test test-slow test-launch test-storm test-colabs libtpu aot docs benchmark benchmark-tpu benchmark-models benchmark-kernels benchmark-data benchmark-families benchmark-diagnostics benchmark-telemetry benchmark-storage benchmark-estimator benchmark-classifiers benchmark-image-classifiers benchmark-laws learner clean

help:
	@echo "make quickstart       meta-train an in-context learner on this machine's CPU (about a minute) and draw what it learned"
	@echo "make lint             check style, formatting and types"
	@echo "make test             run the tests"
	@echo "make test-slow        run the long checks: the README's commands, the quickstart with five seeds, a whole Fashion-MNIST imported, runs on a fake gs://"
	@echo "make test-launch      run the tests of real processes, of the launch scripts, of Slurm where it is installed, and with the TPU compiler"
	@echo "make test-storm       kill runs, damage their files and try wrong inputs, by the hundred (about 13 minutes)"
	@echo "make test-colabs      run the notebooks (a few minutes) and leave them with their output in build/colabs"
	@echo "make aot ARGS='--gin_file gin/maml.gin --topology v5e:4x4x1'  what the programs of a gin file cost on a TPU slice"
	@echo "make docs             build the documentation: build/docs/index.html"
	@echo "make benchmark        what training steps cost on this machine, part by part, against plain loops (about ten minutes)"
	@echo "make benchmark-tpu    what they cost on a TPU slice, by its compiler's account; needs no TPU (about ten minutes)"
	@echo "make benchmark-models training steps a second of every model, against plain flax references"
	@echo "make benchmark-kernels  what recurrences cost step by step and in parallel, by the length of the sequence"
	@echo "make benchmark-data   batches a second of the loader, by placement and workers, and its share of a step"
	@echo "make benchmark-families  what drawing the sequences of a task family costs, against the gradient on them"
	@echo "make benchmark-diagnostics  what diagnostics along training cost, against a training step"
	@echo "make benchmark-telemetry  what it costs to measure gradients and updates, of a training step's time and memory"
	@echo "make benchmark-storage  what run folders on gs:// cost: requests, and seconds at 50 ms a request"
	@echo "make benchmark-estimator  what a query of the classifier costs, with its context read once and read again"
	@echo "make benchmark-classifiers  how accurate the classifier is beside others of scikit-learn, by labelled examples"
	@echo "make benchmark-image-classifiers  how accurate the learner and classifiers of scikit-learn are on MNIST and Fashion-MNIST"
	@echo "make benchmark-laws   how often the 95% intervals of scaling laws hold the truth, on simulated sweeps (about ten minutes)"
	@echo "make learner          meta-train the learner that comes with the package anew (on MNIST; minutes on a GPU)"
	@echo "make install          only set up $(VENV); with EXTRA=gpu or EXTRA=tpu, for that accelerator (docs/gpu.md)"
	@echo "make clean            remove $(VENV) and runs/quickstart"

install: $(VENV)/.installed

$(VENV)/.installed: setup.py pyproject.toml constraints.txt $(if $(filter-out $(INSTALLED_EXTRA)-,$(EXTRA)-),FORCE)
	@test -n "$(PYTHON)" || { echo "Python 3.12 or newer is needed; name it with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@echo $(EXTRA) > $(VENV)/.extra
	@touch $@

FORCE:

quickstart: install
	$(BIN)/gpicl train --gin_file gin/quickstart.gin --workdir runs/quickstart

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Each process compiles for itself, which keeps one core busy.
test: install
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test-slow: install
	$(BIN)/python -m pytest -m slow --numprocesses auto --maxprocesses 4 --dist worksteal

test-launch: libtpu
	$(BIN)/python -m pytest -m launch

# -s shows how many kills and damages were tried, and how they ended.
test-storm: install
	$(BIN)/python -m pytest -s -m storm

# On copies: the notebooks themselves stay without output.
test-colabs: $(VENV)/.colabs
	rm -rf build/colabs && mkdir -p build && cp -r colabs build/colabs
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest --nbmake --overwrite --nbmake-timeout=900 --numprocesses 2 build/colabs

$(VENV)/.colabs: $(VENV)/.installed
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[colabs]'
	@touch $@

aot: libtpu
	PYTHONPATH=build/libtpu $(BIN)/gpicl aot $(ARGS)

# The TPU compiler, beside the environment: inside it, JAX would look for a TPU at every start.
libtpu: build/libtpu/.installed

build/libtpu/.installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--constraint constraints.txt --target build/libtpu libtpu
	@touch $@

# Any warning is an error.
docs: $(VENV)/.docs
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs build/docs
	@echo build/docs/index.html

$(VENV)/.docs: $(VENV)/.installed
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

benchmark: install
	$(BIN)/python benchmarks/step.py --out runs/benchmark

benchmark-tpu: libtpu
	PYTHONPATH=build/libtpu $(BIN)/python benchmarks/tpu.py

benchmark-models: install
	$(BIN)/python benchmarks/models.py

benchmark-kernels: install
	$(BIN)/python benchmarks/kernels.py

benchmark-data: install
	$(BIN)/python benchmarks/data.py

benchmark-families: install
	$(BIN)/python benchmarks/families.py

benchmark-diagnostics: install
	$(BIN)/python benchmarks/diagnostics.py

benchmark-telemetry: install
	$(BIN)/python benchmarks/telemetry.py

benchmark-storage: install
	$(BIN)/python -m benchmarks.storage

benchmark-estimator: install
	$(BIN)/python benchmarks/estimator.py

benchmark-classifiers: install
	$(BIN)/python benchmarks/classifiers.py

benchmark-image-classifiers: install
	$(BIN)/python benchmarks/image_classifiers.py

benchmark-laws: install
	$(BIN)/python benchmarks/law_coverage.py

learner: install
	$(BIN)/gpicl train --gin_file gin/learner.gin --workdir runs/learner
	$(BIN)/gpicl export runs/learner gpicl_flax/learners/mnist --half

clean:
	rm -rf $(VENV) runs/quickstart
