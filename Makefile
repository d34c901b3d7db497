# The verbs of the house, for people and for CI. Each sets up .venv from constraints.txt first, once.

PYTHON ?= python3
BIN := .venv/bin
CLIP ?= videollm/assets/clips/two_things.mp4
ASK ?= What do you see?
# Faster on an idle machine: make test PARALLEL="-n logical --dist loadfile"; crowded, tests that race with the model may lose.
PARALLEL ?=

.PHONY: help chat demo test browser check bench tiny

help:
	@echo 'make chat    set up and answer a question about a bundled clip (CLIP=file ASK="question" for your own)'
	@echo 'make demo    the page: bring clips, watch them, talk about them (http://127.0.0.1:7860)'
	@echo 'make test    the tests (not: slow, gpu, network, browser)'
	@echo 'make browser the tests of the page in a Chromium of the system (apt-get install chromium)'
	@echo 'make check   ruff and pyright'
	@echo 'make bench   the benchmarks of scripts/bench, the long ones on shorter films'
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

.venv/.installed-demo: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

demo: .venv/.installed-demo
	$(BIN)/python demo/app.py

test: .venv/.installed-dev
	$(BIN)/python -m pytest -q $(PARALLEL)

browser: .venv/.installed-dev
	$(BIN)/python -m pytest -q -m browser

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/.installed-dev
	@set -e; for file in scripts/bench/*.py; do \
	    case "$$file" in \
	        *narration.py) shorter="--minutes 4" ;; \
	        *hour.py) shorter="--minutes 12 --questions 40" ;; \
	        *moments.py) shorter="--moments 20000" ;; \
	        *search.py) shorter="--films 20" ;; \
	        *) shorter= ;; \
	    esac; \
	    echo "== $$file $$shorter"; $(BIN)/python "$$file" $$shorter; done

tiny: .venv/.installed-dev
	$(BIN)/python scripts/make_tiny.py
