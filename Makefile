# The verbs of the house, for people and for CI. Each sets up .venv from constraints.txt first, once.

PYTHON ?= python3
BIN := .venv/bin
CLIP ?= videollm/assets/clips/two_things.mp4
ASK ?= What do you see?

.PHONY: help chat test check bench tiny

help:
	@echo 'make chat    set up and answer a question about a bundled clip (CLIP=file ASK="question" for your own)'
	@echo 'make test    the tests (not: slow, gpu, network)'
	@echo 'make check   ruff and pyright'
	@echo 'make bench   the benchmarks of scripts/bench'
	@echo 'make tiny    train the embedded model from nothing'

.venv/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "videollm needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	@touch $@

# Where pip's indexes offer both, the CPU build of torch is a local version (2.13.0+cpu) and so the newer of the two.
.venv/.installed: .venv/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

chat: .venv/.installed
	$(BIN)/videollm chat "$(CLIP)" --ask "$(ASK)"

test: .venv/.installed-dev
	$(BIN)/python -m pytest -q

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/.installed-dev
	@set -e; for file in scripts/bench/*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

tiny: .venv/.installed-dev
	$(BIN)/python scripts/make_tiny.py
