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

.PHONY: help deps deps-python deps-test build demo test bench sanitize fuzz format clean distclean

help: ## this list
	@echo "Echelon serves a PyTorch model as a pipeline of stage processes. Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|'
	@echo "Settings: JOBS=$(JOBS) BUILD=$(BUILD) ECHELON_DEPS=$(ECHELON_DEPS)"

deps: ## what a build needs: Debian packages, Rust, LibTorch (0.7 GB); seconds when it is there
	@tools/deps.sh debian rust libtorch

deps-python: ## what export, demo and the Python tests need (5 GB)
	@tools/deps.sh debian python

deps-test: ## what the tests need beyond a build: clang, curl
	@tools/deps.sh debian debian-test

build: deps ## build/bin/echelon, build/bin/echelon-stage
	@mkdir -p $(BUILD)
	@cmake -S . -B $(BUILD) -G Ninja -DECHELON_LIBTORCH=$(ECHELON_DEPS)/libtorch > $(BUILD)/configure.log 2>&1 || \
	  { cat $(BUILD)/configure.log >&2; exit 1; }
	@ninja -C $(BUILD) -j $(JOBS) echelon echelon-stage

demo: build deps-python ## over two processes, with real weights: MiniLM compares sentences, SmolLM2 answers a question
	@$(PYTHON) examples/minilm/demo.py --echelon $(BUILD)/bin/echelon --model $(BUILD)/minilm.pt2
	@$(PYTHON) examples/smollm2/convert.py -o $(BUILD)/smollm2
	@echo; echo 'echelon generate $(BUILD)/smollm2 "What is the capital of France?" --stages 2 --dtype f32'
	@$(BUILD)/bin/echelon generate $(BUILD)/smollm2 "What is the capital of France?" --stages 2 --dtype f32

test: deps deps-test deps-python ## every part; .ci/run leaves out tsan and fuzz; PARTS="unit process" picks (tools/test.py --list)
	@python3 tools/test.py --build $(BUILD) --jobs $(JOBS) --fuzz-seconds $(FUZZ_SECONDS) $(PARTS)

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
