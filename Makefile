# make demo    set up, then train and score the demo        make test    set up, then run the tests
# make lint    ruff                                         make VENV=path demo    use an environment that is there, as it is

PYTHON ?= python3

ifeq ($(origin VENV), undefined)
VENV := .venv
RUNTIME := $(VENV)/.requirements
DEVELOPMENT := $(VENV)/.requirements-dev
endif

.PHONY: demo test lint

demo: $(RUNTIME)
	$(VENV)/bin/python reproduce.py demo

test: $(DEVELOPMENT)
	$(VENV)/bin/python -m pytest

lint: $(DEVELOPMENT)
	$(VENV)/bin/python -m ruff check .

# The stamps are written last, so an installation that was broken off is taken up again.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.requirements: requirements.txt | .venv/bin/python
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/.requirements-dev: requirements-dev.txt requirements.txt | .venv/bin/python
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
