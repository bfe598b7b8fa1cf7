# Each target works alone on a fresh machine with Python 3.11 and git.
PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
RUN := $(VENV)/bin/python

.PHONY: quickstart demo test test-slow test-oldest lint format clean

# What is imported is compiled and kept then: to compile everything that is installed takes longer than installing it.
export PYTHONDONTWRITEBYTECODE :=
PIP = pip install --quiet --disable-pip-version-check --no-compile

# The stamp is renewed only when what is installed could change.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/$(PIP) -c constraints.txt -e ".[dev]"
	touch $@

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/$(PIP) -c constraints-oldest.txt \
		-e ".[siglip,train,mcp,clipart,hyperspectral,label,soil,steering,test]"
	touch $@

quickstart: $(VENV)/.installed
	$(RUN) -m hf_msae.cli quickstart --output_dir outputs/quickstart

demo: $(VENV)/.installed
	$(VENV)/bin/$(PIP) -c constraints.txt -e ".[space]"
	$(RUN) -m hf_msae.cli demo

# A test file stays in one process; a process computes on one thread, since the others have work of their own.
PYTEST = OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --maxprocesses 4 --dist loadfile

test: $(VENV)/.installed
	$(PYTEST)

test-slow: $(VENV)/.installed
	$(PYTEST) -m slow --durations 10

# The same on the oldest versions that pyproject.toml admits.
test-oldest: RUN := $(OLDEST)/bin/python
test-oldest: $(OLDEST)/.installed
	$(PYTEST)

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

format: $(VENV)/.installed
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV) $(OLDEST) outputs build dist .pytest_cache .ruff_cache
