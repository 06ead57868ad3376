# Does all the set-up on a machine that has only Python 3.10–3.13 and make. Try `make help`.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
DEMO_ARGS ?=
PYTEST_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UV := uv==0.13.8
# All that the package can use; and what the demo needs, without PyTorch.
EXTRAS := ros,bags,report,train,benchmark,fuzz,test,docs,dev
DEMO_EXTRAS := ros,bags
SMALL := $(VENV)/.installed-demo
# NumPy and OpenCV as in Ubuntu 24.04, for what a robot runs.
UBUNTU := .venv-ubuntu2404
UBUNTU_EXTRAS := ros,bags,report,train,test
UBUNTU_TESTS ?= test/ros test/messages test/recordings test/test_image_files.py

.DEFAULT_GOAL := help
.PHONY: help install demo test test-ubuntu2404 lint docs format constraints

help:  ## Show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## (.*)/make \1\t\2/' | expand -t 24

install: $(INSTALLED)  ## Create .venv and install the package with everything it can use

demo: $(if $(wildcard $(INSTALLED)),$(INSTALLED),$(SMALL))  ## Play a rendered drive to the real node (DEMO_ARGS="--input BAG --out DIR")
	$(BIN)/emu demo $(DEMO_ARGS)

test: lint docs  ## Lint, check types, build the documentation, run the tests
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile $(PYTEST_ARGS)

test-ubuntu2404: $(UBUNTU)/.installed  ## Run the node's tests with the NumPy and OpenCV of Ubuntu 24.04
	$(UBUNTU)/bin/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile $(UBUNTU_TESTS) $(PYTEST_ARGS)

lint: $(INSTALLED)  ## Check style, spelling, language and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python test/language.py
	$(BIN)/mypy

docs: $(INSTALLED)  ## Build the documentation in docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

format: $(INSTALLED)  ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch itself pins the CUDA libraries and the compiler that it was built with.
constraints: $(INSTALLED)  ## Write the newest versions that go together to constraints.txt
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 --upgrade --quiet \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o $(VENV)/pins.txt
	echo "# The tested versions, for Python 3.10 to 3.13 on Linux. Written by: make constraints" > constraints.txt
	sed -E "/^(nvidia|cuda|triton)/d; s/ and sys_platform == 'linux'//g; s/python_full_version < '3.14' and //g; s/( and| ;) python_full_version < '3.14'//g" \
	    $(VENV)/pins.txt >> constraints.txt

# uv installs the same packages as pip, in a fraction of the time; pip does it where uv is missing.
$(INSTALLED): NEEDED := $(EXTRAS)
$(SMALL): NEEDED := $(DEMO_EXTRAS)
$(INSTALLED) $(SMALL): setup.py package.xml pyproject.toml constraints.txt emu_perception/inference/kernels.c
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 13) or sys.exit( \
	  "emu_perception needs Python 3.10 to 3.13, and $(PYTHON) is " + sys.version.split()[0] + \
	  ". Name another one: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Could not create $(VENV). On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV) \
	  || echo "uv is not available: installing with pip, which takes longer"
	@if test -x $(BIN)/uv; \
	  then $(BIN)/uv pip install --python $(BIN)/python -c constraints.txt -e .[$(NEEDED)]; \
	  else $(BIN)/python -m pip install -c constraints.txt -e .[$(NEEDED)]; fi
	@touch $@

$(UBUNTU)/.installed: setup.py package.xml pyproject.toml constraints-ubuntu2404.txt
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 12) or sys.exit( \
	  "NumPy 1.26 needs Python 3.10 to 3.12, and $(PYTHON) is " + sys.version.split()[0])'
	@test -x $(UBUNTU)/bin/python || $(PYTHON) -m venv $(UBUNTU)
	@$(UBUNTU)/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	@$(UBUNTU)/bin/uv pip install --python $(UBUNTU)/bin/python -c constraints-ubuntu2404.txt -e .[$(UBUNTU_EXTRAS)]
	@touch $@
