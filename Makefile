# make demo    set up, then train and score the demo        make test    set up, then run the tests
# make lint    ruff                                         make VENV=path demo    use an existing environment unchanged
# make LOCKED=1 demo    install the versions that last passed the tests (constraints.txt), not the newest

PYTHON ?= python3

ifeq ($(origin VENV), undefined)
VENV := .venv
LOCK := $(if $(LOCKED),constraints.txt)
RUNTIME := $(VENV)/.requirements$(if $(LOCKED),-locked)
DEVELOPMENT := $(VENV)/.requirements-dev$(if $(LOCKED),-locked)
endif

.PHONY: demo test lint

demo: $(RUNTIME)
	$(VENV)/bin/python reproduce.py demo

test: $(DEVELOPMENT)
	$(VENV)/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

lint: $(DEVELOPMENT)
	$(VENV)/bin/python -m ruff check .

# The stamps are written last, so an installation that was broken off is taken up again.
.venv/bin/python:
	$(PYTHON) -m venv .venv

INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check $(addprefix -c ,$(LOCK))

.venv/.requirements .venv/.requirements-locked: requirements.txt $(LOCK) | .venv/bin/python
	$(INSTALL) -r requirements.txt
	touch $@

.venv/.requirements-dev .venv/.requirements-dev-locked: requirements-dev.txt requirements-export.txt requirements.txt $(LOCK) | .venv/bin/python
	$(INSTALL) -r requirements-dev.txt
	touch $@
