# `make test` and `make demo` need Python 3.11 or later and nothing else: they set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core
READY := $(VENV)/.ready

# What `accelerate launch` runs in one process; started without it, since it answers Ctrl-C with a traceback of its own.
# Threads that wait for each other spin only briefly: on two cores, a step beside a busy process then takes 1.4 times, not
# 4 times, as long as on a quiet machine. The C library keeps memory for the next step (benchmarks/FINDINGS.md).
DISTILL := GOMP_SPINCOUNT=1000 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=4000000000 \
	$(BIN)/python examples/distill.py

.PHONY: setup demo demo-short test test-all test-spawn test-transformers test-lowest quality style docs dist clean

setup: $(READY)

# What the package itself needs. Running it again continues a set-up that was interrupted.
$(CORE): setup.cfg pyproject.toml $(BIN)/python
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, but $(PYTHON) \
	is " + sys.version.split()[0] + "; run make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@{ $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' && $(BIN)/python -m pip --version; } \
		> /dev/null 2>&1 || { test ! -e $(VENV) || \
		echo "$(VENV) is made anew: it has no Python 3.11 or later with a pip that works"; \
		$(PYTHON) -m venv --clear $(VENV); }
	@echo "Setting up $(VENV): this downloads PyTorch and transformers, and takes some minutes, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . || \
		{ echo "The set-up of $(VENV) has failed, see above; make $(MAKECMDGOALS) continues it"; exit 1; }
	@touch $(CORE)

# no recipe: where it is gone, as when the Python that it links to was removed, make takes the set-up for outdated
$(BIN)/python:

# and what tests, exporters, the demo page and the checks need
$(READY): $(CORE)
	@echo "Setting up the tools for tests, exporters and the demo page"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' || \
		{ echo "The set-up of $(VENV) has failed, see above; make $(MAKECMDGOALS) continues it"; exit 1; }
	@touch $(READY)

# a real distillation on videos made on the spot
demo: $(CORE)
	@$(DISTILL) examples/demo.yaml

# the same path in a minute, with networks that learn next to nothing
demo-short: $(CORE)
	rm -rf runs/demo-short
	$(DISTILL) examples/demo.yaml --output_dir runs/demo-short --rendered_train_clips 8 \
		--rendered_validation_clips 1 --rendered_test_clips 2 --student_train_clips 4 --teacher_epochs 1 \
		--num_train_epochs 2 --train_teacher true

# Two processes of one thread each take little more than half the time of one of two. One that dies is not replaced:
# xdist waits for ever if that was in the last test of a file.
IN_TWO := -m pytest -n 2 --dist loadfile --max-worker-restart 0
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python $(IN_TWO)

# the checks and the tests that are not slow
test: $(READY) quality
	$(PYTEST)

# those, then the slow tests, and the next two
test-all: test
	$(PYTEST) -m slow
	$(MAKE) test-spawn test-transformers

# workers of data loaders as macOS and Windows start them
test-spawn: $(READY)
	$(PYTEST) --dist load --start-method spawn -k "worker or loaders" tests/data/test_benchmarks.py \
		tests/data/test_clips.py tests/inference/test_evaluation.py tests/training/test_teacher_cache.py \
		tests/training/test_trainer_contract.py

# our classes in the tests of transformers' own models: a minute, after a download of 11 MB the first time
test-transformers: $(READY)
	@$(BIN)/python tests/transformers_suite/fetch_tests.py
	$(PYTEST) --dist load tests/transformers_suite --at-least 116

# the tests that are not slow, with each dependency at the lower bound that setup.cfg gives it; the exporters and the
# demo page, which ask for newer ones, come second
LOWEST := .venv-lowest
LOWEST_PYTEST := OMP_NUM_THREADS=1 $(LOWEST)/bin/python $(IN_TWO)
LATER_TESTS := tests/inference/test_export.py tests/inference/test_demo_page.py

test-lowest:
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(PYTHON) .ci/lowest_bounds.py test > $(LOWEST)/bounds.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(LOWEST)/bounds.txt \
		--editable '.[test]'
	$(LOWEST)/bin/python -m pip check
	$(LOWEST_PYTEST) $(LATER_TESTS:%=--ignore %)
	$(PYTHON) .ci/lowest_bounds.py test export demo > $(LOWEST)/bounds.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(LOWEST)/bounds.txt \
		--editable '.[test,export,demo]'
	$(LOWEST)/bin/python -m pip check
	$(LOWEST_PYTEST) $(LATER_TESTS)

quality: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

style: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# the pages and the API reference as a site, in site/; a warning is an error
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# sdist and wheel, in dist/
dist: $(READY)
	rm -rf build dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

clean:
	rm -rf $(VENV) $(LOWEST) build dist site *.egg-info .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
