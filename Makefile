# make serve   start the server          MODEL=path-or-name PORT=8000 HOST=127.0.0.1 DEVICE=auto|cpu|openvino|cuda|tensorrt
#              (no MODEL: the barcode detector that comes with the package)
# make test    run the tests
# make train-demo   train a small model on pictures drawn for it, export it, and measure it
# make walk    list the files that a request goes through, in order
# make test-more   run the tests that take long: browser, balancers, the API as generated tools see it
# make openapi   write docs/openapi.json anew, after a change of routes, options or answers
# make check   check format, lint, types and import contracts, and run the tests, as CI does
# make qa-short   the same trials as make qa, in about a minute
# make qa      the trials: hostile input, slow clients, kills, rolling restarts, soak (ten minutes; a table)
# make fix     let the tools fix what they can
# PYTHON=python3.13 chooses the interpreter; EXTRA="..." adds flags to the server.

PYTHON ?= python3
MODEL ?=
# Empty, not ?=, because shells and package managers set a HOST of their own.
HOST =
PORT ?=
DEVICE ?=
EXTRA ?=
TORCH := 2.13.0

# The CPU and GPU runtimes cannot share an environment. The GPU's is installed where a driver is.
ifneq ($(filter cuda tensorrt,$(DEVICE)),)
RUNTIME := gpu
else ifneq ($(filter cpu openvino,$(DEVICE)),)
RUNTIME := $(DEVICE)
else
RUNTIME := $(if $(shell command -v nvidia-smi 2>/dev/null),gpu,cpu)
endif
VENV := .venv
SERVE_VENV := $(if $(filter gpu,$(RUNTIME)),.venv-gpu,$(VENV))

BIN := $(VENV)/bin
SERVE_STAMP := $(SERVE_VENV)/.installed-serve-$(RUNTIME)
DEV_STAMP := $(VENV)/.installed-dev
PROMETHEUS := $(VENV)/prometheus/usr/bin/promtool
CHROMIUM := $(VENV)/chromium/usr/lib/chromium/chromium-headless-shell
BALANCERS := $(VENV)/balancers/usr/sbin/haproxy

.PHONY: serve test test-more train-demo walk openapi qa qa-short check lint fix clean
.NOTPARALLEL:

serve: $(SERVE_STAMP)
	@model="$(MODEL)"; \
	case "$$model" in \
	  ''|*.onnx|*/*) ;; \
	  *) model=$$($(SERVE_VENV)/bin/python -m model_export fetch "$$model") || exit 1;; \
	esac; \
	exec $(SERVE_VENV)/bin/python -m service $${model:+--model "$$model"} $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(if $(DEVICE),--device $(DEVICE)) $(EXTRA)

test: $(DEV_STAMP) $(PROMETHEUS)
	$(BIN)/python -m pytest

test-more: $(DEV_STAMP) $(CHROMIUM) $(BALANCERS)
	$(BIN)/python -m pytest -m heavy

train-demo: $(DEV_STAMP)
	rm -rf runs/demo
	$(BIN)/python -m model_export demo-data --output runs/demo-data --train 1000 --val 100 --size 128
	$(BIN)/python -m model_export train --data runs/demo-data/train.json --val runs/demo-data/val.json \
	  --output runs/demo --size 128 --epochs 15 --closing-epochs 3 --evaluate-every 3 --warmup-epochs 0.5 \
	  --batch-size 8 --rate-per-image 0.0125 --average-decay 0.98 --average-ramp 50 --mosaic 0 --multiscale 0
	@echo "make serve MODEL=runs/demo/model.onnx serves it; runs/demo has the metrics and the plots"

walk: $(DEV_STAMP)
	$(BIN)/python benchmarks/walk.py

openapi: $(DEV_STAMP)
	YOLOX_DEVICE=cpu $(BIN)/python -m service.http.openapi > docs/openapi.json.new
	mv docs/openapi.json.new docs/openapi.json

qa: $(DEV_STAMP) $(BALANCERS)
	$(BIN)/python -m benchmarks.qa

qa-short: $(DEV_STAMP) $(BALANCERS)
	$(BIN)/python -m benchmarks.qa --short

check: lint test

lint: $(DEV_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-gpu

.venv/bin/python .venv-gpu/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.13 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(dir $(@D))

$(SERVE_STAMP): pyproject.toml constraints.txt | $(SERVE_VENV)/bin/python
	$(SERVE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(RUNTIME),fetch]'
	@touch $@

# The CPU build of torch: by its local build tag, else by uv's index of it, else the plain build.
$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch==$(TORCH)+cpu' 2>/dev/null \
	  || { $(BIN)/python -m pip install --quiet uv \
	       && $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu 'torch==$(TORCH)'; } \
	  || $(BIN)/python -m pip install 'torch==$(TORCH)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,fetch,evaluate,train,dev]'
	@# It asks for opencv-python, whose cv2 would take the place of opencv-python-headless's.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps trackers
	@touch $@

# The tests run a real Prometheus: the machine's, else Debian's package, unpacked here without root.
# Without either, those tests are skipped with a note.
APT := apt-get -qq -o Dir::State::lists=$(abspath $(VENV))/apt/lists -o Dir::Cache=$(abspath $(VENV))/apt -o Debug::NoLocking=1
$(PROMETHEUS): | $(BIN)/python
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || { \
	  mkdir -p $(VENV)/apt/lists/partial $(VENV)/apt/archives/partial \
	  && $(APT) update && cd $(VENV)/apt && $(APT) download prometheus \
	  && dpkg-deb -x prometheus_*.deb ../prometheus && rm -r ../apt; } >/dev/null 2>&1 \
	  || echo "note: Prometheus could not be installed; the tests that need it are skipped" >&2

# The page is tested in a real Chromium: the machine's, else Debian's package with the libraries that
# the machine lacks, unpacked here without root. Without either, those tests are skipped with a note.
$(CHROMIUM): | $(BIN)/python
	@command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || { \
	  mkdir -p $(VENV)/apt/lists/partial $(VENV)/apt/archives/partial \
	  && $(APT) update \
	  && $(APT) install --yes --no-install-recommends --download-only chromium-headless-shell \
	  && mkdir -p $(VENV)/chromium && cd $(VENV)/apt/archives \
	  && for package in *.deb; do dpkg-deb -x "$$package" ../../chromium || exit 1; done \
	  && rm -r ../../apt; } >/dev/null 2>&1 \
	  || echo "note: Chromium could not be unpacked; the tests of the page are skipped. apt-get install chromium-headless-shell mends that" >&2
# So they do with nginx and haproxy, which also need libraries that the machine may lack.
$(BALANCERS): | $(BIN)/python $(PROMETHEUS)
	@command -v nginx >/dev/null && command -v haproxy >/dev/null || { \
	  mkdir -p $(VENV)/apt/lists/partial $(VENV)/apt/archives/partial \
	  && $(APT) update && $(APT) -y --download-only --no-install-recommends install nginx haproxy \
	  && for package in $(VENV)/apt/archives/*.deb; do dpkg-deb -x $$package $(VENV)/balancers || exit 1; done \
	  && rm -r $(VENV)/apt; } >/dev/null 2>&1 \
	  || echo "note: nginx and haproxy could not be installed; the tests that need them are skipped" >&2
