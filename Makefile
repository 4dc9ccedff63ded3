# The commands of this repository; `make help` lists them. Only Python 3.11 or later, pip and make
# are needed (npm as well for the proto lint). Where packages come from is pip's and npm's own setting.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
RUN := .venv/bin
DEV := .venv-dev/bin
PIP := -m pip --disable-pip-version-check install --quiet
# What the scripts run with; said aloud, since make hands a PYTHON from its command line on to them.
TOOLS := BIN=$(CURDIR)/$(DEV) PYTHON=$(CURDIR)/$(DEV)/python
PACKAGES := protos clients server export training
PYPROJECTS := pyproject.toml $(PACKAGES:%=%/pyproject.toml)

.PHONY: help setup setup-dev demo serve test lint format typecheck bench bench-peers bench-observability bench-export soak stack dashboards load proto models evaluate lock clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.complete ## Make .venv: protos, clients and server on onnxruntime, without torch

setup-dev: .venv-dev/.complete .venv-triton/.complete .venv-load/.complete ## Make .venv-dev: everything, with torch, the tests and the checks

demo: setup ## Start a server, edit faces, stylise photographs, write one before/after picture
	$(RUN)/python examples/demo.py

serve: setup ## Run the server in the foreground with the embedded bundle
	$(RUN)/velatura-server serve

# Computing on one thread each, side by side; what starts servers and looks at clocks has the machine to itself.
COMPUTING := tests/unit/export tests/unit/training
test: setup setup-dev ## Run every test
	OMP_NUM_THREADS=1 $(DEV)/pytest -q -n 2 --dist loadfile $(COMPUTING)
	$(DEV)/pytest -q $(addprefix --ignore=,$(COMPUTING))

lint: setup-dev ## Check style, types, imports, protos, the compose file and the Dockerfiles
	$(TOOLS) scripts/lint

format: setup-dev ## Rewrite the Python files in the one style
	$(DEV)/ruff check --fix --quiet . && $(DEV)/ruff format --quiet .

typecheck: setup-dev ## Check the types alone
	$(TOOLS) scripts/typecheck

bench: setup ## Measure a server on this machine beside onnxruntime alone, write benchmarks/results.md (ONLY="oip rates", BENCH="flags")
	$(RUN)/python -m benchmarks $(ONLY) --keep $(BENCH)

bench-peers: setup ## Measure MLServer, PyTriton and Ray Serve beside ours on the same graph (ONLY="mlserver", BENCH="flags")
	$(RUN)/python -m benchmarks.peers $(ONLY) --keep $(BENCH)

bench-observability: setup ## Measure what metrics and tracing cost in throughput (SECONDS=300)
	$(RUN)/python -m benchmarks.observability --seconds $(or $(SECONDS),300)

bench-export: setup-dev ## Measure what exporting a generator is worth: eager torch beside onnxruntime (FLAGS="--forms")
	$(DEV)/python -m benchmarks.export $(FLAGS)

soak: setup-dev ## Let clients vanish for a minute, then look for leaks over 20,000 requests (SECONDS=60 REQUESTS=20000)
	SOAK_SECONDS=$(or $(SECONDS),60) SOAK_REQUESTS=$(or $(REQUESTS),20000) $(DEV)/pytest -q -s tests/chaos/test_soak.py

load: setup .venv-load/.complete ## Load a server for a minute, judge it, write out/load/report.html (LOAD="flags" adds flags)
	SERVER=$(CURDIR)/$(RUN)/velatura-server LOADTEST=$(CURDIR)/.venv-load/bin/velatura-loadtest \
	    scripts/load $(LOAD)

stack: setup-dev ## Run server and Prometheus with the rules, without containers, until Ctrl-C (STACK="--load 60" loads it)
	$(TOOLS) scripts/stack $(STACK)

dashboards: setup-dev ## Write the dashboards' JSON from their code; DRAW="--load 300" draws their panels as well
	$(TOOLS) scripts/dashboards
	$(if $(DRAW),$(TOOLS) scripts/draw-dashboards $(DRAW))

proto: setup-dev ## Write the Python stubs and docs/api.md after a change of a .proto file
	$(TOOLS) scripts/proto
	$(TOOLS) scripts/api-docs

models: setup-dev ## Export and check models/ from training/weights (TRAIN=1 trains those first: hours)
	$(TOOLS) scripts/models $(if $(TRAIN),--train)

evaluate: setup-dev ## Measure the weights on held-out avatars and print the figures
	$(TOOLS) scripts/evaluate

lock: setup-dev ## Resolve the pyproject files into the constraints files
	$(TOOLS) scripts/lock

clean: ## Remove environments, caches and outputs; training runs stay
	rm -rf .venv .venv-dev .venv-triton .venv-load .venv-peers node_modules out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(PACKAGES) tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# An environment is complete when its stamp is newer than everything that defines it. pip itself
# decides what there is to do, so that a second run only repairs.
.venv/.complete: constraints.txt protos/pyproject.toml clients/pyproject.toml server/pyproject.toml
	scripts/python-version $(PYTHON)
	test -x $(RUN)/python || $(PYTHON) -m venv .venv
	$(RUN)/python $(PIP) -c constraints.txt -e ./protos -e ./clients -e './server[cpu]'
	touch $@

# torch goes first and alone: the wheel of the pinned version then satisfies every package after it.
.venv-dev/.complete: constraints.txt constraints-dev.txt $(PYPROJECTS)
	scripts/python-version $(PYTHON)
	test -x $(DEV)/python || $(PYTHON) -m venv .venv-dev
	$(DEV)/python $(PIP) -c constraints-dev.txt pip torch torchvision
	$(DEV)/python $(PIP) -c constraints-dev.txt --group dev \
	    -e ./protos -e './clients[loadtest]' -e './server[cpu,openvino]' -e './export[style]' -e ./training
	touch $@

# Triton's client, with which the tests drive the raw tensors' service from outside.
.venv-triton/.complete: constraints-triton.txt
	scripts/python-version $(PYTHON)
	test -x .venv-triton/bin/python || $(PYTHON) -m venv .venv-triton
	.venv-triton/bin/python $(PIP) -r constraints-triton.txt
	touch $@

# Locust makes sockets and threads gevent's: an environment of its own, as on a machine that loads.
.venv-load/.complete: constraints-load.txt protos/pyproject.toml clients/pyproject.toml
	scripts/python-version $(PYTHON)
	test -x .venv-load/bin/python || $(PYTHON) -m venv .venv-load
	.venv-load/bin/python $(PIP) -c constraints-load.txt -e ./protos -e './clients[loadtest]'
	touch $@
