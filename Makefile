# The two commands of the README, `make run` and `make test`, and their parts. The build itself is CMake's (CMakePresets.json).
SHELL := /bin/bash
.PHONY: help build run test test-unit test-e2e test-asan test-tsan test-jitter test-gpu test-mainline fuzz-smoke soak bench package clean

help:
	@echo "make run         install, build and start everything on port 8080 (PORT=, LISTEN=, CLIENTS=postgres)"
	@echo "make test        install, build and run every test"
	@echo "make build       the nginx module, llm-engine, llmctl and llm-reporter, into build/release"
	@echo "make test-unit   the unit tests          make test-e2e    the end-to-end tests (K=name to choose)"
	@echo "make test-asan   every test with nginx, module and engine under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make test-tsan   the unit tests and llm-engine's own under ThreadSanitizer"
	@echo "make test-jitter the end-to-end tests with the servers' system calls delayed at random, as on a busy machine"
	@echo "make test-gpu    the CUDA backend on this machine's GPU; without one nothing is run"
	@echo "make test-mainline NGINX_SOURCE=dir  the end-to-end tests with an nginx built from that source tree"
	@echo "make fuzz-smoke  every fuzz target for FUZZ_SECONDS=60"
	@echo "make soak        random faults under load for SOAK_SECONDS=1800, SEED= to repeat a run"
	@echo "make bench       what the gateway costs over plain nginx"
	@echo "make package     Debian packages of the module, llm-engine and the tools, into build/packages"
	@echo "make clean       remove build/, .run/ and .venv/"

build:
	@scripts/deps.sh build
	@scripts/build.sh release -- llm-engine llmctl llm-reporter ngx_http_llm_dispatch_module

# python3 is among what deps.sh brings, so that the rest can be Python.
run:
	@scripts/deps.sh build $(filter postgres,$(CLIENTS))
	@PORT="$(PORT)" LISTEN="$(LISTEN)" CLIENTS="$(CLIENTS)" /usr/bin/python3 scripts/run.py

test:
	@scripts/test.sh unit e2e

test-unit:
	@scripts/test.sh unit

test-e2e:
	@scripts/test.sh e2e $(if $(K),-k "$(K)")

test-asan:
	@PRESET=asan scripts/test.sh unit e2e

test-tsan:
	@PRESET=tsan scripts/test.sh unit engine

test-jitter:
	@E2E_JITTER=1 scripts/test.sh e2e $(if $(K),-k "$(K)")

test-gpu:
	@scripts/test_gpu.sh

test-mainline:
	@NGINX_SOURCE="$(NGINX_SOURCE)" scripts/test_mainline.sh

fuzz-smoke:
	@scripts/fuzz.sh

soak:
	@scripts/deps.sh build test
	@scripts/venv.sh
	@scripts/build.sh release -- llm-engine ngx_http_llm_dispatch_module
	@BUILD_DIR=build/release SOAK_SECONDS="$(SOAK_SECONDS)" SEED="$(SEED)" .venv/bin/python scripts/soak.py

bench:
	@scripts/deps.sh build bench
	@scripts/build.sh release
	@bench/gateway-overhead/run.py
	@bench/metrics-scrape/run.py

package:
	@scripts/package.sh

clean:
	@rm -rf build .run .venv
