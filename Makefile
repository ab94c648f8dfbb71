# The one door. Everything but `clean` sets up what it needs first (scripts/bootstrap).
.PHONY: help setup demo test test-s3 soak lint bench lock clean
ARGS ?=

help:
	@echo "make demo   see it work: an embedded S3, a mount, and what to try"
	@echo "make test   run the tests            (ARGS='-k name' for some of them)"
	@echo "make test-s3 SERVER=versitygw|versitygw-tls|minio   those that ask a store, on another one than moto"
	@echo "make soak MINUTES=10 SEED=1   the model test for long; what fails is kept in build/soak"
	@echo "make lint   ruff, mypy, import contracts, C warnings, formats"
	@echo "make bench  measure everything   (ARGS='--json FILE'; one of them: .venv/bin/python -m bench NAME)"
	@echo "make setup  only set up .venv        make lock   renew the lock files"
	@echo "make clean  remove what was built, .venv too"

setup:
	@scripts/bootstrap

demo: setup
	@if [ -t 0 ]; then .venv/bin/fsxsync demo $(ARGS); else .venv/bin/fsxsync demo --check $(ARGS); fi

test: setup
	.venv/bin/pytest -q -rs -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

SERVER ?= versitygw
test-s3: setup
	scripts/build-server $(firstword $(subst -, ,$(SERVER)))
	FSXSYNC_TEST_SERVER=$(SERVER) .venv/bin/pytest -q -rs -n 4 --dist loadfile --no-loadscope-reorder tests/contract/test_store.py tests/integration $(ARGS)

MINUTES ?= 10
SEED ?= 1
soak: setup
	.venv/bin/python tests/model/soak.py --minutes $(MINUTES) --seed $(SEED) $(ARGS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m mypy.stubtest fsxsync._core
	.venv/bin/clang-format --dry-run --Werror c_ext/*.[ch] tests/c/*.c
	@build=$$(mktemp -d) && trap 'rm -rf "$$build"' EXIT && \
	FSXSYNC_WERROR=1 .venv/bin/python setup.py -q build_ext --force --build-lib "$$build" --build-temp "$$build" \
	&& echo "C core: no warnings"

bench: setup
	.venv/bin/python -m bench all $(ARGS)

lock: setup
	.venv/bin/pip install -q uv
	$(COMPILE) --group build --output-file requirements-build.lock
	$(COMPILE) pyproject.toml --extra demo --group test --group lint --output-file requirements.lock

COMPILE = .venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --strip-extras --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"

clean:
	rm -rf .venv build *.egg-info fsxsync/*.so .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find fsxsync tests -name __pycache__ -exec rm -rf {} +
