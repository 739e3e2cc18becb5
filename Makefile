# make demo: sets everything up and runs the whole main job.   make test: sets everything up and passes the tests.
PYTHON ?= python3
VENV := .venv
DEMO_READY := $(VENV)/.ready-demo
READY := $(VENV)/.ready
PIP := $(VENV)/bin/pip install --disable-pip-version-check --progress-bar on -c constraints.txt

.PHONY: setup demo test test-slow lint docs clean

setup: $(READY)

define make_venv
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed, this is ' + sys.version.split()[0] + ': make PYTHON=python3.11') if sys.version_info < (3, 11) else None"
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
endef

$(DEMO_READY): pyproject.toml constraints.txt
	$(make_venv)
	$(PIP) -e ".[report]"
	touch $(DEMO_READY)

$(READY): pyproject.toml constraints.txt
	$(make_venv)
	$(PIP) -e ".[dev]"
	touch $(DEMO_READY) $(READY)

demo: $(DEMO_READY)
	$(VENV)/bin/rl-distill ppo $(ARGS)

test: $(READY)
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --ignore tests/sandboxes $(ARGS)
	$(VENV)/bin/python -m pytest tests/sandboxes $(ARGS)

test-slow: $(READY)
	$(VENV)/bin/python -m pytest -m slow $(ARGS)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(READY)
	$(PIP) -e ".[docs]"
	$(VENV)/bin/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
