# Each target works alone on a fresh machine with Python 3.11 and git.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: quickstart demo test test-slow lint format clean

# The stamp is renewed only when what is installed could change.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

quickstart: $(VENV)/.installed
	$(RUN) -m hf_msae.cli quickstart --output_dir outputs/quickstart

demo: $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[space]"
	$(RUN) -m hf_msae.cli demo

# A test file stays in one process; a process computes on one thread, since the others have work of their own.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --maxprocesses 4 --dist loadfile

test: $(VENV)/.installed
	$(PYTEST)

test-slow: $(VENV)/.installed
	$(PYTEST) -m slow --durations 10

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

format: $(VENV)/.installed
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV) outputs build dist .pytest_cache .ruff_cache
