# The loop of work; `make` alone lists it. Everything lands in build/ and .deps/.
SHELL := /bin/bash
.DEFAULT_GOAL := help

BUILD ?= build
JOBS ?= $(shell nproc)
ECHELON_DEPS ?= $(CURDIR)/.deps
FUZZ_SECONDS ?= 20
PARTS ?=
export ECHELON_DEPS
# A checkout's path is no part of what is compiled: another one next to it hits the same cache.
export CCACHE_NOHASHDIR := 1
PYTHON := $(ECHELON_DEPS)/python/bin/python

.PHONY: help deps deps-python deps-test deps-cluster build demo test images chart cluster cluster-down e2e bench sanitize fuzz format clean distclean

help: ## this list
	@echo "Echelon serves a PyTorch model as a pipeline of stage processes. Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|'
	@echo "Settings: JOBS=$(JOBS) BUILD=$(BUILD) ECHELON_DEPS=$(ECHELON_DEPS)"

deps: ## what a build needs: Debian packages, Rust, LibTorch (0.7 GB); seconds when it is there
	@tools/deps.sh debian rust libtorch

deps-python: ## what export, demo and the Python tests need (5 GB)
	@tools/deps.sh debian python

deps-cluster: ## what the test cluster needs: containerd, buildah; Kubernetes by Go, or unpacked from ECHELON_KUBE_CACHE
	@tools/deps.sh debian-cluster kube

deps-test: ## what the tests need beyond a build: clang, curl, promtool
	@tools/deps.sh debian debian-test promtool

build: deps ## build/bin/echelon, build/bin/echelon-stage, build/bin/echelon-operator
	@mkdir -p $(BUILD)
	@cmake -S . -B $(BUILD) -G Ninja -DECHELON_LIBTORCH=$(ECHELON_DEPS)/libtorch > $(BUILD)/configure.log 2>&1 || \
	  { cat $(BUILD)/configure.log >&2; exit 1; }
	@ninja -C $(BUILD) -j $(JOBS) echelon echelon-stage echelon-operator

demo: build deps-python ## over two processes, with real weights: MiniLM compares sentences, SmolLM2 answers a question
	@$(PYTHON) examples/minilm/demo.py --echelon $(BUILD)/bin/echelon --model $(BUILD)/minilm.pt2
	@$(PYTHON) examples/smollm2/convert.py -o $(BUILD)/smollm2
	@echo; echo 'echelon generate $(BUILD)/smollm2 "What is the capital of France?" --stages 2 --dtype f32'
	@$(BUILD)/bin/echelon generate $(BUILD)/smollm2 "What is the capital of France?" --stages 2 --dtype f32

# Where Kubernetes cannot be had, say without Go, the parts that need it are skipped and say so.
KUBE_PARTS := chart crd cluster e2e-short e2e
test: deps deps-test deps-python ## every part; PARTS="unit process" picks (tools/test.py --list)
ifneq ($(if $(strip $(PARTS)),$(filter $(KUBE_PARTS),$(PARTS)),all),)
	@tools/deps.sh debian-cluster kube || echo "make: there will be no test cluster"
endif
	@python3 tools/test.py --build $(BUILD) --jobs $(JOBS) --fuzz-seconds $(FUZZ_SECONDS) $(PARTS)

ifneq ($(BINARIES),compile)
images: build
endif
images: ## docker archives in build/images of operator, runtime and exporter; REGISTRY=... PUSH=1 sends them; PARTS="runtime" picks
	@BUILD=$(BUILD) images/build.sh $(PARTS)

chart: deps-python ## what is made from the CRD: the chart's copy, docs/api.md
	@mkdir -p charts/echelon/crds && cp crds/pipelinedeployments.yaml charts/echelon/crds/
	@$(PYTHON) tools/crd_docs.py crds/pipelinedeployments.yaml > docs/api.md

cluster: deps-cluster ## a real Kubernetes of two nodes on this machine (root), with the images of build/images
	@KONE_STATE=$(abspath $(BUILD))/cluster KONE_IMAGES=$(abspath $(BUILD))/images tests/cluster/up.sh

cluster-down: ## ends it, and removes all it wrote
	@KONE_STATE=$(abspath $(BUILD))/cluster KONE_IMAGES=$(abspath $(BUILD))/images tests/cluster/down.sh

e2e: ## the operator on that cluster, from helm install to nothing left: 15 minutes; needs root
	@python3 tools/test.py --build $(BUILD) --jobs $(JOBS) e2e

bench: deps deps-python ## tables, and build/bench/*.json
	@python3 tools/bench.py --build $(BUILD) --jobs $(JOBS)

sanitize: deps-test ## the unit tests under ASan + UBSan, those of rooms with threads under TSan
	@python3 tools/test.py --build $(BUILD) --jobs $(JOBS) asan tsan

fuzz: deps-test ## every libFuzzer target for FUZZ_SECONDS (20)
	@python3 tools/test.py --build $(BUILD) --jobs $(JOBS) --fuzz-seconds $(FUZZ_SECONDS) fuzz

format: deps-test ## rewrites C++ sources as .clang-format says
	@git ls-files -z -- '*.cc' '*.h' | xargs -0 clang-format-14 -i

clean: ## removes build/; .deps/ stays
	rm -rf $(BUILD)

distclean: clean ## removes .deps/ too: the next build downloads everything again
	rm -rf .deps
