# Two commands for newcomers: `make up` starts it, `make test` proves it. Everything else is for developers.
.DEFAULT_GOAL := help
.PHONY: help up test test-hpc test-deploy test-conformance k8s-secrets images test-images check lint types imports stubs alone protos lock format bench-dataplane bench-wan bench-dispatch bench-capacity conformance sim-campus bench-judge bench-summarizer bench-judge-rpc bench-tracing bench-keys train-judge chaos fuzz clean

PYTHON ?= python3
BIN := .venv/bin
PROGRAMS := core engine worker cli services/judge services/summarizer services/gateway services/hpc_dispatch services/relay
SOURCES := $(PROGRAMS) tests bench
PROTOC := $(BIN)/python -m grpc_tools.protoc -I stream_core/rpc=protos

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 20

# The environment: uv is bootstrapped with pip, everything else is installed from the hash-pinned lock.
.venv/installed: requirements.lock Makefile $(addsuffix /pyproject.toml,$(PROGRAMS))
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"Python 3.11 or newer is needed, {sys.executable} is {v.major}.{v.minor}; set PYTHON=...") if v < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || { sed -n '/^uv==/,/[^\\]$$/p' requirements.lock >.venv/uv.txt && \
		$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r .venv/uv.txt; }
	@$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation $(addprefix -e ./,$(PROGRAMS))
	@touch $@

up: .venv/installed  ## start everything on this machine; Ctrl-C stops it
	@exec $(BIN)/stream up

test: .venv/installed  ## all tests, with real parts (about 13 minutes on 2 cores)
	@tests/observability/install.sh
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --ignore=tests/hpc --ignore=tests/deploy

test-hpc: .venv/installed  ## the control plane with real Slurm, Globus Compute and vLLM (at most 20 minutes)
	@mkdir -p .cache && tests/hpc/install.sh
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/hpc

test-deploy: .venv/installed  ## the manifests: rendered, checked, and run as processes (at most 3 minutes)
	@tests/deploy/install.sh
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/deploy

images: .venv/installed  ## every image, with docker, podman or buildah; BASE_IMAGE, BUILD_IMAGE, PYTHON_VERSION, PREFIX, ONLY; last line JSON
	@mkdir -p .cache/images && $(BIN)/python deploy/images/build.py

PREFIX ?= localhost/stream
test-images: .venv/installed  ## the overlay of one machine in the images that buildah built; needs root and crun (about a minute)
	STREAM_IMAGES=$(PREFIX) $(BIN)/python -m pytest -q tests/deploy/test_from_images.py

SECRETS ?= deploy/k8s/secrets
k8s-secrets: .venv/installed  ## keys and certificates for deploy/k8s, as files in SECRETS; ARGS="--host relay=HOST --renew"
	@$(BIN)/python -m stream_cli.cluster_secrets $(SECRETS) $(ARGS)

SUITES ?=
EXAMPLES ?= 15
conformance: .venv/installed  ## independent clients and suites against our server (at most 6 minutes); last line JSON
	@tests/conformance/install.sh
	PYTHONPATH=tests $(BIN)/python -P -m conformance --examples $(EXAMPLES) $(SUITES)

test-conformance: EXAMPLES = 5
test-conformance: conformance  ## the same with fewer made-up requests, as CI runs it (about a minute)

check: .venv/installed lint types imports stubs alone  ## lint, types, import contracts, stubs, each program alone

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy $(addsuffix /src,$(PROGRAMS))

imports: .venv/installed
	$(BIN)/lint-imports

stubs: .venv/installed
	@mkdir -p .cache/stubs && $(PROTOC) --python_out=.cache/stubs --pyi_out=.cache/stubs --grpc_python_out=.cache/stubs protos/*.proto
	@for file in .cache/stubs/stream_core/rpc/*; do diff -q $$file core/src/stream_core/rpc/$$(basename $$file) || { echo "run 'make protos'"; exit 1; }; done

alone: .venv/installed
	$(BIN)/python tests/import_alone.py

protos: .venv/installed  ## generate the gRPC stubs
	$(PROTOC) --python_out=core/src --pyi_out=core/src --grpc_python_out=core/src protos/*.proto

format: .venv/installed  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## resolve requirements.lock again
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links $(foreach p,stream-core stream-engine stream-worker stream-cli stream-judge stream-summarizer stream-gateway stream-hpc-dispatch stream-relay,--no-emit-package $(p)) \
		--all-extras --excludes requirements-excluded.in $(addsuffix /pyproject.toml,$(PROGRAMS)) requirements-dev.in -o requirements.lock

clean:
	rm -rf .venv .cache

bench-dataplane: .venv/installed  ## what the sealed road adds: first token, tokens a second, CPU; last line JSON
	$(BIN)/python bench/dataplane.py

RUNS ?= 3
chaos: .venv/installed  ## kill every part while streams run, RUNS times; last line JSON
	PYTHONPATH=tests $(BIN)/python -m chaos.repeat $(RUNS)

CASES ?= 50000
fuzz: .venv/installed  ## CASES mutated requests and 5,000 roads of texts under generated policies (about 8 minutes)
	STREAM_FUZZ_REQUESTS=$(CASES) $(BIN)/python -m pytest -q -s tests/fuzz/test_requests.py
	STREAM_PRIVACY_EXAMPLES=2500 $(BIN)/python -m pytest -q tests/gateway/privacy/test_nothing_beyond.py

bench-wan: .venv/installed  ## the sealed road across 80 ms, beside loopback; needs root; last line JSON
	PYTHONPATH=tests $(BIN)/python -P bench/wan.py

bench-dispatch: .venv/installed  ## a hot pilot, a job for each request and batch mode on one Slurm; last line JSON
	@mkdir -p .cache && tests/hpc/install.sh
	PYTHONPATH=tests $(BIN)/python -P bench/dispatch.py

bench-capacity: .venv/installed  ## what a token, a wake-up and a request cost each part, held against three loads; last line JSON
	PYTHONPATH=bench $(BIN)/python -P bench/capacity.py

sim-campus: .venv/installed  ## 28 days of a campus through the planner, beside simpler policies; last line JSON
	@PYTHONPATH=bench/simulation $(BIN)/python -m campus

DATA ?= ../shared/data/routing
train-judge: .venv/installed  ## fit the judge's weights to the outcome data in DATA; same data, same bytes
	OMP_NUM_THREADS=1 PYTHONPATH=services/judge $(BIN)/python -m judge_training $(DATA)

TRAIN ?= ../shared/data/routing
bench-judge: .venv/installed  ## the judge beside simple baselines on the outcomes in DATA; last line JSON
	OMP_NUM_THREADS=1 PYTHONPATH=services/judge:bench $(BIN)/python -P bench/judge.py $(DATA) --train $(TRAIN) $(if $(JUDGES),--judges $(JUDGES))

bench-judge-rpc: .venv/installed  ## calls a second and latency of the judge's gRPC service; last line JSON
	PYTHONPATH=tests $(BIN)/python -P bench/judge_rpc.py

bench-keys: .venv/installed  ## how long a wrong key takes to refuse, by how much of it is right; last line JSON
	PYTHONPATH=tests $(BIN)/python -P bench/key_lookup.py

bench-tracing: .venv/installed  ## what traces cost: off, at the default sampling, all, in turns; last line JSON
	PYTHONPATH=bench $(BIN)/python -P bench/tracing.py

bench-summarizer: DATA = ../shared/data/conversations
bench-summarizer: .venv/installed  ## what survives of long conversations, beside two baselines, on those in DATA; last line JSON
	OMP_NUM_THREADS=1 PYTHONPATH=bench $(BIN)/python -P bench/summarizer.py $(DATA)
