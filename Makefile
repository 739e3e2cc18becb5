# make demo: sets everything up and runs the whole main job.   make test: sets everything up and passes the tests.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: setup demo test test-slow lint clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed, this is ' + sys.version.split()[0] + ': make PYTHON=python3.11') if sys.version_info < (3, 11) else None"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(READY)

demo: $(READY)
	$(VENV)/bin/accelerate launch --config_file configs/accelerate/one_process.yaml launch/ppo.py $(ARGS)

test: $(READY)
	$(VENV)/bin/python -m pytest $(ARGS)

test-slow: $(READY)
	$(VENV)/bin/python -m pytest -m slow $(ARGS)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
